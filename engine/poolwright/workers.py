"""Runs of one experiment side by side, each in a process of its own.

The parent hands a run (a strategy and a seed) to each worker, passes on what the workers tell, and gathers the results.
Every run is the same function of its strategy and seed as in one process: random streams hang on nothing else.

A worker never outlives its parent, and holds the lock of the experiment's folder with it: nobody can go on with a
folder in which a worker still writes.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing import connection, get_context, parent_process, reduction, resource_tracker
from pathlib import Path
from typing import Any, cast

from .catalog import Catalog
from .errors import ConfigError, WorkerError
from .events import Event
from .experiment import Bench, Start, run_one
from .folder import run_folder
from .machine import configured
from .metrics import task_named
from .preparation import load_dataset
from .results import RunResult
from .spec import Experiment
from .state import CycleRecord
from .store import Store

log = logging.getLogger(__name__)

GRACE = 10
"""Seconds that a worker has to end when it is told to."""

Task = tuple[int, int]
"""Number of the strategy, and seed."""


def run_side_by_side(
    bench: Bench, jobs: int, threads: int, folder: Path | None, keep_going: bool, lock: int | None
) -> list[RunResult]:
    """Do all runs of an experiment in ``jobs`` processes.

    Parameters
    ----------
    bench : Bench
        The parent's; the initial pools that it knows are used, and those that workers draw are added.
    jobs : int
    threads : int
        Of each worker.
    folder : Path or None
    keep_going : bool
        As in :func:`poolwright.run`.
    lock : int or None
        Descriptor of the folder's lock, which the workers hold with the parent.

    Raises
    ------
    ConfigError
        The experiment holds what no other process can be given, such as a class defined inside a function.
    WorkerError
        A worker ended before its run did, and ``keep_going`` is false; or none could begin.
    PoolwrightError
        What a run raised.
    """
    plan = _Plan(bench.experiment, bench.catalog, bench.device, threads, folder, keep_going)
    if folder is not None:
        for seed in bench.starts:
            bench.keep(folder, seed)
    crew = _Crew(bench, plan, jobs, lock)
    try:
        return crew.work()
    finally:
        crew.end()


@dataclass(frozen=True)
class _Plan:
    """What every worker is told once."""

    experiment: Experiment
    catalog: Catalog
    device: str
    threads: int
    folder: Path | None
    keep_going: bool

    def packed(self) -> bytes:
        try:
            return pickle.dumps(self)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"jobs > 1: this experiment cannot be given to another process ({error}): "
                f"define its classes at the top of a module, or use jobs = 1"
            ) from error


# -- the parent --------------------------------------------------------------------------------------------------


class _Crew:
    """The workers, what they are at, and what is left to do."""

    def __init__(self, bench: Bench, plan: _Plan, jobs: int, lock: int | None) -> None:
        experiment = bench.experiment
        self._bench = bench
        self._plan = plan
        self._packed = plan.packed()
        self._jobs = jobs
        self._lock = lock
        self._todo = [(i, seed) for seed in experiment.seed_list for i in range(len(experiment.strategies))]
        self._workers: list[_Worker] = []
        self._results: list[RunResult] = []

    def work(self) -> list[RunResult]:
        """Return the results of all runs, in the order in which they ended."""
        while self._todo or self._busy():
            while len(self._workers) < min(self._jobs, len(self._todo) + len(self._busy())):
                self._workers.append(_Worker(self._packed, self._lock))
            self._hand_out()
            ready = connection.wait([worker.link for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.link in ready]:
                self._hear(worker)
        return self._results

    def end(self) -> None:
        """End all workers, whatever they are at; their journals are made for it."""
        for worker in self._workers:
            worker.stop()
        while self._workers:
            self._workers.pop().wait()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.task is not None]

    def _hand_out(self) -> None:
        """Give idle workers their next runs.

        The first worker with a seed draws its initial pool, which may take a training; others with that seed wait.
        """
        for worker in [worker for worker in self._workers if worker.idle]:
            drawing = {busy.task[1] for busy in self._busy() if busy.task is not None} - self._bench.starts.keys()
            task = next((task for task in self._todo if task[1] not in drawing), None)
            if task is not None and worker.give(task, self._bench.starts.get(task[1])):
                self._todo.remove(task)

    def _hear(self, worker: _Worker) -> None:
        """Take one message of a worker, or note that it is gone."""
        try:
            kind, *content = pickle.loads(worker.link.recv_bytes())
        except (EOFError, OSError):
            self._lost(worker)
            return
        if kind == "ready":
            worker.idle = True
        elif kind == "event":
            self._bench.listener(*content)
        elif kind == "log":
            _relay(*content)
        elif kind == "start":
            seed, start = content
            self._bench.starts[seed] = start
        elif kind == "done":
            self._results += content
            worker.task, worker.idle = None, True
        else:
            error, trace = content
            raise error from _InWorker(trace)

    def _lost(self, worker: _Worker) -> None:
        """Let the run of a worker that is gone fail; the others go on, and a new worker takes its place."""
        self._workers.remove(worker)
        how = worker.wait()
        if worker.task is not None:
            self._results.append(self._failed(*worker.task, how))
        elif not worker.idle:
            if not self._workers:
                raise WorkerError(
                    f"a worker process {how} before it began. Use fewer jobs if memory is short. In a script of your "
                    f'own, call run(..., jobs = N) under `if __name__ == "__main__":`, for workers import the script'
                )
            self._jobs = len(self._workers)
            log.warning("a worker process %s before it began: going on with %d", how, self._jobs)

    def _failed(self, number: int, seed: int, how: str) -> RunResult:
        """Note a run that ended with its worker, where the run itself no longer could."""
        label = self._bench.experiment.strategies[number].label
        headline = task_named(self._bench.dataset.task).headline
        budget = self._bench.experiment.budget
        error = WorkerError(f"{label}, seed {seed}: its worker process {how}")
        records, folder = [], None
        if self._plan.folder is not None:
            folder = run_folder(self._plan.folder, label, seed)
            with closing(Store(folder)) as store:
                store.set_meta("run", {"strategy": label, "seed": seed, "headline": headline})
                store.set_meta("error", str(error))
                records = [CycleRecord(**record) for record in store.cycles()]
        if not self._plan.keep_going:
            raise error
        self._bench.listener(Event("failed", str(error), label, seed))
        self._bench.listener(Event("run", "", label, seed, len(records), budget, budget))
        return RunResult(label, seed, headline, records, complete=False, error=str(error), folder=folder)


class _Worker:
    """A process, as its parent sees it; ``idle`` once it is ready and has no task."""

    def __init__(self, plan: bytes, lock: int | None) -> None:
        context = get_context("spawn")
        self.link, far = context.Pipe()
        self.task: Task | None = None
        self.idle = False
        level = logging.getLogger(__package__).getEffectiveLevel()
        held = None if lock is None else _Inherited(lock)
        self._process = context.Process(target=_work, args=(plan, far, held, level))
        with _interrupts_held_back():
            self._process.start()
        far.close()  # so that the link ends with the worker

    def give(self, task: Task, start: Start | None) -> bool:
        """Give it a run, and the initial pool if it is known; return whether it was there to take it."""
        try:
            self.link.send_bytes(pickle.dumps((task, start)))
        except OSError:
            return False  # it is gone, which the next look at its link will tell
        self.task, self.idle = task, False
        return True

    def stop(self) -> None:
        """Tell it to end."""
        self._process.terminate()

    def wait(self) -> str:
        """Wait for its end, and return how it ended."""
        self.link.close()
        self._process.join(GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        if code is not None and code < 0:
            cause = ", as the system does where memory is short" if -code == signal.SIGKILL else ""
            return f"was killed by {signal.Signals(-code).name}{cause}"
        return f"ended with exit status {code}"


class _Inherited:
    """An open file that a worker is given beside its parent."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __getstate__(self) -> Any:
        return reduction.DupFd(self.descriptor)

    def __setstate__(self, duplicate: Any) -> None:
        self.descriptor = duplicate.detach()


