"""Whose run a folder holds, and that nothing of it is lost: other sessions, other strategies, damage, odd states."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path

import pytest
import torch

from poolwright import ConfigError, LearnerError, PluginError, Store, StoreError, hookimpl, load_result, run
from poolwright.composition import Part
from poolwright.pool import LABELED, UNLABELED
from poolwright.store import MAGIC

from .helpers.build import EMPTY, experiment, picks, play, roles, session
from .helpers.toys import Lowest, Random, Softmax, Stateless, Tilting


class Shifted:
    """The lowest ids from ``shift`` on."""

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    @hookimpl
    def select(self, cycle, budget):
        return cycle.pool.unlabeled[self.shift : self.shift + budget]


# -- which strategies an experiment's folder holds ---------------------------------------------------------------


def test_a_strategy_that_is_left_out_of_a_resume_stays_in_the_result(tmp_path):
    first = run(experiment(Random, Lowest, Shifted, seeds=2), tmp_path, catalog=EMPTY)
    run(experiment(Random), tmp_path, resume=True, catalog=EMPTY)
    run(experiment(Lowest), tmp_path, resume=True, catalog=EMPTY)
    kept = load_result(tmp_path)
    assert sorted(kept.strategies) == ["lowest", "random", "shifted"]
    for label in kept.strategies:
        assert kept.of(label) == first.of(label)
        assert all(one.complete for one in kept.of(label))


def test_strategies_of_several_resumes_add_up(tmp_path):
    for strategy in (Random, Lowest, Shifted):
        run(experiment(strategy), tmp_path, resume=tmp_path.joinpath("experiment.json").exists(), catalog=EMPTY)
    kept = load_result(tmp_path)
    assert sorted(kept.strategies) == ["lowest", "random", "shifted"]
    assert sorted(spec["label"] for spec in kept.info["config"]["strategy"]) == ["lowest", "random", "shifted"]


OTHERS = {
    "parameter": {"label": "mine", "name": Shifted, "shift": 2},
    "plugin": {"label": "mine", "name": Lowest},
    "role": {"label": "mine", "name": Shifted, "shift": 1, "select": Lowest},
    "wrapper": {"label": "mine", "name": Shifted, "shift": 1, "wrappers": [Tilting]},
    "candidates": {"label": "mine", "name": Shifted, "shift": 1, "candidates": 30},
}


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("other", OTHERS)
def test_a_label_that_comes_back_for_another_strategy_is_refused(other, between, tmp_path):
    mine = {"label": "mine", "name": Shifted, "shift": 1}
    first = run(experiment(Random, mine), tmp_path, catalog=EMPTY)
    if between:
        run(experiment(Random), tmp_path, resume=True, catalog=EMPTY)
    with pytest.raises(ConfigError, match="another strategy labeled 'mine'"):
        run(experiment(Random, OTHERS[other]), tmp_path, resume=True, catalog=EMPTY)
    assert load_result(tmp_path).of("mine") == first.of("mine")
    again = run(experiment(mine), tmp_path, resume=True, catalog=EMPTY)
    assert [r.selected for r in again.runs[0].records] == [r.selected for r in first.of("mine")[0].records]


# -- whose session a store holds ---------------------------------------------------------------------------------

SETTINGS = {
    "seed": {"seed": 1},
    "strategy": {"strategy": Lowest},
    "strategy without": {"strategy": None},
    "wrapper": {"strategy": roles(Part(Shifted, {"shift": 1}), wrappers=[Tilting])},
    "learner": {"learner": Stateless},
    "initial": {"initial": torch.arange(1, 9)},
    "initial size": {"initial": torch.arange(9)},
}
NAMED = {"strategy without": "strategy", "wrapper": "strategy|plugins"}


def opened(folder: Path, **settings):
    """Return a session on the store in ``folder``."""
    return session(**({"strategy": roles(Part(Shifted, {"shift": 1})), "store": Store(folder)} | settings))


@pytest.mark.parametrize("begun", ["made", "answered", "advanced"])
@pytest.mark.parametrize("other", SETTINGS)
def test_a_store_is_refused_to_a_session_that_did_not_begin_it(other, begun, tmp_path):
    one = opened(tmp_path)
    if begun != "made":
        one.advance()
        one.answer()
    if begun == "advanced":
        one.advance()
        one.answer()
    expected = NAMED.get(other, other.split()[0])
    with pytest.raises((ConfigError, StoreError), match=f"another .*({expected})"):
        opened(tmp_path, **SETTINGS[other])
    assert picks(play(opened(tmp_path))) == picks(play(session(roles(Part(Shifted, {"shift": 1})))))


# -- answers of a person -----------------------------------------------------------------------------------------


def by_hand(folder: Path):
    """Return a session whose samples are chosen with ask."""
    return session(None, store=Store(folder))


def chosen(run, n: int = 5) -> None:
    """Choose, and answer."""
    ids = run.pool.ids(UNLABELED)[:n]
    assert run.ask(ids).tolist() == ids.tolist()
    run.tell(ids, ids % 4)


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("damaged", [1, 2, 3, 9])
def test_answers_of_a_person_count_again_after_damage(damaged, rounds, fitted, tmp_path):
    run = by_hand(tmp_path)
    run.advance()
    run.answer()
    run.advance()
    for i in range(rounds):
        chosen(run)
        if fitted or i < rounds - 1:
            run.advance()
    labeled, spent, labels = run.pool.ids(LABELED), run.pool.spent, run.pool.labels(run.pool.ids(LABELED))
    rows = run._ledger._store.answers()
    for path in sorted((tmp_path / "checkpoints").glob("*.ckpt"))[-damaged:]:
        path.write_bytes(path.read_bytes()[:100])
    run = by_hand(tmp_path)
    for _ in range(rounds + 2):
        assert run.advance().tolist() == []
    assert run.outstanding.tolist() == []
    assert run.pool.ids(LABELED).tolist() == labeled.tolist()
    assert run.pool.labels(labeled).tolist() == labels.tolist()
    assert run.pool.spent == spent == 5 * rounds
    assert run._ledger._store.answers() == rows
    assert run.history[-1].labeled == len(labeled)
    chosen(run, n=1)
    run.advance()
    assert run.history[-1].labeled == len(labeled) + 1


def test_a_question_of_a_person_that_is_open_is_still_open_after_damage_to_older_checkpoints(tmp_path):
    run = by_hand(tmp_path)
    run.advance()
    run.answer()
    run.advance()
    run.ask([20, 21])
    run.tell([20], [0])
    for path in sorted((tmp_path / "checkpoints").glob("*.ckpt"))[:-1]:
        path.write_bytes(b"")
    run = by_hand(tmp_path)
    assert run.outstanding.tolist() == [21]
    run.tell([21], [1])
    run.advance()
    assert run.history[-1].labeled == 10


# -- states that cannot come back --------------------------------------------------------------------------------

Point = namedtuple("Point", "x")


class Text(str):
    """A key of a plugin's own class."""


