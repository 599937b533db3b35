"""TrustSet: scores of labeled samples by hand, and the balance of what is chosen."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from poolwright import ConfigError
from poolwright_plugins.learners.superloss import superloss
from poolwright_plugins.strategies.bral_t.trustset import (
    Importance,
    balanced_top,
    class_ranks,
    el2n,
    evenness,
    grand,
    labeled_trust_set,
    trust_set,
)

from .conftest import cycle_of, distributions, points


def test_el2n_is_the_length_of_the_error_vector() -> None:
    p = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [1.0, 0.0, 0.0]])
    expected = [0.0, math.sqrt(0.26), math.sqrt(0.36 + 0.49 + 0.01), math.sqrt(2)]
    torch.testing.assert_close(el2n(p, torch.tensor([0, 0, 1, 2])), torch.tensor(expected))


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_el2n_lies_between_0_and_root_2(classes: int) -> None:
    p = distributions(500, classes).mul(6).softmax(1)
    scores = el2n(p, torch.arange(500) % classes)
    assert scores.min() > 0
    assert scores.max() <= math.sqrt(2)


def test_scores_leave_the_probabilities_alone() -> None:
    p = distributions(5, 3)
    before = p.clone()
    el2n(p, torch.tensor([0, 1, 2, 0, 1]))
    assert torch.equal(p, before)


def test_grand_is_the_norm_of_the_last_layers_gradient() -> None:
    h, y = points(6, 4).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    head = nn.Linear(4, 3).double()
    scores = grand(head(h).softmax(1).detach(), y, h)
    for i in range(6):
        head.zero_grad()
        F.cross_entropy(head(h[i : i + 1]), y[i : i + 1]).backward()
        norm = torch.cat([parameter.grad.flatten() for parameter in head.parameters()]).norm()
        assert float(scores[i]) == pytest.approx(float(norm), rel=1e-12)


def test_the_trustset_holds_the_highest_scores_of_each_class() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5, 0.8, 0.2, 0.3, 0.7])
    labels = torch.tensor([0, 0, 0, 2, 2, 2, 2])
    assert trust_set(scores, labels, 2).nonzero().squeeze(1).tolist() == [1, 2, 3, 6]


def test_the_second_group_is_the_diffset_and_the_groups_make_a_partition() -> None:
    scores, labels = torch.rand(40, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
    groups = torch.stack([trust_set(scores, labels, 4, rank) for rank in (1, 2, 3, 4)])
    assert groups.sum(0).eq(1).all()
    for c in range(3):
        first, second = (scores[group & (labels == c)] for group in groups[:2])
        assert len(first) == len(second) == 4
        assert first.min() > second.max()


@pytest.mark.parametrize("per_class", [1, 3, 10])
def test_no_class_has_more_than_its_share_however_long_the_tail(per_class: int) -> None:
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([1, 5, 50, 500]))
    scores = torch.rand(len(labels), generator=torch.Generator().manual_seed(1)) + labels
    counts = torch.bincount(labels[trust_set(scores, labels, per_class)], minlength=4)
    assert counts.tolist() == [min(per_class, n) for n in (1, 5, 50, 500)]


def test_equal_scores_go_by_row() -> None:
    assert trust_set(torch.zeros(6), torch.tensor([1, 1, 1, 0, 0, 0]), 2).tolist() == [True, True, False] * 2
    assert class_ranks(torch.zeros(4), torch.tensor([5, 5, 0, 5])).tolist() == [0, 1, 0, 2]


def test_balanced_top_takes_the_best_of_each_class_in_turn() -> None:
    scores = torch.tensor([9.0, 8.0, 7.0, 1.0, 2.0, 5.0])
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    assert balanced_top(scores, labels, 6).tolist() == [0, 5, 4, 1, 3, 2]
    assert balanced_top(scores, labels, 4).tolist() == [0, 5, 4, 1]
    assert balanced_top(scores, labels, 2).tolist() == [0, 5]
    assert balanced_top(scores, labels, 0).tolist() == []


# -- importance ----------------------------------------------------------------------------------------------------


def test_superloss_weighs_each_score_by_the_confidence_of_its_loss() -> None:
    p, y, h = distributions(20, 4), torch.arange(20) % 4, points(20, 3)
    losses = -p[torch.arange(20), y].log()
    sigma = superloss(losses, math.log(4), 0.25)[1]
    assert sigma.max() > 1.2
    for measure, plain in (("el2n", el2n(p, y)), ("grand", grand(p, y, h))):
        torch.testing.assert_close(Importance(measure, True, 0.25)(p, y, h), sigma * plain)
        torch.testing.assert_close(Importance(measure, False, 0.25)(p, y, h), plain)


def test_the_curriculum_can_reverse_the_order_of_hard_samples() -> None:
    p = torch.tensor([[0.3, 0.7], [0.001, 0.999]])
    y, h = torch.tensor([0, 0]), torch.zeros(2, 1)
    plain, weighed = (Importance(curriculum=curriculum, lam=0.25)(p, y, h) for curriculum in (False, True))
    assert plain[1] > plain[0]
    assert weighed[0] > weighed[1]


def test_tau_is_an_option() -> None:
    p, y, h = distributions(9, 3), torch.arange(9) % 3, points(9, 2)
    default, same, other = (Importance(tau=tau)(p, y, h) for tau in (None, math.log(3), 5.0))
    assert torch.equal(default, same)
    assert (other >= default).all()  # equal where the confidence has reached e
    assert (other > 1.5 * default).sum() > 5


def test_a_probability_that_is_0_in_float32_gives_a_finite_score() -> None:
    scores = Importance(lam=0.25)(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), torch.zeros(1, 2))
    assert torch.isfinite(scores).all()
    assert 0 < float(scores) < 0.1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"measure": "entropy"}, "x: importance is one of el2n, grand"),
        ({"lam": 0}, "x: lam must be a number above 0"),
        ({"lam": "1"}, "x: lam must be a number"),
        ({"tau": math.nan}, "x: tau must be a finite number"),
    ],
)
def test_unusable_settings_are_errors_that_name_plugin_and_option(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Importance(**params).check("x")


def test_the_trustset_of_a_cycle_comes_from_labeled_samples_and_their_labels() -> None:
    p, x = distributions(30, 3, seed=3), points(30, 2)
    cycle = cycle_of(labeled=18, needs={"probabilities", "embeddings", "labels"}, probabilities=p, embeddings=x)
    embeddings, chosen = labeled_trust_set(cycle, Importance(curriculum=False), size=7)
    assert torch.equal(embeddings, x[:18])
    labels = cycle.labels(torch.arange(18))
    assert torch.equal(chosen, trust_set(el2n(p[:18], labels), labels, 2))
    assert chosen.sum() == 6


def test_a_trustset_smaller_than_the_classes_still_has_one_of_each() -> None:
    given = {"probabilities": distributions(30, 3), "embeddings": points(30, 2)}
    cycle = cycle_of(labeled=18, needs={"probabilities", "embeddings", "labels"}, **given)
    assert labeled_trust_set(cycle, Importance(), size=1)[1].sum() == 3


@pytest.mark.parametrize(
    ("labels", "value"),
    [([0, 1, 2, 3], 1.0), ([2, 2, 2], 0.0), ([], 0.0), ([0, 1], 0.5), ([0, 0, 1, 1, 2, 2, 3, 3], 1.0)],
)
def test_evenness_is_the_entropy_of_the_shares_over_log_classes(labels: list[int], value: float) -> None:
    assert evenness(torch.tensor(labels, dtype=torch.int64), 4) == pytest.approx(value, abs=1e-15)