class _InWorker(Exception):
    """The traceback of an error in a worker, shown as the cause of the same error here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let no Ctrl-C reach the processes begun inside: all of a terminal get it, and the parent ends its workers."""
    resource_tracker.ensure_running()  # begun with the first process else, and lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _relay(record: logging.LogRecord) -> None:
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


# -- a worker ----------------------------------------------------------------------------------------------------


def _work(plan: bytes, link: connection.Connection, lock: _Inherited | None, level: int) -> None:
    """Do the runs that the parent names, one by one, until it is done with this worker."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    outbox = _Outbox(link)
    logging.getLogger().addHandler(QueueHandler(cast(Any, outbox)))
    logging.getLogger().setLevel(level)
    try:
        _run_all(pickle.loads(plan), link, outbox)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        outbox.send("raised", _portable(error), traceback.format_exc())


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _Outbox:
    """What goes to the parent; as much of a queue as logging's handler uses."""

    def __init__(self, link: connection.Connection) -> None:
        self._link = link
        self._turn = threading.Lock()  # threads of a plugin may log while a run goes on

    def send(self, *message: Any) -> None:
        packed = pickle.dumps(message)  # by value: torch's own way through a link leaves the tensors in shared memory
        with self._turn:
            try:
                self._link.send_bytes(packed)
            except OSError:  # the parent is gone, and nobody is left to tell
                os._exit(1)

    def hear(self, event: Event) -> None:
        self.send("event", event)

    def put_nowait(self, record: logging.LogRecord) -> None:
        self.send("log", record)


class _WorkersBench(Bench):
    """A bench that tells the parent of the initial pools it draws."""

    def __init__(self, *arguments: Any, outbox: _Outbox) -> None:
        super().__init__(*arguments)
        self._outbox = outbox

    def start(self, seed: int) -> Start:
        """Return the initial pool of ``seed``."""
        new = seed not in self.starts
        start = super().start(seed)
        if new:
            self._outbox.send("start", seed, start)
        return start


def _run_all(plan: _Plan, link: connection.Connection, outbox: _Outbox) -> None:
    with configured(plan.threads, plan.device) as device:
        dataset = load_dataset(plan.experiment.dataset, plan.catalog)
        bench = _WorkersBench(plan.experiment, dataset, plan.catalog, device, outbox.hear, outbox=outbox)
        outbox.send("ready")
        while True:
            try:
                (number, seed), start = pickle.loads(link.recv_bytes())
            except EOFError:  # the parent has closed its end: there is no more to do
                return
            if start is not None:
                bench.starts[seed] = start
                bench.kept.add(seed)  # by whoever drew it: two must not write one file
            outbox.send("done", run_one(bench, number, seed, plan.folder, plan.keep_going))


def _portable(error: Exception) -> Exception:
    """Return an error that comes out of the link as it went in: itself, or one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an exception class may do anything when it is rebuilt
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
