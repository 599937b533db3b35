"""Numbers and facts of a report as text, the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .statistics import Comparison, Estimate, StrategySummary

if TYPE_CHECKING:
    from .pairwise import Penalties

NOTHING = "—"
"""Shown where there is no value."""

UPPER_BOUND = "†"
"""Marks strategies that used hidden labels."""


METRICS = {"miou": "mIoU", "f1": "F1"}
"""Metrics whose name is written otherwise than it is spelled in code."""

PHASES = {
    "update": "training (update)",
    "score": "scoring (score)",
    "select": "selecting (select)",
    "reward": "reward",
    "fit": "fitting the learner",
    "evaluate": "evaluating it on validation data",
    "report": "evaluating it on test data",
}
"""What happens in a phase, and the hook that does it; each hook with the predictions that it asked for."""


def percent(value: float | None) -> str:
    """Return percent with two decimals, without the sign."""
    return NOTHING if value is None else f"{value:.2f}"


def metric_name(name: str) -> str:
    """Return a metric's name for a heading: ``pixel_accuracy`` -> ``pixel accuracy``."""
    return METRICS.get(name, name.replace("_", " "))


def phase(name: str) -> str:
    """Return what happens in a phase."""
    return PHASES.get(name, name)


def number(value: float | None) -> str:
    """Return a metric with four decimals."""
    return NOTHING if value is None else f"{value:.4f}"


def interval(value: Estimate | None) -> str:
    """Return ``0.9123 ± 0.0045``, or ``0.9123 (1 seed)``."""
    if value is None:
        return NOTHING
    if value.half_width is None:
        return f"{value.mean:.4f} (1 seed)"
    return f"{value.mean:.4f} ± {value.half_width:.4f}"


def center(value: Estimate | None) -> str:
    """Return the mean alone."""
    return number(None if value is None else value.mean)


def spread(value: Estimate | None) -> str:
    """Return half the interval alone, or ``1 seed``."""
    if value is None:
        return NOTHING
    return "1 seed" if value.half_width is None else f"{value.half_width:.4f}"


def seconds(value: float | None) -> str:
    """Return a time in seconds, without the unit."""
    if value is None:
        return NOTHING
    if 0 < value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def p_value(comparison: Comparison | None) -> str:
    """Return ``p = 0.031``; ``no spread`` where the difference is the same for every seed."""
    if comparison is None:
        return NOTHING
    if comparison.p is None:
        return "no spread"
    return "p < 0.001" if comparison.p < 0.001 else f"p = {comparison.p:.3f}"


def difference(comparison: Comparison | None) -> str:
    """Return ``+0.0123 (p = 0.031)``."""
    return NOTHING if comparison is None else f"{comparison.difference:+.4f} ({p_value(comparison)})"


def seeds(item: StrategySummary) -> str:
    """Return how many seeds count: ``3``, or ``2 of 3``."""
    return str(len(item.seeds)) if len(item.seeds) == item.runs else f"{len(item.seeds)} of {item.runs}"


def paid(item: StrategySummary) -> str:
    """Return the labels paid for at the end: ``350``, or ``310 to 350`` where seeds differ."""
    if not item.paid:
        return NOTHING
    return str(item.paid[0]) if len(item.paid) == 1 else f"{item.paid[0]} to {item.paid[-1]}"


def notes(summaries: Sequence[StrategySummary], *, reasons: bool = True) -> list[str]:
    """Return what a reader must know: what failed (and why), what is missing, what does not compare."""
    lines = [
        f"{item.label}, seed {seed}: failed and left out." + (f" {error}" if reasons else "")
        for item in summaries
        for seed, error in item.errors
    ]
    for item in summaries:
        if item.incomplete:
            lines.append(
                f"{item.label}: not finished and left out: {_of(item.incomplete, item.runs)}. Go on with --resume."
            )
        if item.unmeasured:
            lines.append(
                f"{item.label}: without a usable test {metric_name(item.metric)} and left out: "
                f"{_of(item.unmeasured, item.runs)}."
            )
    if any(item.truth for item in summaries):
        lines.append(f"{UPPER_BOUND} used hidden labels: an upper bound, not a result.")
    spans = {item.span for item in summaries if item.aubc is not None}
    if len(spans) > 1 or None in spans:
        lines.append(
            "Strategies or seeds were measured between different numbers of labels: "
            "their AUBC and final do not compare directly."
        )
    if any(item.aubc is not None and item.aubc.n == 1 for item in summaries):
        lines.append("One seed has no interval: nothing can be said about the spread.")
    return lines


THIN_LINES = (
    "Seeds that begin or end at different label counts are drawn thinly, one by one; "
    "their mean, interpolated, ends where the first of them does."
)


def outcomes(names: Sequence[str]) -> str:
    """Return how to read the table of the metrics ``names`` at the end of the runs."""
    weighted = " Precision, recall and F1 are weighted by class frequency." if "f1" in names else ""
    budget = (
        " The budget is what was paid for, initial pool included, of the samples that could be chosen: the pool "
        "without what [reserve] sets aside."
    )
    return (
        "In percent, on test data at the end of a run: mean and maximum over the runs that count."
        f"{weighted}{budget if 'budget' in names else ''}"
    )


def penalties(matrix: Penalties) -> str:
    """Return how to read a penalty matrix."""
    many = "" if matrix.equal is None else f" of {matrix.equal}"
    over = "" if matrix.settings == 1 else f" of {matrix.settings} settings"
    each = (
        "" if matrix.equal is not None else " A cell says of how many, where pairs were compared at different numbers."
    )
    return (
        f"At how many{many} budgets{over} (labels paid for) the strategy of the row is better than that of the column: "
        f"its mean test metric over the seeds that both have is higher. A tie, as at a shared initial pool, counts for "
        f"nobody; nothing says here whether a difference could be chance.{each}"
    )


def wins(matrix: Penalties, row: int, column: int) -> str:
    """Return a cell of a penalty matrix."""
    if row == column or not matrix.budgets[row][column]:
        return NOTHING
    many = "" if matrix.equal is not None else f" of {matrix.budgets[row][column]}"
    return f"{matrix.wins[row][column]}{many}"


def _of(some: Sequence[int], total: int) -> str:
    runs = "run" if total == 1 else "runs"
    return f"{len(some)} of {total} {runs} ({'seed' if len(some) == 1 else 'seeds'} {', '.join(map(str, some))})"
