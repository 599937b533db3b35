"""What the children of the fork server do: a run or a training, with ways to die and disks that fill up."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sklearn.cluster  # noqa: F401 - once here, not in each process that is forked
import torch

import poolwright.composition
import poolwright.session
import poolwright.store
import poolwright.training
from poolwright import PoolwrightError, run, train_policy
from poolwright.composition import Composition, Part
from poolwright.events import Event
from poolwright.pool import Pool
from poolwright.spec import Experiment
from poolwright.store import Store

from . import forkserver
from .build import EMPTY, experiment
from .policies import Weighing, policy_experiment
from .toys import Softmax, Stateless, Tilting, Wandering

VARIANTS: dict[str, dict[str, Any]] = {
    "scratch": {"learner": Stateless},
    "warm": {"learner": {"name": Softmax, "start": "warm"}},
    "refit": {"learner": {"name": Softmax, "refit_every": 9}, "report_learner": Stateless, "candidates": 60},
}


def configured(variant: str, cycles: int) -> Experiment:
    """Return the run of the kill tests: a strategy and a wrapper with state, three labels a cycle, some given back."""
    from .toys import Blobs

    return experiment(
        {"label": "wandering", "name": Wandering, "wrappers": [Part(Tilting)]},
        dataset={"name": Blobs, "n": 4 * cycles + 40, "validation": 0.1},
        budget=3 * cycles,
        batch=3,
        reserve={"state": 0.05},
        oracle={"rate": 0.2},
        **VARIANTS[variant],
    )


def watched(event: Event) -> None:
    """Note for the server what comes next."""
    if event.kind == "phase":
        text = f"{event.cycle} {event.text}".encode()
        forkserver.WHERE[:] = text.ljust(len(forkserver.WHERE), b"\0")


def finish(
    folder: str, variant: str, cycles: int, die_at: str | None = None, occurrence: int = 1, limit: int | None = None
) -> dict[str, Any]:
    """Run, or go on with, the experiment in ``folder``; die by SIGKILL when ``die_at`` comes by so many times."""
    torch.set_num_threads(1)
    watched(Event("phase", "start"))
    if die_at is not None:
        _arm(die_at, _Fuse(occurrence))
    with file_limit(limit):
        try:
            run(configured(variant, cycles), folder, resume=True, catalog=EMPTY, listener=watched)
        except PoolwrightError as error:
            return {"error": type(error).__name__, "message": str(error)}
    return {}


def train(out: str, epochs: int, wait: float = 0.0, limit: int | None = None) -> dict[str, Any]:
    """Train a policy, or go on with its training; the server counts from the first state that is kept or restored."""
    torch.set_num_threads(1)
    watched(Event("phase", "start"))

    def hear(event: Event) -> None:
        if event.kind == "policy":
            watched(Event("phase", "training"))

    with file_limit(limit):
        try:
            weighing = {"name": Weighing, "epochs": epochs, "wait": wait}
            train_policy(policy_experiment(weighing), None, out, listener=hear, catalog=EMPTY)
        except PoolwrightError as error:
            return {"error": type(error).__name__, "message": str(error)}
    return {}


# -- dying -------------------------------------------------------------------------------------------------------


class _Fuse:
    """Kills this process at the n-th call."""

    def __init__(self, occurrence: int) -> None:
        self._left = occurrence

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: Any, name: str, fuse: _Fuse) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        fuse()
        return original(*args, **kwargs)

    setattr(owner, name, dying)


def _after(owner: Any, name: str, fuse: _Fuse) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        fuse()
        return result

    setattr(owner, name, dying)


def _in_hook(hook: str) -> Callable[[_Fuse], None]:
    """Die when the strategy's hook has drawn and changed its state, before the engine has its result."""

    def arm(fuse: _Fuse) -> None:
        inside = poolwright.composition._inside

        @contextmanager
        def dying(member: Any, role: str, *args: Any) -> Iterator[None]:
            with inside(member, role, *args):
                yield
                if (member.name, role) == ("wandering", hook):
                    fuse()

        poolwright.composition._inside = dying

    return arm


def _in_wrapper(fuse: _Fuse) -> None:
    sin = torch.sin

    def dying(x: torch.Tensor) -> torch.Tensor:
        fuse()
        return sin(x)

    torch.sin = dying


def _half_checkpoint(fuse: _Fuse) -> None:
    original = poolwright.store.write_atomically

    def dying(path: Path, content: bytes) -> None:
        if path.suffix == ".ckpt":
            path.with_name(path.name + ".tmp").write_bytes(content[: len(content) // 2])
            fuse()
        original(path, content)

    poolwright.store.write_atomically = dying


def _replacing(after: bool) -> Callable[[_Fuse], None]:
    def arm(fuse: _Fuse) -> None:
        original = Path.replace

        def dying(self: Path, target: Path) -> Path:
            checkpoint = str(target).endswith(".ckpt")
            if checkpoint and not after:
                fuse()
            result = original(self, target)
            if checkpoint and after:
                fuse()
            return result

        Path.replace = dying

    return arm


POINTS: dict[str, Callable[[_Fuse], None]] = {
    "inside fit": lambda fuse: _before(Stateless, "_step", fuse),
    "after the evaluation": lambda fuse: _after(poolwright.training, "evaluate", fuse),
    "inside reward": _in_hook("reward"),
    "inside update": _in_hook("update"),
    "inside score": _in_hook("score"),
    "inside select": _in_hook("select"),
    "inside a wrapper": _in_wrapper,
    "between reward and update": lambda fuse: _after(Composition, "reward", fuse),
    "between update and score": lambda fuse: _after(Composition, "update", fuse),
    "between score and select": lambda fuse: _after(Composition, "score", fuse),
    "between select and the checkpoint": lambda fuse: _after(Composition, "select", fuse),
    "in the middle of a journal transaction": lambda fuse: _before(poolwright.store, "_encode", fuse),
    "between the journal's commit and the pool": lambda fuse: _before(Pool, "learn", fuse),
    "right after tell": lambda fuse: _after(poolwright.session.Session, "tell", fuse),
    "after half of a checkpoint": _half_checkpoint,
    "before a checkpoint is renamed": _replacing(after=False),
    "after a checkpoint is renamed": _replacing(after=True),
    "before the record of a cycle": lambda fuse: _before(Store, "write_cycle", fuse),
    "after the record of a cycle": lambda fuse: _after(Store, "write_cycle", fuse),
}


def _arm(point: str, fuse: _Fuse) -> None:
    POINTS[point](fuse)


# -- full disks --------------------------------------------------------------------------------------------------


@contextmanager
def file_limit(size: int | None) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes: writing more fails as it does on a full disk."""
    if size is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def retry_tell(folder: str) -> list[Any]:
    """Tell on a full disk, make room, tell again in the same process."""
    from .build import session
    from .toys import Lowest

    store = Store(folder)
    one = session(Lowest, store=store)
    one.advance()
    outcomes = []
    for limit in (100, None):
        try:
            with file_limit(limit):
                one.tell(range(8), [i % 4 for i in range(8)])
            outcomes.append("")
        except PoolwrightError as error:
            outcomes.append(type(error).__name__)
    try:
        with file_limit(100):
            one.advance()
    except PoolwrightError as error:
        outcomes[0] = type(error).__name__
    one.advance()
    return [*outcomes, [answer.id for answer in store.answers()], len(store.cycles())]
