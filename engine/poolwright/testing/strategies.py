"""Rules for strategies; those about runs and states hold for wrappers too."""

from __future__ import annotations

import tempfile
from collections import deque
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .. import streams
from ..composition import Composition
from ..contract import Member
from ..cycle import Cycle
from ..dataset import Samples
from ..hookspecs import HOOKS, NEEDS
from ..policies import lacking
from ..policy_training import shares
from ..pool import ASKED, LABELED, UNLABELED
from ..state import OUTPUTS, CycleState
from ..store import Store
from . import bench, general
from .bench import Bench, batches, instance_of, scores_of
from .findings import Broken, Inapplicable, Rule, Subject
from .fingerprints import fingerprint, fingerprints
from .general import CONSTRUCTOR, DOCUMENTED, MADE
from .made import BATCH

CONTRACT = "its methods keep the hook contract"
NEEDED = "the declared needs are known and suffice"
UPDATES = "update takes every cycle of a run"
REWARDS = "rewards are finite numbers"
SCORED = "scores are floating point, one for each unlabeled sample, never NaN"
SELECTED = "ids are int64, unique, unlabeled and within the budget"
BUDGETS = "budgets of none, one, all and more than all are served"
ALONE = "each hook works alone"
SAME = "the same seed gives the same ids"
GLOBAL = "the ids do not depend on global seeds"
NEIGHBORS = "another plugin in the run changes nothing"
UNTOUCHED = "pool, learner, data and outputs are left as they were"
PLAIN = "its state is plain data and can be loaded"
CHANGES = "whatever changes is in its state"
RESUMED = "a resumed run selects the same next batch"
ONE = "one unlabeled sample is enough"
DUPLICATES = "identical samples do no harm"
TRAINED = "a training ahead goes on from the state of any piece"
TASKS = "it works for every task that it does not rule out"


def contract(subject: Subject) -> None:
    """Hooks are marked and named as they must be, and the tasks are known."""
    bench.hooks(subject)
    bench.tasks_of(subject)


def needed(subject: Subject) -> None:
    """What works with everything works with nothing but what is declared."""
    bench.needs(subject)
    try:
        _one_cycle(Bench(subject, minimal=True), allow=None)
    except Exception as error:  # a stranger's hook may raise anything; whether it is for want of a need is seen below
        try:
            _one_cycle(Bench(subject), allow=NEEDS)
        except Exception:  # noqa: BLE001 - it fails with everything too: another rule will say so
            return
        declared = ", ".join(sorted(bench.needs(subject))) or "nothing"
        raise Broken(f"it fails where there is only what it declares ({declared}): {subject.brief(error)}") from error


def _one_cycle(table: Bench, allow: frozenset[str] | None) -> None:
    composition = table.compose()
    if allow is not None:
        for member in composition.members:
            member.needs = allow
    composition.update(table.state(0, composition=composition), None)
    state = table.state(1, composition=composition)
    composition.update(state, composition.reward(state))
    composition.select(state, composition.score(state), BATCH)


def updates(subject: Subject) -> None:
    """Update hears the first cycle, one with a reward, one without, and the last."""
    if "update" not in bench.hooks(subject):
        raise Inapplicable("it has no update")
    table = Bench(subject)
    composition = table.compose()
    for index, reward in enumerate((None, 0.1, -0.1, None)):
        state = table.state(index, composition=composition)
        state.final = index == 3
        composition.update(state, reward)


def rewards(subject: Subject) -> None:
    """The engine accepts what reward returns, with and without a batch that helped."""
    if "reward" not in bench.hooks(subject):
        raise Inapplicable("it has no reward")
    table = Bench(subject)
    composition = table.compose()
    _updated(table, composition, 0)
    composition.reward(table.state(1, composition=composition))


def scored(subject: Subject) -> None:
    """The engine accepts the scores."""
    if "score" not in bench.hooks(subject):
        raise Inapplicable("it has no score")
    table = Bench(subject)
    composition = table.compose()
    composition.score(_updated(table, composition, 0))


def selected(subject: Subject) -> None:
    """The engine accepts the ids."""
    _selects(subject)
    table = Bench(subject)
    composition = table.compose()
    state = _updated(table, composition, 0)
    composition.select(state, composition.score(state), BATCH)


def _selects(subject: Subject) -> None:
    if "select" not in bench.hooks(subject):
        raise Inapplicable("it has no select")


def budgets(subject: Subject) -> None:
    """From a budget of 0 to more than there are samples."""
    _selects(subject)
    table = Bench(subject)
    n = len(table.state().unlabeled)
    for budget in (0, 1, n, n + 5):
        composition = table.compose()
        state = _updated(table, composition, 1)
        try:
            composition.select(state, composition.score(state), budget)
        except Exception as error:  # a stranger's hook may raise anything
            raise Broken(f"with a budget of {budget} and {n} unlabeled samples: {subject.brief(error)}") from error


