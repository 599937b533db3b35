"""Runs side by side: the same results, and what happens when a process fails, dies, or loses its parent."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from poolwright import ConfigError, PluginError, Result, WorkerError, hookimpl, load_result, run
from poolwright.errors import StoreError
from poolwright.events import Event
from poolwright.folder import read_initial
from poolwright.store import locked
from poolwright.workers import _portable

from .helpers.build import EMPTY, experiment
from .helpers.snapshots import assert_same, snapshot
from .helpers.toys import Random, Wandering

ROOT = Path(__file__).parents[2]


class Drawing(Random):
    """An initial strategy that notes each of its draws in a file."""

    def __init__(self, notes: str) -> None:
        self.notes = notes

    @hookimpl
    def select(self, cycle, scores, budget):
        with open(self.notes, "a") as file:
            file.write(f"{cycle.seed}\n")
        return cycle.pool.unlabeled[scores.topk(budget).indices]


class Telling(Random):
    """Logs how many threads it has, says a warning, and has a loop of its own."""

    @hookimpl
    def update(self, cycle):
        cycle.log("threads", torch.get_num_threads())
        cycle.log("process", os.getpid())
        for _ in cycle.progress(range(3), "looping"):
            pass
        logging.getLogger("poolwright.test").warning("cycle %d of seed %d", cycle.index, cycle.seed)


class Failing(Random):
    """Fails in cycle 1 of seed 0."""

    @hookimpl
    def update(self, cycle):
        if cycle.index == 1 and cycle.seed == 0:
            raise ValueError("out of luck")


class Dying(Random):
    """Its process is killed in cycle 1 of seed 0, as long as the file ``fuse`` is there."""

    def __init__(self, fuse: str) -> None:
        self.fuse = fuse

    @hookimpl
    def update(self, cycle):
        if cycle.index == 1 and cycle.seed == 0 and os.path.exists(self.fuse):
            os.kill(os.getpid(), signal.SIGKILL)


class Waiting(Random):
    """Notes its process, and waits in cycle 1 as long as the file ``gate`` is not there."""

    def __init__(self, gate: str) -> None:
        self.gate = gate

    @hookimpl
    def update(self, cycle):
        if cycle.index == 1 and not os.path.exists(self.gate):
            Path(f"{self.gate}-{os.getpid()}").touch()
            time.sleep(120)


def picks(result: Result) -> dict[tuple[str, int], list[list[int]]]:
    return {(one.strategy, one.seed): [record.selected for record in one.records] for one in result.runs}


def by_run(events: list[Event]) -> dict[tuple[str, int], list[Event]]:
    runs = defaultdict(list)
    for event in events:
        runs[event.strategy, event.seed].append(event)
    return runs


def until(happened: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (value := happened()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value


# -- the same results --------------------------------------------------------------------------------------------


class Both:
    """One experiment with one job and with two."""

    def __init__(self, folder: Path, caplog: Any) -> None:
        self.results: list[Result] = []
        self.events: list[list[Event]] = []
        self.draws: list[list[str]] = []
        self.warnings: list[list[str]] = []
        self.folders = [folder / "one", folder / "two"]
        for jobs, out in zip((1, 2), self.folders, strict=True):
            notes = out.with_suffix(".draws")
            chosen = experiment(
                Wandering,
                Telling,
                seeds=3,
                threads=None,
                initial={"strategy": {"name": Drawing, "notes": str(notes)}, "size": 8},
            )
            if jobs == 1:
                chosen.threads = 1
            events: list[Event] = []
            caplog.clear()
            self.results.append(run(chosen, out, catalog=EMPTY, listener=events.append, jobs=jobs))
            self.events.append(events)
            self.draws.append(sorted(notes.read_text().split()))
            self.warnings.append(sorted(record.getMessage() for record in caplog.records))


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Iterator[Both]:
    handler = _Kept()
    logger = logging.getLogger("poolwright.test")
    logger.addHandler(handler)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield Both(tmp_path_factory.mktemp("both"), handler)
    torch.set_num_threads(before)
    logger.removeHandler(handler)


class _Kept(logging.Handler):
    """Keeps records: pytest's own fixture lives for one test only."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def clear(self) -> None:
        self.records.clear()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_jobs_leave_what_one_leaves(both, seed):
    one, two = both.folders
    assert_same(snapshot(two, "wandering", seed), snapshot(one, "wandering", seed))


