"""Roles: who owns a hook, who hears it, and what is refused."""

from __future__ import annotations

import pytest
import torch

from poolwright import ConfigError, PluginError, hookimpl
from poolwright.composition import Part, top_k

from .helpers.build import compose, picks, play, roles, session
from .helpers.toys import Blobs, Flat, LeastConfident, Lowest, Random, load


class All:
    """All four hooks."""

    @hookimpl
    def score(self, cycle):
        return torch.zeros(len(cycle.pool.unlabeled))

    @hookimpl
    def select(self, cycle, scores, budget):
        return cycle.pool.unlabeled[:budget]

    @hookimpl
    def reward(self, cycle):
        return 1.0

    @hookimpl
    def update(self, cycle, reward):
        pass


class Rewarded(Lowest):
    @hookimpl
    def reward(self, cycle):
        return 2.0


class Picky:
    """Selects by scores that it does not give."""

    @hookimpl
    def select(self, cycle, scores, budget):
        return cycle.pool.unlabeled[:budget]


class Heard:
    """An update listener that notes its name."""

    calls: list = []  # noqa: RUF012 - emptied by the tests
    name = "?"

    @hookimpl
    def update(self, cycle, reward):
        self.calls.append(self.name)


def listener(name: str, *bases: type) -> type:
    return type(name.capitalize(), (*bases, Heard), {"name": name})


@pytest.mark.parametrize(
    ("played", "owners"),
    [
        (roles(All), {"score": "all", "select": "all", "reward": "all"}),
        (roles(Random), {"score": "random", "select": "default top-k", "reward": "default metric-gain"}),
        (roles(Lowest), {"select": "lowest", "reward": "default metric-gain"}),
        (roles(All, score=Random), {"score": "random", "select": "all", "reward": "all"}),
        (roles(All, select=Lowest), {"select": "lowest", "reward": "all"}),
        (roles(All, reward=Rewarded), {"score": "all", "select": "all", "reward": "rewarded"}),
        (roles(Random, select=All), {"score": "random", "select": "all", "reward": "default metric-gain"}),
        (roles(score=Random, select=All), {"score": "random", "select": "all", "reward": "all"}),
        (roles(score=All, select=Rewarded.__base__), None),
        (roles(score=All), {"score": "all", "select": "default top-k", "reward": "default metric-gain"}),
        (roles(select=Rewarded), {"select": "rewarded", "reward": "rewarded"}),
        (roles(Random, select=Rewarded), {"select": "rewarded", "reward": "default metric-gain"}),
    ],
)
def test_owners_of_the_exclusive_hooks(played, owners):
    from poolwright.composition import Composition

    from .helpers.build import EMPTY

    if owners is None:
        with pytest.raises(ConfigError, match=r"score = 'all' has no use: select of plugin 'lowest'.* takes no scores"):
            Composition(played, EMPTY, task="classification", provides=())
        return
    assert Composition(played, EMPTY, task="classification", provides=()).owners == owners


def test_one_plugin_in_two_roles_is_one_instance_and_other_parameters_make_another():
    assert len(compose(score=All, select=All).members) == 1
    assert len(compose(All, update=[All]).members) == 1

    class Tuned(Random):
        def __init__(self, b: int = 1) -> None:
            self.b = b

        @hookimpl
        def update(self, cycle):
            pass

    both = compose(Part(Tuned, {"b": 1}), update=[Part(Tuned, {"b": 2}), Part(Tuned, {"b": 1})])
    assert [(member.name, member.instance.b) for member in both.members] == [("tuned", 1), ("tuned#2", 2)]


def test_a_named_role_silences_the_same_hook_of_the_strategy():
    calls: list = []

    class Loud(All):
        @hookimpl
        def score(self, cycle):
            calls.append("loud")
            return torch.zeros(len(cycle.pool.unlabeled))

    play(session(roles(Loud, score=Random), budget=5))
    assert calls == []


def test_update_is_heard_by_every_plugin_the_strategy_first_then_roles_then_listeners_in_order():
    Heard.calls.clear()
    main, scorer = listener("main", Lowest), listener("scorer", Random)
    play(session(roles(main, select=All, score=scorer, update=[listener("a"), listener("b"), listener("c")]), budget=5))
    assert Heard.calls == ["main", "scorer", "a", "b", "c"] * 2


def test_a_select_without_scores_computes_none():
    calls: list = []

    class Both(Lowest):
        @hookimpl
        def score(self, cycle):
            calls.append(cycle.index)
            return torch.zeros(len(cycle.pool.unlabeled))

    one = play(session(Both, budget=5))
    assert calls == []
    assert "score" not in one.history[0].seconds


