"""What the kernels have in common in reading their arguments."""

from __future__ import annotations

import logging
import operator
from typing import TYPE_CHECKING, Any

from poolwright.kernels._native_build import cuda_missing, load

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_log = logging.getLogger("poolwright.kernels")
_said: set[str] = set()


def choose_backend(what: str, backend: str, device: torch.device) -> str:
    """Return the backend by name, saying once why ``auto`` took it."""
    no_native, no_cuda = load()[1], cuda_missing()
    missing = {"native": no_native, "cuda": no_cuda}
    needs = {"native": "cpu", "cuda": "cuda"}
    where = {"native": "in CPU memory", "cuda": "on a CUDA device"}
    if backend in missing:
        if missing[backend]:
            raise RuntimeError(f'backend="{backend}" is not there: {missing[backend]}')
        if device.type != needs[backend]:
            raise ValueError(
                f'backend="{backend}" needs x {where[backend]}, and it is on {device}: use x.{needs[backend]}()'
            )
        return backend
    if backend in ("torch", "reference"):
        return backend
    if backend != "auto":
        raise ValueError(f'backend must be "auto", "native", "cuda", "torch" or "reference", not {backend!r}')
    for name, kind in needs.items():
        if device.type == kind and not missing[name]:
            say_once(f"{what}: backend {name}, since x is {where[name]}")
            return name
    reason = {"cpu": no_native, "cuda": no_cuda}.get(device.type, f"there are no kernels for {device.type} devices")
    say_once(f"{what}: backend torch, since {reason}")
    return "torch"


def say_once(message: str) -> None:
    """Log a message, the first time."""
    if message not in _said:
        _said.add(message)
        _log.info(message)


def row_numbers(name: str, value: Any, n: int) -> Tensor:
    """Return row numbers as a (m,) int64 tensor on the CPU; they may come in any order and more than once."""
    import numpy as np
    import torch

    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.size == 0:
        return torch.empty(0, dtype=torch.int64)
    if array.dtype.kind == "b":
        raise TypeError(f"{name} must be row numbers, not a mask: use numpy.flatnonzero(mask)")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, not {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not {array.ndim}")
    outside = (array < 0) | (array >= n)
    if outside.any():
        raise ValueError(f"{name} holds {int(array[outside][0])}, and x has the rows 0 to {n - 1}")
    return torch.from_numpy(array.astype(np.int64))


def integer(name: str, value: Any) -> int:
    """Return ``value`` as an int; a float or a text is an error that names the parameter."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None


def centers_and_eligible(labeled: Any, candidates: Any, n: int) -> tuple[Tensor, Tensor]:
    """Return the labeled rows, ascending int64, and which rows may be picked, (n,) bool; both on the CPU."""
    import torch

    centers = torch.empty(0, dtype=torch.int64) if labeled is None else torch.unique(row_numbers("labeled", labeled, n))
    eligible = torch.full((n,), candidates is None, device="cpu")
    if candidates is not None:
        eligible[row_numbers("candidates", candidates, n)] = True
    eligible[centers] = False
    return centers, eligible


def check_picks(k: int, eligible: int, n: int, labeled: int, restricted: bool) -> int:
    """Return k, an integer between 0 and the number of eligible rows."""
    k = integer("k", k)
    if k < 0:
        raise ValueError(f"k must not be negative, and is {k}")
    if k > eligible:
        way_out = "pass more candidates" if restricted else "grow the pool"
        raise ValueError(
            f"k = {k}, but only {eligible} points are eligible ({n} rows, {labeled} labeled"
            f"{', candidates given' if restricted else ''}): ask for at most {eligible} or {way_out}"
        )
    return k
