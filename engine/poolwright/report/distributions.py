"""Where runs ended, in percent, and how large their batches were: means, maxima and distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .merging import section, source_of
from .statistics import mean, measured

if TYPE_CHECKING:
    from ..results import Result, RunResult

BUDGET = "budget"
"""Name of the labels paid for, as percent of the samples that could be chosen."""

ORDER = ("precision", "accuracy", "recall", "f1")
"""Metrics that stand first, in this order; others follow as they were recorded."""

DENSITY_FROM = 10
"""With fewer values a histogram has no density curve: it would show the kernel, not the values."""

BINS = 16
"""At most so many bins from the lowest value of a histogram to the highest."""


@dataclass(frozen=True)
class Outcome:
    """Where the runs of one strategy ended.

    Attributes
    ----------
    label : str
    runs : int
        How many count: they came to their end and have a test metric.
    values : dict
        Metric on test data at the last point, and :data:`BUDGET`, in percent -> one value a run that has it.
    """

    label: str
    runs: int
    values: dict[str, list[float]]

    def mean(self, name: str) -> float | None:
        """Return the mean over the runs, in percent; None where no run has it."""
        return mean(self.values.get(name, ()))

    def most(self, name: str) -> float | None:
        """Return the maximum over the runs, in percent; None where no run has it."""
        return max(self.values.get(name, ()), default=None)


@dataclass(frozen=True)
class Histogram:
    """Values in bins of equal width.

    Attributes
    ----------
    values : list of float
    edges : list of float
        One more than there are bins; each bin holds its lower edge, the last one both.
    counts : list of int
    density : list of (float, float) or None
        A Gaussian kernel density estimate (Scott's bandwidth) at points from the first edge to the last, times the
        number of values and the width of a bin, so that it lies on the counts; None where there are too few values or
        they are all equal.
    """

    values: list[float]
    edges: list[float]
    counts: list[int]
    density: list[tuple[float, float]] | None


def outcomes(result: Result) -> list[Outcome]:
    """Return where the runs of every strategy ended, strategies without a run that counts left out."""
    found = []
    for label in result.strategies:
        runs = measured(result.of(label))
        choosable = samples_to_choose_from(source_of(result, label))
        ends = [_end(run, choosable) for run in runs]
        names = ordered(dict.fromkeys(name for values in ends for name in values))
        if runs:
            values = {name: [values[name] for values in ends if name in values] for name in names}
            found.append(Outcome(label, len(runs), values))
    return found


def _end(run: RunResult, choosable: int | None) -> dict[str, float]:
    last = next(record.test for record in reversed(run.records) if record.test)
    percent = {name: 100 * value for name, value in last.items() if math.isfinite(value)}
    if choosable:
        percent[BUDGET] = 100 * run.records[-1].paid / choosable
    return percent


def samples_to_choose_from(info: dict[str, Any]) -> int | None:
    """Return the size of the pool without what ``[reserve]`` sets aside; None where the result does not say."""
    pool = section(info, "samples").get("pool")
    if not isinstance(pool, int):
        return None
    shares = section(section(info, "config"), "reserve").values()
    return pool - sum(round(float(share) * pool) for share in shares)


def ordered(names: Sequence[str] | dict[str, Any]) -> list[str]:
    """Return names of metrics in the order of the papers' tables, the budget last."""
    known = [name for name in ORDER if name in names]
    rest = [name for name in names if name not in ORDER and name != BUDGET]
    return [*known, *rest, *([BUDGET] if BUDGET in names else [])]


def columns(found: Sequence[Outcome]) -> list[str]:
    """Return the names that at least one strategy has, in order."""
    return ordered(dict.fromkeys(name for item in found for name in item.values))


def batch_sizes(run: RunResult) -> list[int]:
    """Return how many samples each query selected."""
    return [len(record.selected) for record in run.records if record.selected]


def batches_differ(run: RunResult) -> bool:
    """Tell whether a run chose batches of different sizes; its last one, which takes what is left, does not count."""
    return len(set(batch_sizes(run)[:-1])) > 1


def differing_batches(result: Result) -> dict[str, list[int]]:
    """Return label -> sizes of all batches of its runs, for the strategies whose batches differ within a run."""
    found = {}
    for label in result.strategies:
        runs = measured(result.of(label))
        if any(map(batches_differ, runs)):
            found[label] = [size for run in runs for size in batch_sizes(run)]
    return found


def histograms(values: Sequence[Sequence[float]], *, whole: bool = False) -> list[Histogram]:
    """Return a histogram of each list of numbers, all with the same bins.

    Parameters
    ----------
    values : sequence of sequence of float
        At least one number in all.
    whole : bool
        They are whole numbers: a bin is no narrower than 1.
    """
    import numpy as np

    everything = [value for some in values for value in some]
    low, high = min(everything), max(everything)
    width = round_width((high - low) / (BINS - 1) or max(abs(high), 1.0) / 100, whole=whole)
    first, last = math.floor(low / width), math.floor(high / width) + 1
    if last - first == 1:  # one bin alone would fill the frame and look like a spread
        first, last = first - 1, last + 1
    edges = [place * width for place in range(first, last + 1)]
    found = []
    for some in values:
        counts = np.bincount([math.floor(value / width) - first for value in some], minlength=last - first)
        found.append(Histogram(list(some), edges, counts.tolist(), _density(some, edges)))
    return found


def round_width(least: float, *, whole: bool = False) -> float:
    """Return the smallest of 1, 2, 5, 10, 20 ... and their tenths that is no smaller than ``least``."""
    if whole:
        least = max(least, 1.0)
    unit = 10.0 ** math.floor(math.log10(least))
    return next(unit * step for step in (1, 2, 5, 10) if unit * step >= least * (1 - 1e-9))


def _density(values: Sequence[float], edges: Sequence[float]) -> list[tuple[float, float]] | None:
    if len(values) < DENSITY_FROM or math.isclose(min(values), max(values), rel_tol=1e-9, abs_tol=1e-12):
        return None
    import numpy as np
    from scipy.stats import gaussian_kde

    grid = np.linspace(edges[0], edges[-1], 120)
    scale = len(values) * (edges[1] - edges[0])
    return list(zip(grid.tolist(), (gaussian_kde(values)(grid) * scale).tolist(), strict=True))