def alone(subject: Subject) -> None:
    """Each hook of a fresh instance that has heard nothing but an update works without the others."""
    table = Bench(subject)
    for hook in (name for name in HOOKS if name in bench.hooks(subject)):
        composition = table.compose()
        try:
            state = _updated(table, composition, 2)
            if hook == "reward":
                composition.reward(state)
            elif hook == "score":
                composition.score(state)
            elif hook == "select":
                composition.select(state, scores_of(state.unlabeled), BATCH)
        except Exception as error:  # a stranger's hook may raise anything
            raise Broken(f"{hook} without the other hooks before it: {subject.brief(error)}") from error


def _updated(table: Bench, composition: Composition, index: int) -> CycleState:
    """Return the state of a cycle in which update has been heard."""
    state = table.state(index, composition=composition)
    composition.update(state, 0.1 if index else None)
    return state


def same(subject: Subject) -> None:
    """Two runs with one seed ask for the same ids."""
    table = Bench(subject)
    _equal(batches(table.session(), 3), batches(table.session(), 3), "in two runs with the same seed")


def independent(subject: Subject) -> None:
    """Runs in programs that seeded the global generators differently ask for the same ids."""
    table = Bench(subject)
    first, second = (batches(table.session(salt=salt), 2) for salt in ("a", "b"))
    _equal(first, second, "under different global seeds (does the constructor draw random numbers?)")


def neighbors(subject: Subject) -> None:
    """A listener that draws and logs changes nothing."""
    table = Bench(subject)
    _equal(batches(table.session(), 3), batches(table.session(neighbor=True), 3), "without and with another plugin")


def _equal(first: list[list[int]], second: list[list[int]], where: str) -> None:
    for index in range(max(len(first), len(second))):
        a, b = (run[index] if index < len(run) else "none" for run in (first, second))
        if a != b:
            raise Broken(f"cycle {index} asks for {a} and for {b} {where}")


def untouched(subject: Subject) -> None:
    """What a hook is given is the same afterwards, but for what ``update`` released."""
    table = Bench(subject)
    composition = table.compose()
    scores = None
    _updated(table, composition, 0)
    state = table.state(1, composition=composition)
    for name in sorted(composition.needs & set(OUTPUTS)):
        state.output(name)
    before = _world(state)
    for hook in ("reward", "update", "score", "select"):
        if hook == "reward":
            composition.reward(state)
        elif hook == "update":
            composition.update(state, 0.1)
            if len(state.released):
                before = before | {name: _world(state)[name] for name in ("the pool", "the outputs")}
        elif hook == "score":
            scores = composition.score(state)
        else:
            composition.select(state, scores, BATCH)
        after = _world(state)
        for name, digest in before.items():
            if after[name] != digest:
                raise Broken(f"{hook} changed {name}: work on a copy")


def _world(state: CycleState) -> dict[str, str]:
    data, validation = state.dataset, state.validation
    features = None if data.features is None else data.features[:]
    ids = torch.arange(len(data.pool))
    held = {
        "the pool": [state.pool.state_dict(), [state.pool.ids(s) for s in (UNLABELED, LABELED, ASKED)], state.batch],
        "the learner": state.learner,
        "the data": [data.pool.inputs(ids), data.pool.labels(ids), features],
        "the validation data": None if validation is None else [validation.ids, _all_labels(validation)],
        "the outputs": [state._cache.get(name) for name in OUTPUTS],
        "the history": [record.as_dict() for record in state.history],
    }
    return {name: fingerprint(value) for name, value in held.items()}


def _all_labels(samples: Samples) -> Tensor | None:
    return None if samples.labels is None else samples.labels[:]


def plain(subject: Subject) -> None:
    """The state survives a checkpoint, and a fresh instance takes it."""
    session = Bench(subject).session()
    batches(session, 2)
    state = general.plain_state(instance_of(session, subject))
    subject.make().load_state_dict(state)


def changes(subject: Subject) -> None:
    """A fresh instance with the state of one that ran does not differ from it in any attribute."""
    session = Bench(subject).session()
    batches(session, 3)
    ran, fresh = instance_of(session, subject), subject.make()
    has_state = hasattr(ran, "state_dict")
    if has_state:
        fresh.load_state_dict(general.reloaded(ran.state_dict))
    before, after = fingerprints(fresh), fingerprints(ran)
    for name in sorted(set(before) | set(after)):
        if before.get(name) != after.get(name):
            where = "is not restored by load_state_dict" if has_state else "there is no state_dict"
            raise Broken(f"attribute {name!r} changes during a run, but {where}: it is lost on resume")


