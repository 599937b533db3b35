"""Uncertainty scores against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from poolwright_plugins.strategies.uncertainty import (
    Entropy,
    LeastConfidence,
    Margin,
    entropy,
    least_confidence,
    margin,
)

from .conftest import cycle_of, distributions

P = torch.tensor([[0.5, 0.25, 0.25], [0.6, 0.4, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
H = [1.5 * math.log(2), -0.6 * math.log(0.6) - 0.4 * math.log(0.4), 0.0, math.log(3)]
STRATEGIES = [Entropy, LeastConfidence, Margin]


def test_entropy_is_shannons_in_nats_and_0_for_certain_rows() -> None:
    torch.testing.assert_close(entropy(P), torch.tensor(H))


def test_least_confidence_is_one_minus_the_largest_probability() -> None:
    torch.testing.assert_close(least_confidence(P), torch.tensor([0.5, 0.4, 0.0, 2 / 3]))


def test_margin_is_the_largest_minus_the_second_largest_probability() -> None:
    torch.testing.assert_close(margin(P), torch.tensor([0.25, 0.2, 1.0, 0.0]))
    torch.testing.assert_close(margin(P.flip(1)), torch.tensor([0.25, 0.2, 1.0, 0.0]))


@pytest.mark.parametrize(
    ("strategy", "order"), [(Entropy, [3, 0, 1, 2]), (LeastConfidence, [3, 0, 1, 2]), (Margin, [3, 1, 0, 2])]
)
def test_the_least_decided_sample_scores_highest(strategy: type, order: list[int]) -> None:
    scores = strategy().score(cycle_of(role="score", probabilities=P))
    assert scores.argsort(descending=True).tolist() == order


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_scores_are_those_of_the_unlabeled_in_their_order(strategy: type) -> None:
    p = distributions(30, 4)
    everyone = strategy().score(cycle_of(role="score", probabilities=p))
    unlabeled = strategy().score(cycle_of(role="score", probabilities=p, labeled=7))
    assert torch.equal(unlabeled, everyone[7:])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_probabilities_of_exactly_0_and_1_give_no_nan(strategy: type) -> None:
    scores = strategy().score(cycle_of(role="score", probabilities=torch.eye(4)))
    assert torch.isfinite(scores).all()
    assert len(scores.unique()) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_scores_do_not_depend_on_the_size_of_the_blocks(strategy: type, monkeypatch: pytest.MonkeyPatch) -> None:
    p = distributions(50, 3)
    whole = strategy().score(cycle_of(role="score", probabilities=p))
    monkeypatch.setattr("poolwright_plugins.strategies.uncertainty.BLOCK_BYTES", 7 * 3 * 4)
    assert torch.equal(strategy().score(cycle_of(role="score", probabilities=p)), whole)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_empty_pool_gives_no_scores(strategy: type) -> None:
    scores = strategy().score(cycle_of(role="score", probabilities=P, labeled=4))
    assert scores.shape == (0,)
