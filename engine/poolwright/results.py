"""What a sweep of runs left behind: one learning curve per strategy and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .metrics import aubc, final
from .state import CycleRecord, InitialPool


@dataclass(frozen=True)
class RunResult:
    """One strategy with one seed.

    Attributes
    ----------
    strategy : str
        The strategy's label.
    seed : int
    headline : str
        The task's headline metric.
    records : sequence of CycleRecord
        One a cycle; also those before an error.
    complete : bool
        The run came to its end. One that did not, and has no error, was stopped and can be resumed.
    error : str
        Why it failed, if it did.
    folder : Path or None
        Where the run is kept.
    """

    strategy: str
    seed: int
    headline: str
    records: Sequence[CycleRecord]
    complete: bool = True
    error: str = ""
    folder: Path | None = None

    def curve(self, metric: str | None = None, part: str = "test") -> tuple[list[int], list[float]]:
        """Return labels paid for and a metric on ``part`` (``"test"`` or ``"validation"``), one point a cycle."""
        name = metric or self.headline
        points = [
            (record.paid, getattr(record, part)[name]) for record in self.records if name in getattr(record, part)
        ]
        return [paid for paid, _ in points], [value for _, value in points]

    @property
    def aubc(self) -> float:
        """Area under the curve of the headline metric on test data; see :func:`poolwright.metrics.aubc`.

        ValueError where nothing has been evaluated on test data.
        """
        return aubc(*self.curve())

    @property
    def final(self) -> float:
        """The headline metric on test data after the last batch (F-acc); ValueError where there is none."""
        return final(self.curve()[1])

    @property
    def query_seconds(self) -> float:
        """Mean time of a query (reward, update, score and select), in seconds."""
        asked = [record.query_seconds for record in self.records if record.selected]
        return sum(asked) / len(asked) if asked else 0.0

    @property
    def truth(self) -> bool:
        """Hidden labels were used: an upper bound, not a result."""
        return any(record.truth for record in self.records)


@dataclass(frozen=True)
class Result:
    """All runs of an experiment.

    Attributes
    ----------
    runs : list of RunResult
        Strategies in the order of the configuration, seeds within.
    info : dict
        The configuration, the machine and versions it ran with, and how the initial pools were selected.
    folder : Path or None
        Where the runs are kept.
    """

    runs: list[RunResult]
    info: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def initial(self) -> list[InitialPool]:
        """How the initial pools were selected, by seed; empty where several results were merged."""
        return [InitialPool(**plain) for plain in self.info.get("initial_pools", [])]

    @property
    def strategies(self) -> list[str]:
        """Labels, in order, each once."""
        return list(dict.fromkeys(run.strategy for run in self.runs))

    def of(self, strategy: str) -> list[RunResult]:
        """Return the runs of one strategy."""
        return [run for run in self.runs if run.strategy == strategy]

    @property
    def failures(self) -> list[RunResult]:
        """The runs that ended in an error."""
        return [run for run in self.runs if run.error]
