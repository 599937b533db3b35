"""Wrappers: their order, what they see, and what they may change."""

from __future__ import annotations

import pytest
import torch

from poolwright import PluginError, hookimpl, run

from .helpers.build import EMPTY, compose, experiment, picks, play, roles, session
from .helpers.toys import Blobs, Flat, Lowest, load


def around(name: str, calls: list) -> type:
    class Around:
        @hookimpl(wrapper=True)
        def select(self, cycle, budget):
            calls.append(f"{name} before")
            result = yield
            calls.append(f"{name} after")
            return result

    Around.__name__ = Around.__qualname__ = name.capitalize()
    return Around


def test_the_first_wrapper_is_the_outermost():
    calls: list = []
    play(session(roles(Lowest, wrappers=[around("a", calls), around("b", calls)]), budget=5))
    assert calls == ["a before", "b before", "b after", "a after"]


def test_wrappers_of_the_experiment_lie_outside_those_of_the_strategy():
    calls: list = []
    strategy = {"name": Lowest, "wrappers": [around("inner", calls)]}
    run(experiment(strategy, wrappers=[around("outer", calls)], budget=5), catalog=EMPTY)
    assert calls == ["outer before", "inner before", "inner after", "outer after"]


def test_a_wrapper_changes_the_result_and_it_is_checked_again():
    class Last:
        @hookimpl(wrapper=True)
        def score(self, cycle):
            scores = yield
            return scores + cycle.pool.unlabeled

    assert picks(play(session(roles(Flat, wrappers=[Last]), budget=5)))[0] == [79, 78, 77, 76, 75]

    class Spoiling:
        @hookimpl(wrapper=True)
        def score(self, cycle):
            yield
            return torch.zeros(3)

    with pytest.raises(PluginError, match=r"returned torch.float32 \(3,\) from score in cycle 0"):
        play(session(roles(Flat, wrappers=[Spoiling])))


def test_a_wrapper_can_end_the_run():
    class Stopping:
        @hookimpl(wrapper=True)
        def select(self, cycle):
            ids = yield
            return ids if cycle.index < 2 else ids[:0]

    one = play(session(roles(Lowest, wrappers=[Stopping])))
    assert [len(batch) for batch in picks(one)] == [5, 5, 0]


def test_a_wrapper_sees_an_error_and_may_handle_it():
    class Failing(Lowest):
        @hookimpl
        def select(self, cycle, budget):
            raise ValueError("no idea")

    seen: list = []

    class Rescuing:
        @hookimpl(wrapper=True)
        def select(self, cycle, budget):
            try:
                return (yield)
            except PluginError as error:
                seen.append(str(error))
                return cycle.pool.unlabeled[-budget:]

    one = play(session(roles(Failing, wrappers=[Rescuing]), budget=5))
    assert picks(one)[0] == [75, 76, 77, 78, 79]
    [said] = seen
    assert said.startswith(
        "plugin 'failing' of distribution 'this program' failed in select (cycle 0): "
        "ValueError: no idea (test_wrappers.py:"
    )

    class Watching:
        @hookimpl(wrapper=True)
        def select(self, cycle, budget):
            try:
                return (yield)
            except PluginError:
                seen.append("watched")
                raise

    with pytest.raises(PluginError, match=r"plugin 'failing'.*no idea"):
        play(session(roles(Failing, wrappers=[Watching])))
    assert seen[-1] == "watched"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_error_of_a_wrapper_names_the_wrapper(moment):
    class Clumsy:
        @hookimpl(wrapper=True)
        def select(self, cycle, budget):
            if moment == "before":
                raise ValueError("oops")
            yield
            raise ValueError("oops")

    with pytest.raises(PluginError, match=r"plugin 'clumsy' of .* failed in select \(cycle 0\): ValueError: oops"):
        play(session(roles(Lowest, wrappers=[Clumsy])))


def test_a_wrapper_yields_exactly_once():
    class Never:
        @hookimpl(wrapper=True)
        def select(self, cycle):
            if cycle is None:
                yield
            return torch.empty(0, dtype=torch.int64)

    class Twice:
        @hookimpl(wrapper=True)
        def select(self, cycle):
            yield
            yield

    with pytest.raises(PluginError, match=r"plugin 'never'.* its select wrapper ended without a yield"):
        play(session(roles(Lowest, wrappers=[Never])))
    with pytest.raises(PluginError, match=r"plugin 'twice'.* its select wrapper has more than one yield"):
        play(session(roles(Lowest, wrappers=[Twice])))


def test_a_wrapper_is_no_owner_and_has_needs_logs_and_streams_of_its_own():
    class Looking:
        needs = frozenset({"probabilities"})

        @hookimpl(wrapper=True)
        def score(self, cycle):
            cycle.log("mean", cycle.probabilities().mean())
            draw = torch.rand(1, generator=cycle.generator)
            scores = yield
            assert not torch.equal(torch.rand(1, generator=cycle.generator), draw)
            return scores

        @hookimpl(wrapper=True)
        def reward(self, cycle, batch):
            return (yield) + 10

    both = compose(Flat, wrappers=[Looking], provides={"probabilities"})
    assert both.owners == {"score": "flat", "select": "default top-k", "reward": "default metric-gain"}
    assert both.needs == {"probabilities"}
    one = play(session(roles(Flat, wrappers=[Looking]), budget=5, dataset=load(Blobs(n_validation=8))))
    assert one.history[0].logs["looking.score.mean"] == [pytest.approx(0.25)]
    assert "looking.score" in one.history[0].streams
    assert one.history[1].reward == pytest.approx(10, abs=1)

    class Undeclared:
        @hookimpl(wrapper=True)
        def score(self, cycle):
            cycle.probabilities()
            return (yield)

    with pytest.raises(
        PluginError, match=r"plugin 'undeclared' used cycle.probabilities.. in score without declaring it"
    ):
        play(session(roles(Flat, wrappers=[Undeclared])))


def test_a_wrapper_hears_update_around_all_listeners():
    calls: list = []

    class Hearing(Flat):
        @hookimpl
        def update(self, cycle):
            calls.append("update")

    class Around:
        @hookimpl(wrapper=True)
        def update(self, cycle, reward):
            calls.append(("before", reward))
            result = yield
            calls.append("after")
            return result

    play(session(roles(Hearing, wrappers=[Around]), budget=0))
    assert calls == [("before", None), "update", "after"]
