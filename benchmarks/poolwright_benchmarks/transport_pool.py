"""Exact transport by POT and scipy in a pool of processes that read the points from a file, as a user would do it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

_data: dict[str, Any] = {}


class Pool:
    """Processes with one thread each, over pairs of point sets.

    Parameters
    ----------
    xs, ys : list of numpy.ndarray
        (n_i, d) float32 each.
    processes : int
    """

    def __init__(self, xs: list[np.ndarray], ys: list[np.ndarray], processes: int) -> None:
        self.pairs, self.processes = len(xs), processes
        self._folder = tempfile.mkdtemp(prefix="poolwright-bench-")
        for name, sets in (("x", xs), ("y", ys)):
            np.save(Path(self._folder, f"{name}.npy"), np.concatenate(sets))
            np.save(Path(self._folder, f"{name}-offsets.npy"), np.cumsum([0, *map(len, sets)]))
        self._executor: ProcessPoolExecutor | None = None

    def start(self) -> None:
        """Start the processes and import what they need; a second call does nothing."""
        if self._executor is not None:
            return
        context = multiprocessing.get_context("spawn")  # a fork would take OpenMP's locks along
        self._executor = ProcessPoolExecutor(self.processes, context, _open, (self._folder,))
        list(self._executor.map(_warm, range(4 * self.processes)))

    def run(self, solver: str) -> np.ndarray:
        """Return W_2 of every pair, (pairs,) float64, by "pot" or "scipy"."""
        self.start()
        assert self._executor is not None
        chunk = max(1, self.pairs // (8 * self.processes))
        solve = {"pot": _pot, "scipy": _scipy}[solver]
        return np.fromiter(self._executor.map(solve, range(self.pairs), chunksize=chunk), np.float64, self.pairs)

    def close(self) -> None:
        """Stop the processes and remove the file."""
        if self._executor is not None:
            self._executor.shutdown()
        shutil.rmtree(self._folder)


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (n, m) float64 squared distances by one float32 product, the fastest way here."""
    product = x @ y.T
    squares = np.einsum("ij,ij->i", x, x)[:, None] + np.einsum("ij,ij->i", y, y)
    return np.maximum(squares - 2 * product, 0).astype(np.float64)


def pot(x: np.ndarray, y: np.ndarray) -> float:
    """Return W_2 of two sets with uniform weights, by POT's network simplex."""
    import ot

    return float(ot.emd2([], [], squared_distances(x, y))) ** 0.5


def assignment(x: np.ndarray, y: np.ndarray) -> float:
    """Return W_2 of two sets of one size with uniform weights, by scipy's assignment."""
    from scipy.optimize import linear_sum_assignment

    cost = squared_distances(x, y)
    return float(cost[linear_sum_assignment(cost)].mean()) ** 0.5


def _open(folder: str) -> None:
    os.environ["POT_BACKEND_DISABLE_PYTORCH"] = "1"
    import threadpoolctl

    _data["limit"] = threadpoolctl.threadpool_limits(1)
    for name in ("x", "y"):
        _data[name] = np.load(Path(folder, f"{name}.npy"), mmap_mode="r")
        _data[f"{name}-offsets"] = np.load(Path(folder, f"{name}-offsets.npy"))


def _warm(_: int) -> None:
    import importlib.util

    import scipy.optimize  # noqa: F401

    if importlib.util.find_spec("ot") is not None:
        import ot  # noqa: F401


def _pair(i: int) -> tuple[np.ndarray, np.ndarray]:
    sets = []
    for name in ("x", "y"):
        start, stop = _data[f"{name}-offsets"][i : i + 2]
        sets.append(np.asarray(_data[name][start:stop]))
    return sets[0], sets[1]


def _pot(i: int) -> float:
    return pot(*_pair(i))


def _scipy(i: int) -> float:
    return assignment(*_pair(i))