def resumed(subject: Subject) -> None:
    """Stopped after two cycles and gone on with in a new session, the third batch is that of a run never stopped."""
    table = Bench(subject)
    whole = batches(table.session(), 3)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        batches(table.session(store=store), 2)
        store.close()
        store = Store(folder)
        after = batches(table.session(store=store), 1)
        store.close()
    if after != whole[2:]:
        raise Broken(f"the batch after a stop is {after or 'none'}, and {whole[2:] or 'none'} in a run never stopped")


def trained(subject: Subject) -> None:
    """Stopped after its first piece, a fresh instance is after the second as one that was never stopped."""
    if not hasattr(subject.sample, "train_policy"):
        raise Inapplicable("it cannot be trained ahead (it has no train_policy)")
    if missing := lacking(subject.load(), subject.sample):
        raise Broken(f"it has train_policy() but lacks {', '.join(missing)}")
    table = Bench(subject)
    whole, first, fresh = subject.make(), subject.make(), subject.make()
    _pieces(table, whole, 2)
    _pieces(table, first, 1)
    fresh.load_state_dict(general.plain_state(first))
    _pieces(table, fresh, 1)
    if fingerprint(fresh.state_dict()) != fingerprint(whole.state_dict()):
        raise Broken(
            "a training that was stopped after its first piece has another state after the second than one that never "
            "was: draw from streams keyed by a seed that is in the state"
        )


def _pieces(table: Bench, instance: Any, n: int) -> None:
    """Train ``n`` pieces, or to the end if that is before."""
    subject = table.subject
    member = Member(subject.name, subject.kind, subject.distribution, instance, bench.needs(subject))
    cycle = Cycle(table.state(), member.name, "select", member.needs)
    with streams.seeded("conformance", "training"):
        deque(islice(shares(member, cycle), n), maxlen=0)


def one(subject: Subject) -> None:
    """A pool with a single sample left."""
    _a_cycle(subject, n=bench.LABELED + BATCH + bench.RESERVED + 1)


def duplicates(subject: Subject) -> None:
    """A pool in which all samples are the same."""
    _a_cycle(subject, identical=True)


def every_task(subject: Subject) -> None:
    """A cycle with reward, update, score and select, where there is only what is declared, for each further task."""
    others = bench.tasks_of(subject)[1:]
    if not others:
        raise Inapplicable("it works for one task")
    for task in others:
        try:
            _one_cycle(Bench(subject, minimal=True, task=task), allow=None)
        except Exception as error:  # a stranger's hook may raise anything
            meant = bench.tasks_of(subject)[0]
            raise Broken(
                f"for {task}: {subject.brief(error)} (if it is not meant for that, say tasks = ({meant!r},))"
            ) from error


def _a_cycle(subject: Subject, **dataset: object) -> None:
    table = Bench(subject, dataset=dataset)
    composition = table.compose()
    state = _updated(table, composition, 1)
    composition.select(state, composition.score(state), min(BATCH, len(state.unlabeled)))


RUNS = (
    Rule(ALONE, alone, (SELECTED,)),
    Rule(SAME, same, (SELECTED,)),
    Rule(GLOBAL, independent, (SAME,)),
    Rule(NEIGHBORS, neighbors, (SAME,)),
    Rule(UNTOUCHED, untouched, (SELECTED,)),
    Rule(PLAIN, plain, (SELECTED,)),
    Rule(CHANGES, changes, (PLAIN, SAME)),
    Rule(RESUMED, resumed, (PLAIN, SAME)),
    Rule(ONE, one, (SELECTED,)),
    Rule(DUPLICATES, duplicates, (SELECTED,)),
    Rule(TASKS, every_task, (SELECTED,)),
)
"""Rules about runs, once the results of each hook are known to be sound."""

BASIC = (
    Rule(MADE, general.made),
    Rule(DOCUMENTED, general.documented, (MADE,)),
    Rule(CONSTRUCTOR, general.constructor, (MADE,)),
    Rule(CONTRACT, contract, (MADE,)),
    Rule(NEEDED, needed, (CONTRACT,)),
)

STRATEGY_RULES = (
    *BASIC,
    Rule(UPDATES, updates, (NEEDED,)),
    Rule(REWARDS, rewards, (UPDATES,)),
    Rule(SCORED, scored, (UPDATES,)),
    Rule(SELECTED, selected, (REWARDS, SCORED)),
    Rule(BUDGETS, budgets, (SELECTED,)),
    *RUNS,
    Rule(TRAINED, trained, (NEEDED,)),
)