def holding(state) -> type:
    """Return a strategy with this state; ``loaded`` has what it got back."""

    class Hoarding(Lowest):
        loaded: list = []  # noqa: RUF012

        def state_dict(self):
            return {"v": state}

        def load_state_dict(self, state):
            self.loaded.append(state["v"])

    return Hoarding


@pytest.mark.parametrize(
    ("state", "named"),
    [
        (defaultdict(list, {1: [2]}), "defaultdict"),
        ({"deep": [defaultdict(int)]}, "defaultdict"),
        (Point(1), "Point"),
        ([{"deep": Point(1)}], "Point"),
        ({Point(1): 2}, "Point"),
        ({(1, Point(2)): 3}, "Point"),
        ({(1, Text("a")): 3}, "Text"),
        ({frozenset({1}): 2}, "frozenset"),
    ],
)
def test_what_could_not_be_read_back_is_refused_when_it_is_kept(state, named, tmp_path):
    run = session(holding(state), store=Store(tmp_path))
    run.advance()
    run.answer()
    with pytest.raises(PluginError, match=f"state_dict of 'hoarding' cannot be kept, since .*{named}"):
        run.advance()


@pytest.mark.parametrize(
    "state",
    [
        {("a", 1): 2},
        {1: {2.5: None, None: True}},
        [(1, "a"), {3}, b"ab", 1j],
        OrderedDict(a=1),
        Counter("aab"),
        torch.Size([2, 3]),
        torch.float32,
        frozenset({1}),
        bytearray(b"a"),
        range(3),
        torch.nn.Parameter(torch.ones(2)),
        {"nan": float("inf"), "big": 2**80},
    ],
    ids=repr,
)
def test_a_state_comes_back_as_it_was_or_is_refused_when_it_is_kept(state, tmp_path):
    Hoarding = holding(state)
    run = session(Hoarding, store=Store(tmp_path))
    run.advance()
    run.answer()
    try:
        run.advance()
    except PluginError as error:
        assert "cannot be kept" in str(error)  # noqa: PT017 - either is right
        return
    session(Hoarding, store=Store(tmp_path))
    (back,) = Hoarding.loaded
    assert type(back) is type(state)
    assert torch.equal(back, state) if isinstance(state, torch.Tensor) else back == state


