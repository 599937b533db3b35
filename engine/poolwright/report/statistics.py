"""Means, intervals and tests over the seeds of a sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..results import Result, RunResult

LEVEL = 0.95
"""Confidence level of every interval."""

BASELINE = "random"
"""The strategy that others are tested against."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes
    ----------
    mean : float
    half_width : float or None
        Of the 95 % Student-t interval; None for one seed, which tells nothing about the spread.
    n : int
        How many seeds.
    """

    mean: float
    half_width: float | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """A paired t-test of AUBC, or of another figure of a run, against a reference, over the seeds that both have.

    Attributes
    ----------
    difference : float
        Mean above the reference.
    p : float or None
        Two-sided; None where the difference is the same for every seed: there is no spread to test with.
    seeds : int
        How many pairs.
    """

    difference: float
    p: float | None
    seeds: int


@dataclass(frozen=True)
class MeanCurve:
    """Learning curves of several seeds on one grid.

    Attributes
    ----------
    labels : list of float
        Labels paid for, ascending: every point of every seed inside the span that all seeds share.
    mean : list of float
    half_width : list of float or None
        Of the 95 % Student-t interval at each point; None for one seed.
    seeds : int
    runs : list of (list of float, list of float)
        Labels and values of each seed where they begin or end at different label counts, so that ``mean`` leaves a part
        of them out; else empty.
    """

    labels: list[float]
    mean: list[float]
    half_width: list[float] | None
    seeds: int
    runs: list[tuple[list[float], list[float]]] = field(default_factory=list)


@dataclass(frozen=True)
class StrategySummary:
    """The figures of one strategy, over its runs that were measured to the end.

    Attributes
    ----------
    label : str
    metric : str
        The task's headline metric, which AUBC and final are about.
    seeds : list of int
        Seeds of the runs that count below.
    runs : int
        How many runs there are, counted or not.
    aubc, final : Estimate or None
        None where no run counts.
    query_seconds : float or None
        Mean time of a query; None where nothing was asked.
    fit_seconds : float or None
        Mean time of a fit.
    paid : list of int
        Labels paid for at the end, each different count once, ascending.
    span : (int, int) or None
        Labels paid for at the first and last point, where all runs agree on both.
    truth : bool
        A run used hidden labels: an upper bound, not a result.
    errors : list of (int, str)
        Seeds that failed, and why.
    incomplete : list of int
        Seeds that were interrupted.
    unmeasured : list of int
        Seeds that came to the end without a usable test metric.
    versus_baseline : Comparison or None
        None for the baseline itself, without one, and with fewer than two common seeds.
    """

    label: str
    metric: str
    seeds: list[int]
    runs: int
    aubc: Estimate | None = None
    final: Estimate | None = None
    query_seconds: float | None = None
    fit_seconds: float | None = None
    paid: list[int] = field(default_factory=list)
    span: tuple[int, int] | None = None
    truth: bool = False
    errors: list[tuple[int, str]] = field(default_factory=list)
    incomplete: list[int] = field(default_factory=list)
    unmeasured: list[int] = field(default_factory=list)
    versus_baseline: Comparison | None = None


def mean(values: Iterable[float]) -> float | None:
    """Return the mean, or None where there is nothing to average."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else None


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean and its 95 % Student-t interval; None without values, no interval for one value."""
    center = mean(values)
    if center is None:
        return None
    n = len(values)
    if n == 1:
        return Estimate(center, None, 1)
    deviation = math.sqrt(math.fsum((value - center) ** 2 for value in values) / (n - 1))
    return Estimate(center, _quantile(n) * deviation / math.sqrt(n), n)


def _quantile(n: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, n - 1))


def mean_curve(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> MeanCurve | None:
    """Bring curves to a common grid by linear interpolation, and average them.

    Batches may differ between seeds. Nothing is extrapolated: the grid ends where the shortest curve does, and
    ``runs`` of what is returned shows the others beyond it.

    Parameters
    ----------
    curves : sequence of (labels, values)
        One for each seed; labels never fall. Of points at the same label count the last one counts.

    Returns
    -------
    MeanCurve or None
        None without a curve, or where the curves share no label count.
    """
    import numpy as np

    points = [dict(zip(labels, values, strict=True)) for labels, values in curves if labels]
    if not points:
        return None
    low = max(min(curve) for curve in points)
    high = min(max(curve) for curve in points)
    grid = sorted({label for curve in points for label in curve if low <= label <= high})
    if not grid:
        return None
    values = np.array([np.interp(grid, list(curve), list(curve.values())) for curve in points])
    half_width = None
    if len(points) > 1:
        deviation = values.std(axis=0, ddof=1)
        half_width = (_quantile(len(points)) * deviation / math.sqrt(len(points))).tolist()
    spans = {(min(curve), max(curve)) for curve in points}
    each = [([float(label) for label in curve], list(curve.values())) for curve in points] if len(spans) > 1 else []
    return MeanCurve([float(label) for label in grid], values.mean(axis=0).tolist(), half_width, len(points), each)


def compare(values: dict[int, float], reference: dict[int, float]) -> Comparison | None:
    """Return the paired t-test of a figure by seed, such as AUBC; None with fewer than two common seeds."""
    common = sorted(values.keys() & reference.keys())
    if len(common) < 2:
        return None
    differences = [values[seed] - reference[seed] for seed in common]
    center = math.fsum(differences) / len(differences)
    if all(math.isclose(value, center, rel_tol=1e-9, abs_tol=1e-12) for value in differences):
        return Comparison(center, None, len(common))
    from scipy.stats import ttest_1samp

    return Comparison(center, float(ttest_1samp(differences, 0.0).pvalue), len(common))


def is_finished(run: RunResult) -> bool:
    """Tell whether a run came to its end without an error."""
    return run.complete and not run.error


def is_measured(run: RunResult) -> bool:
    """Tell whether a run counts: it came to its end, with a finite headline metric on test data."""
    values = run.curve()[1]
    return is_finished(run) and bool(values) and all(math.isfinite(value) for value in values)


def measured(runs: Iterable[RunResult]) -> list[RunResult]:
    """Return the runs that count."""
    return [run for run in runs if is_measured(run)]


def query_times(run: RunResult) -> dict[int, float]:
    """Return cycle -> seconds of its query, for the cycles that asked for labels."""
    return {record.index: record.query_seconds for record in run.records if record.selected}


def cycle_seconds(run: RunResult) -> tuple[list[int], list[float]]:
    """Return labels paid for and seconds of the cycles that asked for labels: one point a label count.

    A cycle is everything from the learner's fit to the ids; the evaluation on test data is left out, since labeling
    needs none. Where several cycles began with the same labels, as after a batch that was paid for before, their mean
    is taken.
    """
    gathered: dict[int, list[float]] = {}
    for record in run.records:
        if record.selected:
            seconds = math.fsum(value for phase, value in record.seconds.items() if phase != "report")
            gathered.setdefault(record.paid, []).append(seconds)
    return list(gathered), [math.fsum(values) / len(values) for values in gathered.values()]


QUERY_PHASES = ("reward", "update", "score", "select")
"""What a query is made of, in the order in which it happens."""


def query_phases(runs: Sequence[RunResult]) -> dict[str, float] | None:
    """Return phase -> mean seconds over all queries of the runs; None where nothing was asked."""
    asked = [record.seconds for run in runs for record in run.records if record.selected]
    if not asked:
        return None
    return {phase: math.fsum(seconds.get(phase, 0.0) for seconds in asked) / len(asked) for phase in QUERY_PHASES}


def phase_seconds(runs: Sequence[RunResult]) -> dict[str, tuple[float, float]]:
    """Return phase -> (mean seconds of a cycle that has it, mean seconds of a run)."""
    times: dict[str, list[float]] = {}
    for run in runs:
        for record in run.records:
            for phase, seconds in record.seconds.items():
                times.setdefault(phase, []).append(seconds)
    return {phase: (math.fsum(all_) / len(all_), math.fsum(all_) / len(runs)) for phase, all_ in times.items()}


def is_baseline(label: str) -> bool:
    """Tell whether a label is the baseline's, also where :func:`poolwright.report.merge` renamed it."""
    return label == BASELINE or label.startswith(f"{BASELINE} [")