def test_what_nobody_plays_is_an_error_that_says_what_to_name():
    with pytest.raises(ConfigError, match="a run needs a strategy: give name, or score or select"):
        compose()
    with pytest.raises(ConfigError, match=r"nobody gives scores, which the default select \(top-k\) needs"):
        compose(update=[listener("a")])
    with pytest.raises(ConfigError, match="nobody gives scores, which select of plugin 'picky'"):
        compose(Picky)
    with pytest.raises(
        ConfigError, match=r"select = 'random', but plugin 'random'.* has no select hook \(it has: score\)"
    ):
        compose(Flat, select=Random)
    with pytest.raises(ConfigError, match=r"update names 'random', but plugin 'random'.* has no update hook"):
        compose(Flat, update=[Random])


def test_a_strategy_for_another_task_is_refused():
    class ForMasks(Random):
        tasks = frozenset({"segmentation"})

    with pytest.raises(
        ConfigError, match=r"plugin 'for-masks'.* works for segmentation, not for .* task 'classification'"
    ):
        compose(ForMasks)
    assert compose(ForMasks, task="segmentation").owners["score"] == "for-masks"


def test_needs_of_all_plugins_are_joined():
    class Embedding(Lowest):
        needs = frozenset({"embeddings"})

        @hookimpl
        def update(self, cycle):
            pass

    both = compose(LeastConfident, update=[Embedding], provides={"probabilities", "embeddings"})
    assert both.needs == {"probabilities", "embeddings"}
    with pytest.raises(ConfigError, match=r"'embedding'.* needs 'embeddings', which the learner does not provide"):
        compose(LeastConfident, update=[Embedding], provides={"probabilities"})


# -- top-k -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "k", "chosen"),
    [
        ([1, 3, 2], 2, [1, 2]),
        ([0, 0, 0, 0], 2, [0, 1]),
        ([1, 5, 1, 5, 5], 2, [1, 3]),
        ([2, 1, 2, 1, 3], 4, [4, 0, 2, 1]),
        ([1, 2], 5, [1, 0]),
        ([1, 2], 0, []),
        ([], 3, []),
        ([-torch.inf, torch.inf, -torch.inf], 2, [1, 0]),
    ],
)
def test_top_k_takes_the_highest_first_and_ties_to_the_lowest_position(scores, k, chosen):
    assert top_k(torch.tensor(scores, dtype=torch.float64), k).tolist() == chosen


def test_top_k_agrees_with_a_stable_sort():
    scores = torch.randint(0, 6, (500,)).float()
    for k in (1, 7, 100, 499, 500):
        assert top_k(scores, k).tolist() == scores.sort(descending=True, stable=True).indices[:k].tolist()


def test_float64_scores_keep_their_precision():
    class Fine:
        @hookimpl
        def score(self, cycle):
            return 1 + 1e-12 * cycle.pool.unlabeled.double()

    assert picks(play(session(Fine, budget=5)))[0] == [79, 78, 77, 76, 75]


def test_half_precision_scores_are_taken():
    class Half:
        @hookimpl
        def score(self, cycle):
            return (cycle.pool.unlabeled == 50).half()

    assert picks(play(session(Half, budget=5)))[0] == [50, 8, 9, 10, 11]


# -- each plugin its own view ------------------------------------------------------------------------------------


def test_generators_logs_and_times_are_kept_by_plugin_and_role():
    class A(All):
        @hookimpl
        def update(self, cycle):
            cycle.log("x", 1)
            self.draw = torch.rand(1, generator=cycle.generator).item()

        @hookimpl
        def score(self, cycle):
            cycle.log("x", 2)
            assert torch.rand(1, generator=cycle.generator).item() != self.draw
            return torch.zeros(len(cycle.pool.unlabeled))

    class B(All):
        @hookimpl
        def update(self, cycle):
            cycle.log("x", 3)

    one = play(session(roles(A, update=[B]), dataset=load(Blobs(n_validation=8)), budget=5))
    assert one.history[0].logs == {"a.update.x": [1.0], "b.update.x": [3.0], "a.score.x": [2.0]}
    assert set(one.history[1].streams) == {"learner", "a.reward", "a.update", "b.update"}
    assert set(one.history[0].streams) == {"learner", "a.update", "b.update", "a.score", "a.select"}
    assert all(seconds >= 0 for seconds in one.history[0].seconds.values())


def test_an_error_in_a_hook_names_plugin_hook_and_cycle():
    class Broken(All):
        @hookimpl
        def select(self, cycle, budget):
            raise KeyError("x")

    with pytest.raises(
        PluginError, match=r"^plugin 'broken' of distribution 'this program' failed in select \(cycle 0\): KeyError"
    ):
        play(session(Broken))
