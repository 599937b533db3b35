"""Losses and indicators against values by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from poolwright import Rows
from poolwright_plugins.nn.annotations import IGNORED, task_loss
from poolwright_plugins.nn.indicators import (
    INDICATORS,
    indicator_of,
    online_uncertainty,
    relative_deviation,
    relative_entropy,
)
from poolwright_plugins.nn.losses import (
    active_units,
    adversarial_loss,
    discriminator_accuracy,
    discriminator_auc,
    discriminator_loss,
    gaussian_wasserstein,
    kl_divergence,
    on_both_states,
    reconstruction_error,
    sample_latents,
)

from .conftest import LargestTensor, distributions
from .learner_parts import operations

# -- losses ------------------------------------------------------------------------------------------------------


def test_the_discriminators_loss_is_2_ln_2_where_it_cannot_tell() -> None:
    assert float(discriminator_loss(torch.zeros(7), 3)) == pytest.approx(2 * math.log(2))


def test_the_discriminators_loss_is_eq_3() -> None:
    d = torch.tensor([0.9, 0.6, 0.2])
    expected = -(math.log(0.9) + math.log(0.6)) / 2 - math.log(1 - 0.2)

    assert float(discriminator_loss(d.logit(), 2)) == pytest.approx(expected, rel=1e-6)


def test_a_binary_indicator_gives_vaals_loss() -> None:
    logits = torch.linspace(-3, 3, 9)

    assert discriminator_loss(logits, 4, torch.ones(5)) == discriminator_loss(logits, 4)


def test_unlabeled_samples_count_as_labeled_by_what_the_indicator_leaves() -> None:
    logits, indicator = torch.tensor([0.4, -1.2]), torch.tensor([0.3])
    p = float(logits[1].sigmoid())
    expected = -math.log(float(logits[0].sigmoid())) - 0.7 * math.log(p) - 0.3 * math.log(1 - p)

    assert float(discriminator_loss(logits, 1, indicator)) == pytest.approx(expected, rel=1e-6)


def test_the_best_answer_to_an_indicator_is_1_minus_it() -> None:
    logits = torch.zeros(6, requires_grad=True)
    indicator = torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        logits[3:] = (1 - indicator).logit()
    discriminator_loss(logits, 3, indicator).backward()

    torch.testing.assert_close(logits.grad[3:], torch.zeros(3), atol=1e-6, rtol=0)


def test_the_adversarial_loss_wants_all_to_look_labeled() -> None:
    d = torch.tensor([0.9, 0.2, 0.5])

    assert float(adversarial_loss(d.logit(), 1)) == pytest.approx(
        -math.log(0.9) - (math.log(0.2) + math.log(0.5)) / 2, rel=1e-6
    )


def test_losses_of_certain_discriminators_stay_finite() -> None:
    logits = torch.tensor([-500.0, 500.0])

    assert float(adversarial_loss(logits, 1)) == pytest.approx(500)
    assert float(discriminator_loss(logits, 1)) == pytest.approx(1000)


def test_accuracy_weighs_both_pools_alike() -> None:
    logits = torch.tensor([1.0, -1.0, -1.0, -1.0, -1.0, 1.0])

    assert float(discriminator_accuracy(logits, 2)) == pytest.approx((1 / 2 + 3 / 4) / 2)


def test_the_area_under_the_roc_counts_ordered_pairs() -> None:
    logits = torch.tensor([2.0, 0.5, 1.0, 0.5])

    assert float(discriminator_auc(logits, 2)) == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_the_divergence_of_the_prior_is_0() -> None:
    assert torch.equal(kl_divergence(torch.zeros(3, 5), torch.zeros(3, 5)), torch.zeros(3))


def test_the_divergence_is_torchs() -> None:
    mu, logvar = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    posterior = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1)

    torch.testing.assert_close(kl_divergence(mu, logvar), expected)


def test_draws_have_the_posteriors_moments() -> None:
    torch.manual_seed(0)
    z = sample_latents(torch.full((20_000, 1), 3.0), torch.full((20_000, 1), math.log(4)))

    assert float(z.mean()) == pytest.approx(3, abs=0.06)
    assert float(z.std()) == pytest.approx(2, abs=0.05)


def test_the_reconstruction_is_a_mean_or_a_gaussians_log_likelihood() -> None:
    images, reconstructed = (
        torch.zeros(2, 1, 2, 2),
        torch.tensor([1.0, 2.0, 0.0, 0.0]).reshape(1, 1, 2, 2).expand(2, -1, -1, -1),
    )

    assert reconstruction_error(images, reconstructed, "mean").tolist() == [5 / 4, 5 / 4]
    gaussian = torch.distributions.Normal(reconstructed, 1.0)
    expected = -gaussian.log_prob(images).flatten(1).sum(1) - 4 * 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(reconstruction_error(images, reconstructed, "sum"), expected)


def test_the_pools_count_alike_whatever_their_sizes() -> None:
    values = torch.tensor([1.0, 3.0, 10.0, 20.0, 30.0])

    assert float(on_both_states(values, 2)) == 2 + 20
    assert float(on_both_states(values, 2, "sum")) == 4 + 60
    assert float(on_both_states(values, 0)) == float(values.mean())


def test_units_are_active_above_a_variance_of_a_hundredth() -> None:
    assert active_units(torch.tensor([0.0, 0.0099, 0.0101, 2.0])) == 2


def test_the_wasserstein_distance_is_that_of_gaussians() -> None:
    mu, variance = torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[1.0, 4.0], [1.0, 1.0]])
    found = gaussian_wasserstein(mu, variance, torch.zeros(2), torch.tensor([1.0, 4.0]))

    torch.testing.assert_close(found, torch.tensor([0.0, math.sqrt(9 + 1)]))


# -- the supervised loss -----------------------------------------------------------------------------------------


def test_ignored_pixels_cost_nothing() -> None:
    logits, masks = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    masks[0, :2] = IGNORED
    known = masks != IGNORED
    expected = torch.nn.functional.cross_entropy(logits.movedim(1, 3)[known], masks[known])

    torch.testing.assert_close(task_loss(logits, masks), expected)


def test_a_batch_that_is_ignored_whole_costs_0_and_has_a_gradient() -> None:
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    loss = task_loss(logits, torch.full((2, 4, 5), IGNORED))
    loss.backward()

    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_the_loss_of_masks_uses_no_reduction_that_is_not_deterministic_on_cuda() -> None:
    loss = task_loss(torch.randn(2, 3, 4, 5, requires_grad=True), torch.randint(0, 3, (2, 4, 5)))

    assert {"NllLoss2DBackward", "SumBackward"} <= operations(loss)
    assert not {name for name in operations(loss) if "Reduced" in name}


# -- indicators --------------------------------------------------------------------------------------------------


def vector(*largest: float, n_classes: int = 10) -> Tensor:
    """Return (1, C) probabilities: the given ones, then equal ones."""
    rest = n_classes - len(largest)
    return torch.tensor([[*largest, *[(1 - sum(largest)) / max(1, rest)] * rest]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (vector(1.0), 0.0),
        (vector(0.5, 0.5), 7 / 9),
        (vector(0.6), 0.4),
        (vector(0.9, n_classes=2), 0.1),
        (vector(0.3, n_classes=100), 0.7),
        (torch.full((1, 4), 0.25), 0.75),
        (torch.full((1, 2), 0.5), 0.5),
        (torch.full((1, 100), 0.01), 0.99),
    ],
)
def test_online_uncertainty_by_hand(p: Tensor, expected: float) -> None:
    assert float(online_uncertainty(p)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3, 10, 100])
def test_online_uncertainty_is_the_papers_formula_and_below_1(n_classes: int) -> None:
    torch.manual_seed(0)
    p = torch.distributions.Dirichlet(torch.full((n_classes,), 0.5, dtype=torch.float64)).sample((500,))
    m, c = p.amax(1), n_classes
    smallest = ((1 / c - m) ** 2 + (c - 1) * (1 / c - (1 - m) / (c - 1)) ** 2) / c  # eq. 4, with C - 1
    expected = 1 - smallest / p.var(1, correction=0) * m

    found = online_uncertainty(p)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)
    assert bool(((found >= 0) & (found < 1)).all())


def test_online_uncertainty_is_steady_around_uniform_probabilities() -> None:
    p = torch.full((50, 10), 0.1) + 1e-7 * torch.randn(50, 10)

    found = online_uncertainty(p)
    assert bool(((found >= 0.9 - 1e-5) & (found < 1)).all())


@pytest.mark.parametrize("indicator", [relative_entropy, relative_deviation])
@pytest.mark.parametrize("n_classes", [2, 10])
def test_the_other_indicators_go_from_0_to_1(indicator, n_classes: int) -> None:
    certain = torch.nn.functional.one_hot(torch.arange(n_classes), n_classes).float()
    assert torch.allclose(indicator(certain), torch.zeros(n_classes), atol=1e-6)
    assert float(indicator(torch.full((1, n_classes), 1 / n_classes))) == pytest.approx(1, abs=1e-6)


def test_the_other_indicators_by_hand() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0, 0.0]])

    assert float(relative_entropy(p)) == pytest.approx(0.5)
    assert float(relative_deviation(p)) == pytest.approx(1 - 0.25 / math.sqrt(3 / 16))


@pytest.mark.parametrize("name", INDICATORS)
def test_indicators_are_read_in_blocks_without_copies_of_the_whole(name: str, monkeypatch) -> None:
    p = distributions(1000, 10)
    whole = INDICATORS[name](p)
    monkeypatch.setattr("poolwright_plugins.nn.indicators.BLOCK_BYTES", 40 * 64)
    with LargestTensor() as largest:
        found = indicator_of(Rows(p), INDICATORS[name])

    assert torch.equal(found, whole)
    assert largest.numel <= 1000