def summarize(result: Result) -> list[StrategySummary]:
    """Return the figures of every strategy, in the order of the result.

    Runs that failed, were interrupted, or have no test metric are counted apart and left out of every mean.
    """
    baseline = next((label for label in result.strategies if is_baseline(label)), None)
    reference = {} if baseline is None else {run.seed: run.aubc for run in measured(result.of(baseline))}
    return [_summary(label, result.of(label), {} if label == baseline else reference) for label in result.strategies]


def best(summaries: Iterable[StrategySummary]) -> set[str]:
    """Return the labels with the highest mean AUBC; upper bounds that used hidden labels do not compete."""
    means = {item.label: item.aubc.mean for item in summaries if item.aubc is not None and not item.truth}
    return {label for label, value in means.items() if value == max(means.values())}


def _summary(label: str, runs: list[RunResult], reference: dict[int, float]) -> StrategySummary:
    counted = measured(runs)
    spans = {(run.curve()[0][0], run.curve()[0][-1]) for run in counted}
    fits = (mean(record.seconds["fit"] for record in run.records if "fit" in record.seconds) for run in counted)
    return StrategySummary(
        label=label,
        metric=runs[0].headline,
        seeds=[run.seed for run in counted],
        runs=len(runs),
        aubc=estimate([run.aubc for run in counted]),
        final=estimate([run.final for run in counted]),
        query_seconds=mean(run.query_seconds for run in counted if query_times(run)),
        fit_seconds=mean(seconds for seconds in fits if seconds is not None),
        paid=sorted({run.records[-1].paid for run in counted}),
        span=next(iter(spans)) if len(spans) == 1 else None,
        truth=any(run.truth for run in runs),
        errors=[(run.seed, run.error) for run in runs if run.error],
        incomplete=[run.seed for run in runs if not run.complete and not run.error],
        unmeasured=[run.seed for run in runs if is_finished(run) and not is_measured(run)],
        versus_baseline=compare({run.seed: run.aubc for run in counted}, reference),
    )
