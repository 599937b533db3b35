"""Rewards that stand by themselves, by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from poolwright import ConfigError, Cycle, LabelLeakError, Roles, Session, hookimpl, kernels, testing
from poolwright.composition import Part
from poolwright_plugins.strategies.random import Random
from poolwright_plugins.strategies.rewards import AccuracyGain, ClassBalance, PrecisionPerLabel, TrustSetDistance

from .conftest import cycle_of, distributions, points
from .planted import sealed


def measured(reward: Any, before: dict[str, float], now: dict[str, float], labeled: int = 9) -> Cycle:
    """Return a cycle with validation metrics of our own; four labels came since the last."""
    cycle = testing.make_cycle(plugin="tested", role="reward", needs=reward.needs, labeled=labeled)
    cycle._state.history[-1].validation.clear()
    cycle._state.history[-1].validation.update(before)
    cycle.metrics, cycle.baseline = now, before
    return cycle


def test_accuracy_gain_is_the_change_since_the_last_kept_batch() -> None:
    cycle = measured(AccuracyGain(), {"accuracy": 0.5, "f1": 0.9}, {"accuracy": 0.75, "f1": 0.8})
    assert AccuracyGain().reward(cycle) == 0.25
    assert AccuracyGain(metric="f1").reward(cycle) == pytest.approx(-0.1)


def test_an_unknown_metric_is_an_error_that_names_those_there_are() -> None:
    cycle = measured(AccuracyGain(), {"accuracy": 0.5}, {"accuracy": 0.75})
    with pytest.raises(ConfigError, match="accuracy-gain: unknown metric 'auc'; there are: accuracy"):
        AccuracyGain(metric="auc").reward(cycle)


def test_precision_per_label_is_the_change_of_the_quotient() -> None:
    cycle = measured(PrecisionPerLabel(), {"precision": 0.45}, {"precision": 0.78})
    assert len(cycle.pool.labeled) == 13
    assert PrecisionPerLabel().reward(cycle) == pytest.approx(0.78 / 13 - 0.45 / 9)


def played(reward: type, *, sealed_test: bool = False) -> Session:
    """Return a whole run of random batches with a reward plugin, with the labels of test data behind a seal or not."""
    dataset = testing.make_dataset(n=60)
    if sealed_test:
        dataset = sealed(dataset)
    session = Session(
        dataset,
        learner=testing.make_learner,
        strategy=Roles(score=Part(Random), reward=Part(reward)),
        budget=20,
        batch=6,
        initial=torch.arange(10),
        oracle=dataset.pool.labels,
        report=not sealed_test,
    )
    session.answer()
    while session.advance() is not None:
        session.answer()
    return session


@pytest.mark.parametrize("reward", [AccuracyGain, PrecisionPerLabel, TrustSetDistance, ClassBalance])
def test_no_reward_reads_labels_of_test_data(reward: type) -> None:
    assert all(record.reward is not None for record in played(reward, sealed_test=True).history[1:])


@pytest.mark.parametrize("reward", [AccuracyGain, PrecisionPerLabel, TrustSetDistance, ClassBalance])
def test_a_planted_leak_of_test_labels_is_caught(reward: type) -> None:
    class Leaky(reward):  # type: ignore[misc]
        @hookimpl
        def reward(self, cycle: Cycle, batch: Tensor) -> float:
            test = cycle._state.dataset.test
            return float(test.labels(torch.arange(len(test))).float().mean())

    with pytest.raises(LabelLeakError, match="read labels of test data"):
        played(Leaky, sealed_test=True)


def test_precision_per_label_telescopes_over_a_run() -> None:
    records = played(PrecisionPerLabel).history
    assert [record.labeled for record in records] == [10, 16, 22, 28, 30]
    first, *_, last = (record.validation["precision"] / record.labeled for record in records)
    assert sum(record.reward or 0 for record in records) == pytest.approx(last - first)


def test_accuracy_gain_telescopes_over_a_run() -> None:
    records = played(AccuracyGain).history
    accuracies = [record.validation["accuracy"] for record in records]
    gains = [record.reward for record in records[1:]]
    assert gains == pytest.approx([b - a for a, b in itertools.pairwise(accuracies)])


@pytest.mark.parametrize("reward", [AccuracyGain, PrecisionPerLabel])
def test_rewards_of_a_metric_need_validation_data(reward: type) -> None:
    dataset = testing.make_dataset()
    dataset.validation = None
    with pytest.raises(ConfigError, match="needs validation data"):
        Session(
            dataset,
            learner=testing.make_learner,
            strategy=Roles(score=Part(Random), reward=Part(reward)),
            budget=8,
            initial=9,
        )


# -- distance to the TrustSet --------------------------------------------------------------------------------------


def labeled(p: Tensor, x: Tensor, n: int) -> Cycle:
    return cycle_of(labeled=n, role="reward", needs=TrustSetDistance.needs, probabilities=p, embeddings=x)


def test_trustset_distance_by_hand() -> None:
    # Ids 0 to 5 are of classes 0, 1, 2, 0, 1, 2; the learner doubts 0, 4 and 5, which are the TrustSet of 3.
    p = torch.eye(3)[torch.arange(12) % 3] * 0.9 + 0.1 / 3
    p[[0, 4, 5]] = 1 / 3
    x = torch.tensor([0.0, 1, 2, 30, 40, 51, 0, 0, 0, 0, 0, 0])[:, None]
    cycle = labeled(p, x, 6)
    # {2, 30, 51} against {0, 40, 51}: 2, 10 and 0.
    assert TrustSetDistance().reward(cycle, torch.tensor([2, 3, 5])) == pytest.approx(-4.0)
    assert TrustSetDistance(order=2).reward(cycle, torch.tensor([2, 3, 5])) == pytest.approx(-math.sqrt(104 / 3))
    assert TrustSetDistance().reward(cycle, torch.tensor([0, 4, 5])) == 0


@pytest.mark.parametrize("params", [{}, {"curriculum": False}, {"importance": "grand"}, {"lam": 0.25, "tau": 0.1}])
def test_trustset_distance_takes_the_settings_of_bral_t(params: dict[str, Any]) -> None:
    from poolwright_plugins.strategies.bral_t.strategy import BralT

    p, x, batch = distributions(60, 3, seed=2), points(60, 4), torch.arange(30, 42)
    own, bral = TrustSetDistance(**params), BralT(**params)
    assert own.reward(labeled(p, x, 42), batch) == bral.reward(labeled(p, x, 42), batch)


def test_trustset_distance_is_the_exact_distance_of_batch_and_trustset() -> None:
    p, x, batch = distributions(60, 3, seed=2), points(60, 4), torch.arange(30, 42)
    cycle = labeled(p, x, 42)
    labels = torch.arange(42) % 3
    error = (p[:42] - torch.eye(3)[labels]).norm(dim=1)
    chosen = torch.cat([(labels == c).nonzero().squeeze(1)[error[labels == c].topk(4).indices] for c in range(3)])
    expected = -float(kernels.wasserstein(x[batch], x[chosen], p=1, backend="reference"))
    assert TrustSetDistance(curriculum=False).reward(cycle, batch) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("params", "message"),
    [({"lam": -1.0}, "trustset-distance: lam"), ({"order": 0.0}, "trustset-distance: .*p must be")],
)
def test_unusable_settings_are_errors_that_name_them(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrustSetDistance(**params).reward(labeled(distributions(30, 3), points(30, 2), 20), torch.arange(5))


# -- balance -------------------------------------------------------------------------------------------------------


def balanced(n: int = 12) -> Cycle:
    return cycle_of(labeled=n, role="reward", needs={"labels"}, embeddings=points(30, 2))


@pytest.mark.parametrize(
    ("batch", "expected"),
    [([0, 1, 2], 1.0), ([0, 3, 6], 0.0), ([0, 1, 3, 4], math.log(2) / math.log(3))],
)
def test_class_balance_is_the_evenness_of_the_batch(batch: list[int], expected: float) -> None:
    assert ClassBalance().reward(balanced(), torch.tensor(batch)) == pytest.approx(expected)


def test_class_balance_over_the_labeled_is_what_the_batch_changed() -> None:
    reward = ClassBalance(over="labeled")
    # Without 9 there are 3, 4 and 4 of the three classes; with it 4 of each.
    before = -sum(share * math.log(share) for share in (3 / 11, 4 / 11, 4 / 11)) / math.log(3)
    assert reward.reward(balanced(), torch.tensor([9])) == pytest.approx(1 - before)
    assert reward.reward(balanced(13), torch.tensor([12])) < 0


def test_an_unknown_scope_is_an_error() -> None:
    with pytest.raises(ConfigError, match="class-balance: over is one of batch, labeled, not 'pool'"):
        ClassBalance(over="pool").reward(balanced(), torch.tensor([0]))  # type: ignore[arg-type]