def test_two_jobs_return_what_one_returns(both):
    one, two = both.results
    assert picks(two) == picks(one)
    assert list(picks(two)) == list(picks(one))
    assert [run.curve() for run in two.runs] == [run.curve() for run in one.runs]
    assert load_result(both.folders[1]).runs == two.runs


def test_two_jobs_run_in_other_processes_that_share_the_threads(both):
    runs = [one for one in both.results[1].runs if one.strategy == "telling"]
    processes = {value for one in runs for record in one.records for value in record.logs["telling.update.process"]}
    threads = {value for one in runs for record in one.records for value in record.logs["telling.update.threads"]}
    assert os.getpid() not in processes
    assert threads == {1.0}
    assert both.results[1].info["config"]["threads"] == 1
    assert [result.info["machine"]["jobs"] for result in both.results] == [1, 2]


def test_the_initial_pool_is_drawn_once_a_seed(both):
    assert both.draws == [["0", "1", "2"], ["0", "1", "2"]]
    pools = [[read_initial(folder, seed).selected for seed in range(3)] for folder in both.folders]
    assert pools[1] == pools[0]
    shown = [[pool["selected"] for pool in result.info["initial_pools"]] for result in both.results]
    assert shown == pools


def test_the_events_of_each_run_come_in_order(both):
    one, two = map(by_run, both.events)
    assert two.keys() == one.keys()
    assert all(two[key] == one[key] for key in one)
    assert {event.text for event in two["telling", 1] if event.kind == "progress"} >= {"looping"}


def test_what_a_worker_logs_is_logged_by_the_parent(both):
    one, two = both.warnings
    assert len(one) == 15
    assert two == one


def test_the_folder_is_held_by_those_who_are_given_the_descriptor(tmp_path):
    with locked(tmp_path) as descriptor:
        copy = os.dup(descriptor)
    with pytest.raises(StoreError, match="in use by another process"), locked(tmp_path):
        pass
    os.close(copy)
    with locked(tmp_path):
        pass


# -- failures ----------------------------------------------------------------------------------------------------


def test_a_failing_run_is_noted_and_a_killed_one_too_and_the_others_go_on(tmp_path):
    fuse = tmp_path / "fuse"
    fuse.touch()
    strategies = [{"name": Dying, "fuse": str(fuse)}, Failing, Random]
    events: list[Event] = []
    chosen = experiment(*strategies, seeds=2)
    result = run(chosen, tmp_path / "x", catalog=EMPTY, listener=events.append, keep_going=True, jobs=2)

    killed, failed = result.failures
    assert (killed.strategy, killed.seed, failed.strategy, failed.seed) == ("dying", 0, "failing", 0)
    assert "dying, seed 0: its worker process was killed by SIGKILL, as the system does where memory" in killed.error
    assert "out of luck" in failed.error
    assert len(killed.records) == len(failed.records) == 1
    assert [one.complete for one in result.runs] == [False, True, False, True, True, True]
    assert sorted(event.text for event in events if event.kind == "failed") == sorted([killed.error, failed.error])
    assert sorted(by_run([event for event in events if event.kind == "run"])) == sorted(picks(result))
    assert load_result(tmp_path / "x").runs == result.runs

    fuse.unlink()
    chosen = experiment({"name": Dying, "fuse": str(fuse)}, seeds=2)
    mended = run(chosen, tmp_path / "x", resume=True, catalog=EMPTY, jobs=2)
    assert mended.failures == []
    assert picks(mended) == picks(run(chosen, catalog=EMPTY))


@pytest.mark.parametrize("how", ["fails", "is killed"])
def test_unless_told_to_go_on_a_failure_ends_all(how, tmp_path):
    (tmp_path / "fuse").touch()
    strategy = Failing if how == "fails" else {"name": Dying, "fuse": str(tmp_path / "fuse")}
    wanted = PluginError if how == "fails" else WorkerError
    with pytest.raises(wanted, match="out of luck" if how == "fails" else "seed 0: its worker process was") as caught:
        run(experiment(strategy, seeds=2), tmp_path / "x", catalog=EMPTY, jobs=2)
    if how == "fails":
        assert "in update" in str(caught.value.__cause__), "the traceback of the worker is lost"
    kept = {one.seed: one for one in load_result(tmp_path / "x").runs}
    assert len(kept[0].records) == 1
    assert kept[0].error == str(caught.value)
    with locked(tmp_path / "x"):
        pass


