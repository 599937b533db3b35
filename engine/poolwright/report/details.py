"""What the page says about each strategy beyond the summary: seeds, phases, logged series, curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import wording
from .statistics import (
    Estimate,
    MeanCurve,
    StrategySummary,
    cycle_seconds,
    estimate,
    is_measured,
    mean,
    mean_curve,
    measured,
    phase_seconds,
    query_times,
)

if TYPE_CHECKING:
    from ..results import Result, RunResult


@dataclass(frozen=True)
class StrategyDetails:
    """One strategy's section of the page.

    Attributes
    ----------
    summary : StrategySummary
    metrics : list of str
        Metrics on test data, the headline metric first.
    rows : list of SeedRow
        One a run.
    means : dict
        Metric -> mean and interval at the final point, over the runs that count.
    phases : dict
        Phase -> (mean seconds of a cycle, mean seconds of a run).
    timed : str
        Which runs ``phases`` is about.
    logs : dict
        ``"plugin.role.name"`` -> for each seed the points (cycle, value).
    """

    summary: StrategySummary
    metrics: list[str]
    rows: list[SeedRow]
    means: dict[str, Estimate | None]
    phases: dict[str, tuple[float, float]]
    timed: str
    logs: dict[str, list[list[tuple[float, float]]]]


@dataclass(frozen=True)
class SeedRow:
    """One run; its figures are those of its last point, also where it failed or was interrupted."""

    seed: int
    state: str
    cycles: int
    paid: int | None
    aubc: float | None
    values: dict[str, float]
    query_seconds: float | None


def details(result: Result, summary: StrategySummary) -> StrategyDetails:
    """Return what there is to say about one strategy."""
    runs = result.of(summary.label)
    counted = measured(runs)
    rows = [_row(run) for run in runs]
    names = dict.fromkeys([summary.metric, *(name for row in rows for name in row.values)])
    final = [row.values for row, run in zip(rows, runs, strict=True) if is_measured(run)]
    timed = counted or runs
    return StrategyDetails(
        summary=summary,
        metrics=list(names),
        rows=rows,
        means={name: estimate([values[name] for values in final if name in values]) for name in names},
        phases=phase_seconds(timed),
        timed=f"{len(timed)} {'run' if len(timed) == 1 else 'runs'}" + ("" if counted else ", none of them finished"),
        logs=logged_series(runs),
    )


def _row(run: RunResult) -> SeedRow:
    if run.error:
        state = "failed"
    elif not run.complete:
        state = "not finished"
    else:
        state = "finished" if is_measured(run) else "no test metric"
    last = next((record.test for record in reversed(run.records) if record.test), {})
    return SeedRow(
        seed=run.seed,
        state=state,
        cycles=len(run.records),
        paid=run.records[-1].paid if run.records else None,
        aubc=run.aubc if is_measured(run) else None,
        values={name: value for name, value in last.items() if math.isfinite(value)},
        query_seconds=mean(query_times(run).values()),
    )


def logged_series(runs: list[RunResult]) -> dict[str, list[list[tuple[float, float]]]]:
    """Return name -> for each run that logged it the points (cycle, value).

    Values given in the same cycle are spread evenly between it and the next one.
    """
    series: dict[str, list[list[tuple[float, float]]]] = {}
    for run in runs:
        of_run: dict[str, list[tuple[float, float]]] = {}
        for record in run.records:
            for name, values in record.logs.items():
                points = ((record.index + i / len(values), value) for i, value in enumerate(values))
                of_run.setdefault(name, []).extend(points)
        for name, points_of_run in of_run.items():
            if any(math.isfinite(value) for _, value in points_of_run):
                series.setdefault(name, []).append(points_of_run)
    return series


def mean_curves(result: Result) -> dict[int, tuple[MeanCurve, bool]]:
    """Return place of the strategy -> (its mean curve, whether the runs behind it are finished).

    A strategy of which no run counts shows what its interrupted runs have.
    """
    curves = {}
    for place, label in enumerate(result.strategies):
        counted = measured(result.of(label))
        curve = mean_curve(
            [run.curve() for run in counted or result.of(label) if all(map(math.isfinite, run.curve()[1]))]
        )
        if curve is not None:
            curves[place] = curve, bool(counted)
    return curves


def mean_query_times(result: Result) -> dict[int, dict[int, float]]:
    """Return place of the strategy -> cycle -> mean seconds of the query over the runs that have it."""
    places = {}
    for place, label in enumerate(result.strategies):
        gathered: dict[int, list[float]] = {}
        for run in result.of(label):
            for cycle, seconds in query_times(run).items():
                gathered.setdefault(cycle, []).append(seconds)
        if gathered:
            places[place] = {cycle: sum(values) / len(values) for cycle, values in sorted(gathered.items())}
    return places


def mean_cycle_seconds(result: Result) -> dict[int, tuple[MeanCurve, bool]]:
    """Return place of the strategy -> (mean seconds of a cycle over labels paid for, whether the runs are finished).

    A strategy that never asked for labels is left out; one of which no run counts shows what its interrupted runs have.
    """
    curves = {}
    for place, label in enumerate(result.strategies):
        counted = measured(result.of(label))
        curve = mean_curve([cycle_seconds(run) for run in counted or result.of(label)])
        if curve is not None:
            curves[place] = curve, bool(counted)
    return curves


def legend(result: Result, finished: Mapping[int, bool]) -> list[tuple[int, str]]:
    """Return (place, text) for every line of a figure."""
    upper = {place for place in finished if any(run.truth for run in result.of(result.strategies[place]))}
    return [
        (
            place,
            result.strategies[place]
            + (f" {wording.UPPER_BOUND}" if place in upper else "")
            + ("" if whole else " (not finished)"),
        )
        for place, whole in finished.items()
    ]
