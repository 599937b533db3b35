"""Who is better at each budget: the pairwise penalty matrix, over one setting or several."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .merging import names, section
from .statistics import measured

if TYPE_CHECKING:
    from ..results import Result

FEWEST = 3
"""Strategies without which there is no matrix: two are compared by their curves."""

FREE = ("strategy", "seeds", "threads", "device", "allow_truth")
"""Keys of a configuration in which results of one and the same setting may differ."""


@dataclass(frozen=True)
class Penalties:
    """Pairwise comparisons of strategies.

    Attributes
    ----------
    labels : list of str
    wins : list of list of int
        ``wins[i][j]`` is e_ij: at how many budgets strategy i is better than strategy j.
    budgets : list of list of int
        ``budgets[i][j]``: at how many budgets the two were compared, ties included.
    settings : int
        From how many settings.
    left_out : list of str
        A sentence for each strategy that was not compared, with the reason.
    """

    labels: list[str]
    wins: list[list[int]]
    budgets: list[list[int]]
    settings: int
    left_out: list[str]

    @property
    def equal(self) -> int | None:
        """At how many budgets every pair was compared; None where pairs differ."""
        found = {n for i, row in enumerate(self.budgets) for j, n in enumerate(row) if i != j}
        return next(iter(found)) if len(found) == 1 else None


def penalties(results: Sequence[Result]) -> Penalties:
    """Return the pairwise penalty matrix of BRAL-T's appendix C.2 (after Ash et al. 2020, BADGE).

    For a setting, a budget (labels paid for) and two strategies, the means of the test metric over the seeds that both
    have are compared; whose mean is higher gets 1. A tie, as at the initial pool that all share, counts for nobody. The
    sums go over all budgets of all settings in which both ran. BADGE counts significant differences, each divided by
    the number of budgets; BRAL-T, as here, every better mean.

    Within a setting only strategies that were measured at the same label counts compare: those that most share.
    Upper bounds that used hidden labels, and runs that do not count, are left out.

    Parameters
    ----------
    results : sequence of Result
        None of them merged; those whose configurations differ in the strategies alone are one setting.
    """
    left_out: list[str] = []
    tables = []
    for name, setting in settings(results):
        table, reasons = _comparable(setting)
        where = f" in {name}" if name else ""
        left_out += [f"{label}{where}: {reason}." for label, reason in reasons.items()]
        if len(table) > 1:
            tables.append(table)
    labels = list(dict.fromkeys(label for table in tables for label in table))
    place = {label: number for number, label in enumerate(labels)}
    wins, budgets = ([[0] * len(labels) for _ in labels] for _ in range(2))
    for table in tables:
        for one in table:
            for other in table:
                better, compared = _better(table[one], table[other]) if one != other else (0, 0)
                wins[place[one]][place[other]] += better
                budgets[place[one]][place[other]] += compared
    return Penalties(labels, wins, budgets, len(tables), left_out)


def settings(results: Sequence[Result]) -> list[tuple[str, Result]]:
    """Return (name, result) of every setting; the name is empty where there is but one.

    A strategy that two results of one setting have is told apart by their folders.
    """
    from ..results import Result

    groups: dict[str, list[tuple[str, Result]]] = {}
    for number, (name, result) in enumerate(zip(names([one.folder for one in results]), results, strict=True)):
        groups.setdefault(_key(result.info, number), []).append((name, result))
    found = []
    for group in groups.values():
        owners = Counter(label for _, result in group for label in result.strategies)
        runs = [
            replace(run, strategy=f"{run.strategy} [{name}]") if owners[run.strategy] > 1 else run
            for name, result in group
            for run in result.runs
        ]
        called = ", ".join(name for name, _ in group) if len(groups) > 1 else ""
        found.append((called, Result(runs, group[0][1].info)))
    return found


def _key(info: dict[str, Any], number: int) -> str:
    config = section(info, "config")
    if not config:
        return f"result {number}"
    fixed = {key: value for key, value in config.items() if key not in FREE}
    return json.dumps(fixed, sort_keys=True, default=str)


Curves = dict[int, dict[int, float]]
"""Seed -> labels paid for -> metric."""


def _comparable(result: Result) -> tuple[dict[str, Curves], dict[str, str]]:
    """Return the curves of the strategies that share most label counts, and why others are left out."""
    curves: dict[str, Curves] = {}
    reasons: dict[str, str] = {}
    for label in result.strategies:
        runs = measured(result.of(label))
        if any(run.truth for run in result.of(label)):
            reasons[label] = "it used hidden labels"
        elif not runs:
            reasons[label] = "no run is finished and has a test metric"
        else:
            curves[label] = {run.seed: dict(zip(*run.curve(), strict=True)) for run in runs}
    counts = {label: {tuple(curve) for curve in seeds.values()} for label, seeds in curves.items()}
    shared = Counter(next(iter(found)) for found in counts.values() if len(found) == 1)
    common = shared.most_common(1)[0][0] if shared else ()
    for label, found in counts.items():
        if len(found) > 1:
            reasons[label] = "its seeds were measured at different label counts"
        elif found != {common}:
            reasons[label] = f"it was measured at other label counts ({_brief(next(iter(found)))}) than the others"
            reasons[label] += f" ({_brief(common)})"
    return {label: seeds for label, seeds in curves.items() if label not in reasons}, reasons


def _brief(counts: Sequence[int]) -> str:
    """Return ``50, 75, ..., 250``."""
    shown = [*map(str, counts[:2]), "...", str(counts[-1])] if len(counts) > 4 else [*map(str, counts)]
    return ", ".join(shown)


def _better(one: Curves, other: Curves) -> tuple[int, int]:
    """Return at how many budgets the mean over common seeds of ``one`` is higher, and how many were compared."""
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return 0, 0
    budgets = list(one[seeds[0]])
    better = 0
    for budget in budgets:
        mine, theirs = (math.fsum(curves[seed][budget] for seed in seeds) for curves in (one, other))
        better += mine > theirs and not math.isclose(mine, theirs, rel_tol=1e-9)
    return better, len(budgets)
