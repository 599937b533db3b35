"""Fixtures of the engine's tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .helpers.forkserver import ForkServer
from .helpers.snapshots import Snapshot, snapshot


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """A process that runs jobs in children and kills them."""
    server = ForkServer()
    yield server
    server.close()


@contextmanager
def _memory(otherwise: Path) -> Iterator[Path]:
    """Make a folder in memory where there is one: a kill does not care, and fsync is slow on a disk."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield otherwise
        return
    folder = Path(tempfile.mkdtemp(prefix="poolwright-tests-", dir=memory))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for one test, in memory if possible."""
    with _memory(tmp_path) as folder:
        yield folder


class Undisturbed:
    """Snapshots of runs that were never killed, each made once."""

    def __init__(self, forks: ForkServer, folder: Path) -> None:
        self._forks = forks
        self._folder = folder
        self._known: dict[tuple[str, int], Snapshot] = {}
        self.seconds: dict[tuple[str, int], float] = {}

    def __call__(self, variant: str, cycles: int) -> Snapshot:
        key = variant, cycles
        if key not in self._known:
            folder = self._folder / f"{variant}-{cycles}"
            reply = self._forks.call("finish", folder=folder, variant=variant, cycles=cycles)
            assert reply["status"] == 0, reply["output"]
            assert reply["result"] == {}
            self._known[key] = snapshot(folder)
            self.seconds[key] = reply["seconds"]
        return self._known[key]


@pytest.fixture(scope="session")
def undisturbed(forks: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    """Return the snapshot of a run that nobody disturbed, by variant and number of cycles."""
    with _memory(tmp_path_factory.mktemp("undisturbed")) as folder:
        yield Undisturbed(forks, folder)