@pytest.mark.parametrize("method", ["state_dict", "load_state_dict"])
@pytest.mark.parametrize("kind", ["strategy", "wrapper", "learner"])
def test_a_state_that_cannot_be_given_or_taken_blames_its_plugin(kind, method, tmp_path):
    base = {"strategy": Lowest, "wrapper": Tilting, "learner": Softmax}[kind]

    def fail(self, *args):
        raise KeyError("oops")

    members = {"state_dict": lambda self: {"a": 1}, "load_state_dict": lambda self, state: None, method: fail}
    Broken = type("Broken", (base,), members)
    settings = {
        "strategy": {"strategy": Broken},
        "wrapper": {"strategy": roles(Lowest, wrappers=[Broken])},
        "learner": {"strategy": Lowest, "learner": Broken},
    }[kind]

    def begin() -> None:
        one = session(**settings, store=Store(tmp_path))
        one.advance()
        one.answer()
        one.advance()

    if method == "load_state_dict":
        begin()
    named = "learner Broken" if kind == "learner" else "plugin 'broken'"
    with pytest.raises((PluginError, LearnerError), match=rf"{named}.*{method}.*KeyError.*oops"):
        begin()


# -- damaged checkpoints -----------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    kept = Store(tmp_path / "run")
    yield kept
    kept.close()


@pytest.mark.parametrize("payload", [b"rubbish", b"", b"PK\x03\x04 no zip", b"\x80\x02}q\x00."])
def test_a_checkpoint_whose_checksum_fits_but_that_cannot_be_read_is_damaged(payload, store, caplog):
    store.write_checkpoint(1, {"number": 1})
    path = store.checkpoints / "000002.ckpt"
    path.write_bytes(MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
    with caplog.at_level(logging.WARNING):
        assert store.read_checkpoint() == {"number": 1}
    assert str(path) in caplog.text
    assert "the checkpoint before it is used" in caplog.text


def names(store) -> list[str]:
    return sorted(path.name for path in store.checkpoints.iterdir())


def test_damaged_checkpoints_are_set_aside_and_the_new_ones_survive(store):
    for number in (3, 4, 5):
        (store.checkpoints / f"{number:06d}.ckpt").write_bytes(b"rubbish")
    assert store.read_checkpoint() is None
    assert names(store) == ["000003.damaged", "000004.damaged", "000005.damaged"]
    for number in (1, 2, 3):
        path = store.write_checkpoint(number, {"number": number})
        assert path.exists()
        assert store.read_checkpoint() == {"number": number}
    assert [name for name in names(store) if name.endswith(".damaged")] == [
        "000003.damaged",
        "000004.damaged",
        "000005.damaged",
    ]


def test_damaged_checkpoints_with_whole_ones_before_them_are_set_aside(store):
    for number in (1, 2, 3):
        store.write_checkpoint(number, {"number": number})
    (store.checkpoints / "000003.ckpt").write_bytes(b"rubbish")
    assert store.read_checkpoint() == {"number": 2}
    assert names(store) == ["000001.ckpt", "000002.ckpt", "000003.damaged"]
    store.write_checkpoint(3, {"number": 33})
    assert store.read_checkpoint() == {"number": 33}


def test_a_run_with_nothing_but_damaged_checkpoints_keeps_those_it_writes_anew(tmp_path):
    class Stopping(Random):
        at = 9

        @hookimpl
        def update(self, cycle):
            if cycle.index == self.at:
                raise KeyError("stopped")

    one = session(Stopping, store=Store(tmp_path))
    while one.index < 5:
        one.advance()
        one.answer()
    for path in (tmp_path / "checkpoints").glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:100])
    Stopping.at = 2  # of the replay: its checkpoints have lower numbers than those that are damaged
    with pytest.raises(PluginError, match="stopped"):
        session(Stopping, store=Store(tmp_path)).advance()
    assert len(Store(tmp_path).read_checkpoint()["history"]) == 2
    Stopping.at = 9
    resumed = session(Stopping, store=Store(tmp_path))
    assert resumed.index == 2
    assert picks(play(resumed)) == picks(play(session(Stopping)))
