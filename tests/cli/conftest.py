"""Run the command line in this process, as a user would type it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from poolwright import cli


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def poolwright(monkeypatch, capsys) -> Callable[..., Outcome]:
    """Return a function that runs ``poolwright ARGUMENTS`` and returns status, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr("sys.argv", ["poolwright", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else 1
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


SMALL = ["--seeds", "1", "--budget", "40", "--batch", "20", "--set", "learner.min_steps=20"]
"""Options that make a run of the demonstration's data set takes a second."""
