"""A pytest plugin that writes each outcome as it comes, so that a run that is cut short leaves what it found.

Writes JSON lines to the file that POOLWRIGHT_OUTCOMES names: first every test that was collected, then what became of
each.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


def _write(record: dict[str, str]) -> None:
    with Path(os.environ["POOLWRIGHT_OUTCOMES"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write the tests that will run."""
    for item in session.items:
        _write({"test": item.nodeid, "outcome": "not run"})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write what became of a test: a failure in any phase, else the outcome of the call, or why it was skipped."""
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _write({"test": report.nodeid, "outcome": f"skipped: {reason.removeprefix('Skipped: ')}"})
    elif report.failed:
        _write({"test": report.nodeid, "outcome": f"failed: {report.longreprtext.splitlines()[-1:]}"})
    elif report.when == "call":
        _write({"test": report.nodeid, "outcome": "passed"})
