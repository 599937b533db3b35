"""Rules for wrappers."""

from __future__ import annotations

from .bench import Bench, batches, hooks
from .findings import Broken, Rule, Subject
from .made import BATCH
from .strategies import BASIC, NEEDED, RUNS, SAME, SELECTED

THROUGH = "results pass through while it is not triggered"


def accepted(subject: Subject) -> None:
    """The engine accepts what comes out of a cycle with the wrapper around its hooks."""
    table = Bench(subject)
    composition = table.compose()
    composition.update(table.state(0, composition=composition), None)
    state = table.state(1, composition=composition)
    composition.update(state, composition.reward(state))
    composition.select(state, composition.score(state), BATCH)


def through(subject: Subject) -> None:
    """The first batches are those of a run without the wrapper."""
    table = Bench(subject)
    with_it = batches(table.session(), 2)
    without = batches(table.session(wrapped=False), 2)
    for index, (wrapped, plain) in enumerate(zip([*with_it, []], without, strict=False)):
        if wrapped != plain:
            did = f"changed the batch of cycle {index} from {plain} to {wrapped}" if wrapped else "ended the run"
            around = ", ".join(sorted(hooks(subject)))
            raise Broken(f"it {did} (it wraps {around}): give parameters with which it is not triggered")


WRAPPER_RULES = (
    *BASIC,
    Rule(SELECTED, accepted, (NEEDED,)),
    *RUNS,
    Rule(THROUGH, through, (SAME,)),
)
