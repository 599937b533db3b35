"""What a plugin must not do, and what the message says: always the plugin and its distribution."""

from __future__ import annotations

import re

import pytest
import torch

from poolwright import ConfigError, PluginError, hookimpl
from poolwright.composition import Part

from .helpers.build import compose, play, roles, session
from .helpers.toys import Blobs, Lowest, Random, load

WHO = "plugin 'bad' of distribution 'this program'"


def bad(**members) -> type:
    return type("Bad", (), members)


@hookimpl
def defaulted(self, cycle, budget=5):
    return cycle.pool.unlabeled[:budget]


@hookimpl
def misspelt(self, cycle, bugdet):
    return cycle.pool.unlabeled[:bugdet]


@hookimpl
def rewrad(self, cycle):
    return 1.0


@hookimpl(specname="score")
def renamed(self, cycle):
    return torch.zeros(len(cycle.pool.unlabeled))


@hookimpl(optionalhook=True)
def score_perhaps(self, cycle):
    return torch.zeros(len(cycle.pool.unlabeled))


@hookimpl(wrapper=True)
def wrapping(self, cycle):
    return (yield)


@hookimpl(hookwrapper=True)
def old_wrapping(self, cycle):
    yield


def unmarked(self, cycle):
    return torch.zeros(len(cycle.pool.unlabeled))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"score": unmarked}, "its method score has no @hookimpl, so it would never be called"),
        ({"score": Random.score, "reward": unmarked}, "its method reward has no @hookimpl"),
        ({"select": defaulted}, "select gives its argument 'budget' a default, which would hide the hook's value"),
        ({"select": misspelt}, "select takes an argument 'bugdet', but the hook gives cycle, scores, budget"),
        ({"rewrad": rewrad}, "rewrad is no hook: did you mean 'reward'?"),
        ({"value": renamed}, "value uses specname='score'; call the method score instead"),
        ({"score": score_perhaps}, "score uses optionalhook"),
        ({"score": wrapping}, "score is a wrapper; wrappers belong to the entry-point group poolwright.wrappers"),
        ({"score": old_wrapping}, "score is an old-style hookwrapper; write @hookimpl(wrapper=True)"),
        ({}, "(Bad) has none of the hooks score, select, reward, update"),
        (
            {"score": Random.score, "needs": frozenset({"probabilites"})},
            "declares an unknown need 'probabilites': did you mean 'probabilities'?",
        ),
        (
            {"score": Random.score, "needs": "probabilities"},
            "needs must be a set of names such as {'probabilities'}, not 'probabilities'",
        ),
        ({"score": Random.score, "needs": 3}, "needs must be a set of names"),
    ],
)
def test_a_plugin_that_breaks_the_contract_is_refused_by_name(members, message):
    with pytest.raises(PluginError, match=re.escape(WHO) + ".*" + re.escape(message)):
        compose(bad(**members))


def test_a_wrapper_that_does_not_wrap_is_refused():
    with pytest.raises(PluginError, match=re.escape(WHO) + ": score of a wrapper must be marked"):
        compose(Random, wrappers=[bad(score=Random.score)])


def test_a_class_registered_uninstantiated_is_refused():
    def factory():
        return Random

    with pytest.raises(
        PluginError, match="'factory' of distribution 'this program' gave the class Random uninstantiated"
    ):
        compose(factory)


def test_a_constructor_that_fails_or_has_no_such_parameter_is_named():
    class Fussy(Random):
        def __init__(self, b, c=2):
            raise ValueError(f"b = {b} is bad")

    with pytest.raises(
        PluginError, match=r"strategy 'fussy' of .* cannot be made with \{'b': 3\}: ValueError: b = 3 is bad"
    ):
        compose(Part(Fussy, {"b": 3}))
    with pytest.raises(ConfigError, match="strategy 'fussy' has no parameter 'bb': did you mean 'b'"):
        compose(Part(Fussy, {"bb": 3}))
    with pytest.raises(ConfigError, match="strategy 'fussy' needs the parameter 'b'"):
        compose(Fussy)


def test_static_and_class_attributes_and_subclasses_are_hooks_like_any():
    class Static:
        @staticmethod
        @hookimpl
        def score(cycle):
            return torch.zeros(len(cycle.pool.unlabeled))

    class Child(Random):
        pass

    assert compose(Static).owners["score"] == "static"
    assert compose(Child).owners["score"] == "child"
    play(session(Static, budget=5))


