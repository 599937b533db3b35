"""What a run left in its folder, without what may differ between two equal runs (times)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolwright.store import read_journal


@dataclass(frozen=True)
class Snapshot:
    """The cycles with their ids, metrics, rewards, logs and stream digests, and the journal of answers."""

    cycles: list[dict[str, Any]]
    answers: list[tuple[int, int, bytes | int, int]]
    complete: bool


def run_folder(folder: Path, label: str = "wandering", seed: int = 0) -> Path:
    """Return the folder of one run of an experiment."""
    return folder / "runs" / label / f"seed-{seed}"


def snapshot(folder: Path, label: str = "wandering", seed: int = 0) -> Snapshot:
    """Return what the run left."""
    path = run_folder(folder, label, seed)
    meta, cycles = read_journal(path)
    for record in cycles:
        del record["seconds"]
    with closing(sqlite3.connect(path / "journal.sqlite")) as db:
        answers = db.execute("SELECT position, id, label, revision FROM answers ORDER BY position").fetchall()
    return Snapshot(cycles, answers, bool(meta.get("complete")))


def assert_same(now: Snapshot, reference: Snapshot) -> None:
    """Compare piece by piece, so that a failure says what differs and in which cycle."""
    for mine, theirs in zip(now.cycles, reference.cycles, strict=False):
        for key, value in theirs.items():
            assert mine[key] == value, f"{key} of cycle {theirs['index']}"
    assert len(now.cycles) == len(reference.cycles)
    assert now.answers == reference.answers
    assert now.complete == reference.complete
