"""Synthetic results: curves with known figures."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from rich.console import Console

from poolwright.results import Result, RunResult
from poolwright.state import CycleRecord

INFO = {
    "config": {
        "dataset": {"name": "digits", "validation": 0.1},
        "learner": {"name": "mlp", "epochs": 30},
        "initial": {"strategy": "random", "size": 50},
        "budget": 300,
        "batch": 25,
        "seeds": 3,
        "threads": 2,
    },
    "machine": {"processor": "two cores", "memory": "24 GiB"},
    "versions": {"python": "3.11", "torch": "2.15"},
}


def make_run(
    strategy: str,
    seed: int,
    values: Sequence[float],
    *,
    labels: Sequence[int] | None = None,
    batches: Sequence[int] | None = None,
    query: float = 0.01,
    headline: str = "accuracy",
    logs: dict[str, list[float]] | None = None,
    truth: bool = False,
    complete: bool = True,
    error: str = "",
) -> RunResult:
    """Return a run whose test metric takes ``values``, one a cycle; precision lies 0.1 and F1 0.2 below.

    A query selects one sample, or as many as ``batches`` says.
    """
    paid = labels or [50 + 25 * cycle for cycle in range(len(values))]
    records = [
        CycleRecord(
            index=cycle,
            final=cycle == len(values) - 1,
            labeled=paid[cycle],
            paid=paid[cycle],
            position=paid[cycle],
            validation={headline: value - 0.3},
            test={headline: value, "precision": value - 0.1, "f1": value - 0.2},
            selected=[] if cycle == len(values) - 1 else [cycle] * (batches[cycle] if batches else 1),
            truth=truth,
            seconds={
                "fit": 0.5,
                "evaluate": 0.125,
                "report": 64.0,
                "update": query / 4,
                "score": query / 4,
                "select": query / 2,
            },
            logs=logs or {},
        )
        for cycle, value in enumerate(values)
    ]
    return RunResult(strategy, seed, headline, records, complete=complete, error=error)


@pytest.fixture(scope="session")
def run() -> Callable[..., RunResult]:
    """Give :func:`make_run`."""
    return make_run


@pytest.fixture
def shown() -> Callable[..., str]:
    """Give a function that returns what the terminal shows of something, 100 columns wide."""

    def text(what: Any) -> str:
        console = Console(file=io.StringIO(), width=100)
        console.print(what)
        return console.file.getvalue()

    return text


@pytest.fixture(scope="session")
def info() -> dict[str, dict[str, Any]]:
    """Give what ran."""
    return INFO


@pytest.fixture
def sweep() -> Result:
    """Give whole strategies, an upper bound, failed and unfinished runs, and a hostile label."""
    runs = [make_run("random", seed, [0.5, 0.6, 0.7 + 0.01 * seed]) for seed in range(3)]
    runs += [make_run("margin", seed, [0.5, 0.7, 0.8 + 0.02 * seed], query=0.02) for seed in range(3)]
    runs += [make_run("oracle", seed, [0.6, 0.85, 0.95], truth=True) for seed in range(2)]
    logs = {"sral.update.<loss>": [0.5, 0.25]}
    runs += [make_run("<b>sral & co</b>", 0, [0.5, 0.55, 0.65], logs=logs, query=1.5)]
    runs += [make_run("<b>sral & co</b>", 1, [0.5, 0.9], error="margin <gave> NaN", complete=False)]
    runs += [make_run("<b>sral & co</b>", 2, [0.5], complete=False)]
    runs += [make_run("late", 0, [0.5, 0.6], complete=False)]
    return Result(runs, INFO)