def returning(hook: str, value) -> type:
    """Return a strategy whose hook returns ``value(cycle)``."""

    @hookimpl
    def method(self, cycle):
        return value(cycle)

    rest = {"score": Random.score} if hook == "reward" else {}
    return bad(**{hook: method}, **rest)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda cycle: None, "returned None from score: return a float tensor of shape (72,)"),
        (lambda cycle: [0.0] * 72, "returned list from score"),
        (lambda cycle: torch.zeros(71), "returned torch.float32 (71,) from score in cycle 0: there are 72 unlabeled"),
        (lambda cycle: torch.zeros(72, 1), "returned torch.float32 (72, 1) from score"),
        (lambda cycle: torch.zeros(72, dtype=torch.int64), "returned torch.int64 (72,) from score"),
        (
            lambda cycle: torch.zeros(72).index_fill(0, torch.tensor([5, 9]), torch.nan),
            "returned 2 NaN of 72 scores in cycle 0, the first at position 5",
        ),
    ],
)
def test_scores_that_do_not_fit_are_refused(value, message):
    with pytest.raises(PluginError, match=re.escape(f"{WHO} {message}")):
        play(session(returning("score", value)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda cycle: None, "returned None from select: return an int64 tensor of ids"),
        (lambda cycle: [8], "returned list from select"),
        (lambda cycle: torch.tensor([8.0]), "returned torch.float32 (1,) from select"),
        (lambda cycle: torch.tensor([8], dtype=torch.int32), "returned torch.int32 (1,) from select"),
        (lambda cycle: torch.tensor([[8]]), "returned torch.int64 (1, 1) from select"),
        (lambda cycle: torch.arange(8, 14), "selected 6 ids in cycle 0, but the budget is 5"),
        (lambda cycle: torch.tensor([9, 8, 9]), "selected id 9 more than once in cycle 0"),
        (lambda cycle: torch.tensor([9, 3, 0]), "selected 2 ids in cycle 0 that are not unlabeled, the first is 3"),
        (lambda cycle: torch.tensor([80]), "selected 1 ids in cycle 0 that are not unlabeled, the first is 80"),
        (lambda cycle: torch.tensor([-1]), "selected 1 ids in cycle 0 that are not unlabeled, the first is -1"),
    ],
)
def test_selections_that_do_not_fit_are_refused(value, message):
    with pytest.raises(PluginError, match=re.escape(f"{WHO} {message}")):
        play(session(returning("select", value)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda cycle: None, "returned None from reward: return a number"),
        (lambda cycle: "much", "returned str from reward"),
        (lambda cycle: float("nan"), "returned nan from reward in cycle 1: it must be finite"),
        (lambda cycle: torch.tensor(-torch.inf), "returned -inf from reward in cycle 1"),
        (lambda cycle: torch.zeros(2), "from reward"),
    ],
)
def test_rewards_that_do_not_fit_are_refused(value, message):
    with pytest.raises(PluginError, match=re.escape(WHO) + ".*" + re.escape(message)):
        play(session(returning("reward", value)))


@pytest.mark.parametrize("value", [1, torch.tensor(1.0), torch.tensor([1.0]), True])
def test_rewards_may_be_any_number(value):
    one = play(session(returning("reward", lambda cycle: value), budget=5, dataset=load(Blobs(n_validation=8))))
    assert one.history[1].reward == 1.0


def test_tensors_with_gradients_are_taken_without_them():
    class Learning(Lowest):
        @hookimpl
        def score(self, cycle):
            return torch.ones(len(cycle.pool.unlabeled), requires_grad=True) * 2

        @hookimpl
        def select(self, cycle, scores, budget):
            assert not scores.requires_grad
            return cycle.pool.unlabeled[:budget]

    play(session(Learning, budget=5))


def test_a_plugin_may_be_called_like_a_default():
    class TopK(Random):
        """Scores, and goes by the name of the default select."""

    assert play(session(TopK, budget=5)).finished


def test_two_classes_of_one_name_are_two_plugins():
    def made(value):
        class Made(Random):
            @hookimpl
            def update(self, cycle):
                heard.append(value)

        return Made

    heard: list = []
    play(session(roles(made(1), update=[made(2)]), budget=0))
    assert heard == [1, 2]
