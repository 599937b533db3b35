"""What a run tells while it works: the engine sends events, the screen (or nobody) listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes
    ----------
    kind : {"phase", "progress", "cycle", "run", "failed", "policy"}
        A phase of a cycle began; a plugin's own loop advanced; a cycle, a run ended; a run failed; a piece of a
        policy's training is kept.
    text : str
        The phase, the loop's label, or the reason of a failure.
    strategy, seed, cycle : str, int, int
        Where: label of the strategy, seed of the run, number of the cycle.
    done, total : int
        Of a loop: steps made and expected (0 = unknown). Of a cycle: labels bought, and the budget.
    value : float or None
        Of a cycle: the headline metric. Of a policy: the share of its training that is done.
    """

    kind: str
    text: str = ""
    strategy: str = ""
    seed: int = 0
    cycle: int = 0
    done: int = 0
    total: int = 0
    value: float | None = None


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing."""


def reported(iterable: Iterable[T], label: str, listener: Listener, total: int | None = None) -> Iterator[T]:
    """Pass ``iterable`` on, sending a progress event after each element."""
    if total is None:
        total = len(iterable) if isinstance(iterable, Sized) else 0
    for done, element in enumerate(iterable, start=1):
        yield element
        listener(Event("progress", label, done=done, total=total))