def test_without_a_folder_a_killed_run_has_no_records_and_the_others_are_returned(tmp_path):
    (tmp_path / "fuse").touch()
    chosen = experiment({"name": Dying, "fuse": str(tmp_path / "fuse")}, seeds=2)
    result = run(chosen, catalog=EMPTY, keep_going=True, jobs=2)
    assert [(one.complete, len(one.records)) for one in result.runs] == [(False, 0), (True, 5)]


def test_an_experiment_that_no_other_process_can_be_given_is_refused():
    class Local(Random):
        pass

    with pytest.raises(ConfigError, match=r"jobs > 1: .*Local.*: define its classes at the top of a module"):
        run(experiment(Local, seeds=2), catalog=EMPTY, jobs=2)
    assert run(experiment(Local, seeds=1), catalog=EMPTY, jobs=2).runs[0].complete, "one run needs no second process"
    with pytest.raises(ConfigError, match="jobs = 0"):
        run(experiment(Random), catalog=EMPTY, jobs=0)


def test_an_error_that_cannot_be_rebuilt_still_says_what_it_was():
    class Local(Exception):
        pass

    assert repr(_portable(Local("lost"))) == "RuntimeError('Local: lost')"
    error = ConfigError("kept", ("device",))
    assert _portable(error) is error


# -- processes that come and go ----------------------------------------------------------------------------------

SCRIPT = """
import sys
from poolwright import run
from tests.engine.helpers.build import EMPTY, experiment
from tests.engine.test_workers import Waiting

def main():
    run(experiment({"name": Waiting, "gate": sys.argv[1]}, seeds=2), sys.argv[2], catalog=EMPTY, jobs=2)

"""
GUARDED = SCRIPT + 'if __name__ == "__main__":\n    main()\n'


def started(tmp_path: Path, script: str) -> subprocess.Popen[str]:
    """Begin a script in a process group of its own, as a terminal does."""
    (tmp_path / "script.py").write_text(script)
    return subprocess.Popen(
        [sys.executable, tmp_path / "script.py", tmp_path / "gate", tmp_path / "x"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if path)])},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers(tmp_path: Path) -> list[int]:
    """Return the processes of the two runs, once both wait."""

    def found() -> list[int]:
        pids = [int(path.name.removeprefix("gate-")) for path in tmp_path.glob("gate-*")]
        return pids if len(pids) == 2 else []

    return until(found)


def gone(pid: int) -> bool:
    """Return whether a process has ended; one that nobody has waited for yet has, too."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_workers_end_with_a_killed_parent_and_the_folder_can_be_gone_on_with(tmp_path):
    parent = started(tmp_path, GUARDED)
    pids = workers(tmp_path)
    parent.kill()
    parent.communicate()
    until(lambda: all(map(gone, pids)), 20)
    (tmp_path / "gate").touch()
    chosen = experiment({"name": Waiting, "gate": str(tmp_path / "gate")}, seeds=2)
    result = run(chosen, tmp_path / "x", resume=True, catalog=EMPTY, jobs=2)
    assert all(one.complete for one in result.runs)
    assert picks(result) == picks(run(chosen, catalog=EMPTY))


def test_an_interrupt_ends_parent_and_workers_and_only_the_parent_speaks(tmp_path):
    parent = started(tmp_path, GUARDED)
    pids = workers(tmp_path)
    os.killpg(parent.pid, signal.SIGINT)
    _, err = parent.communicate(timeout=30)
    assert parent.returncode == -signal.SIGINT
    assert err.count("KeyboardInterrupt") == 1, err
    assert all(map(gone, pids))
    with locked(tmp_path / "x"):
        pass


def test_a_script_without_a_guard_is_told_to_have_one(tmp_path):
    parent = started(tmp_path, SCRIPT + "main()\n")
    _, err = parent.communicate(timeout=120)
    assert parent.returncode == 1
    last = err.strip().splitlines()[-1]
    assert "WorkerError: a worker process ended with exit status 1 before it began" in last
    assert 'if __name__ == "__main__":' in last
