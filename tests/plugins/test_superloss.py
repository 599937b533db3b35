"""SuperLoss against its definition, hand values and scipy's Lambert W."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor
from torch.nn import functional as F

from poolwright import ConfigError
from poolwright_plugins.learners.drn import DRND22
from poolwright_plugins.learners.linear import Linear
from poolwright_plugins.learners.mlp import MLP
from poolwright_plugins.learners.superloss import lambert_w, super_cross_entropy, superloss

from .learner_parts import Blobs, fit, logits, quick


def sigma_of(beta: float, lam: float = 1.0, tau: float = 0.0) -> float:
    """Return the confidence of a sample whose (loss - tau) / lam is ``beta``."""
    return float(superloss(torch.tensor([tau + lam * beta], dtype=torch.float64), tau, lam)[1])


@pytest.mark.parametrize(("beta", "sigma"), [(-0.5, 1.4296), (0.0, 1.0), (1.0, 0.7035), (3.0, 0.4839)])
@pytest.mark.parametrize("lam", [0.25, 1.0, 2.0])
def test_the_confidence_has_its_known_values(beta: float, sigma: float, lam: float) -> None:
    assert sigma_of(beta, lam, tau=2.3) == pytest.approx(sigma, abs=5e-5)


@pytest.mark.parametrize("beta", [-2 / math.e, -0.8, -1.0, -1e6])
def test_at_and_below_the_branch_point_the_confidence_is_e(beta: float) -> None:
    assert sigma_of(beta) == pytest.approx(math.e, rel=1e-15)


@pytest.mark.parametrize("step", [1e-16, 1e-15, 1e-12, 1e-9, 1e-6, 4e-5, 1e-4, 1e-3])
def test_next_to_the_branch_point_the_confidence_falls_without_a_jump(step: float) -> None:
    # W near -1/e is -1 + p - p^2 / 3 + O(p^3), p = sqrt(2 (e x + 1)); here x = beta / 2.
    p = math.sqrt(math.e * step)
    w = -1 + p - p**2 / 3
    assert sigma_of(-2 / math.e + step) == pytest.approx(math.exp(-w), abs=math.e * p**3 + 1e-7)
    assert sigma_of(-2 / math.e + step) <= math.e


def test_lambert_w_agrees_with_scipy_over_its_whole_range() -> None:
    # scipy itself is off by 1e-9 where sqrt(2 (e x + 1)) is small, and NaN at -1/e.
    x = np.concatenate(
        [-1 / math.e + np.logspace(-7, -0.6, 400), np.linspace(-0.1, 10, 1000), np.logspace(-30, 290, 500)]
    )
    expected = scipy.special.lambertw(x).real
    np.testing.assert_allclose(lambert_w(torch.from_numpy(x)).numpy(), expected, rtol=1e-11, atol=0)


def test_lambert_w_solves_its_equation_on_both_sides_of_the_switch_to_the_series() -> None:
    p = torch.linspace(0.009, 0.011, 101, dtype=torch.float64)
    x = (p.square() / 2 - 1) / math.e
    w = lambert_w(x)
    torch.testing.assert_close(w * w.exp(), x, rtol=1e-14, atol=0)
    assert (w.diff() > 0).all()


def test_no_other_confidence_gives_a_smaller_loss() -> None:
    losses = torch.tensor([0.01, 0.5, 2.3, 2.4, 5.0, 20.0], dtype=torch.float64)
    tau, lam = math.log(10), 0.25
    best, sigma = superloss(losses, tau, lam)
    grid = torch.linspace(1e-3, math.e, 20001, dtype=torch.float64)[:, None]
    others = (losses - tau) * grid + lam * grid.log().square()
    assert (best <= others.amin(0) + 1e-12).all()
    torch.testing.assert_close(best, (losses - tau) * sigma + lam * sigma.log().square())


def test_easy_samples_weigh_more_than_1_and_hard_ones_less() -> None:
    sigma = superloss(torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]), tau=2.0, lam=1.0)[1]
    assert (sigma.diff()[1:] < 0).all()
    assert sigma[1] > 1 == sigma[2] > sigma[3] > sigma[4] > 0


def test_a_large_lambda_leaves_the_loss_above_tau() -> None:
    loss, sigma = superloss(torch.tensor([0.5, 3.0], dtype=torch.float64), tau=1.0, lam=1e9)
    torch.testing.assert_close(sigma, torch.ones(2, dtype=torch.float64), atol=1e-8, rtol=0)
    torch.testing.assert_close(loss, torch.tensor([-0.5, 2.0], dtype=torch.float64), atol=1e-8, rtol=0)


def test_the_gradient_in_the_logits_is_sigma_times_the_error() -> None:
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(7, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    y = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    super_cross_entropy(x, y, lam=0.25).backward()
    sigma = superloss(F.cross_entropy(x.detach(), y, reduction="none"), math.log(5), 0.25)[1]
    assert sigma.min() < 0.9 < 1.1 < sigma.max()
    expected = sigma[:, None] * (x.detach().softmax(1) - F.one_hot(y, 5)) / 7
    torch.testing.assert_close(x.grad, expected)
    assert torch.autograd.gradcheck(lambda z: super_cross_entropy(z, y, 0.25), [x])


def test_the_confidence_carries_no_gradient() -> None:
    losses = torch.tensor([1.0, 4.0], requires_grad=True)
    loss, sigma = superloss(losses, 2.0, 1.0)
    assert loss.requires_grad
    assert not sigma.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_results_have_the_type_of_the_losses_and_float64_accuracy_inside(dtype: torch.dtype) -> None:
    losses = torch.tensor([0.5, 1.5, 7.0], dtype=dtype)
    loss, sigma = superloss(losses, 2.0, 1.0)
    exact_loss, exact_sigma = superloss(losses.double(), 2.0, 1.0)
    assert loss.dtype == sigma.dtype == dtype
    assert torch.equal(loss, exact_loss.to(dtype))
    assert torch.equal(sigma, exact_sigma.to(dtype))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stays_visible(value: float) -> None:
    loss, _ = superloss(torch.tensor([1.0, value]), 2.0, 1.0)
    assert loss.isfinite().tolist() == [True, False]


@pytest.mark.parametrize(
    ("tau", "lam", "message"),
    [(1.0, 0.0, "lambda"), (1.0, -1.0, "lambda"), (1.0, math.nan, "lambda"), (math.inf, 1.0, "tau")],
)
def test_unusable_settings_are_errors_that_name_them(tau: float, lam: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        superloss(torch.ones(2), tau, lam)


# -- as the loss of a learner --------------------------------------------------------------------------------------


def mislabeled() -> tuple[Blobs, Tensor]:
    """Return data of which some samples have a wrong label, and which."""
    data = Blobs(n=60)
    wrong = torch.arange(60) % 10 == 0
    labels = data.pool.labels(torch.arange(60)).clone()
    labels[wrong] = (labels[wrong] + 1) % 3
    data.pool._labels = labels
    return data, wrong


def test_a_learner_trained_with_superloss_gives_hard_samples_less_weight() -> None:
    data, wrong = mislabeled()
    labels = data.pool.labels(torch.arange(60))
    params: dict[str, Any] = {"epochs": 40, "weight_decay": 0.0}
    losses = []
    for options in ({"loss": "cross-entropy"}, {"loss": "superloss", "lam": 0.25}):
        learner = fit(Linear(**params, **options), data.labeled())
        losses.append(F.cross_entropy(logits(learner, data.inputs), labels, reduction="none"))
    plain, curriculum = losses
    assert curriculum[wrong].mean() > plain[wrong].mean() + 0.1
    assert curriculum[~wrong].mean() < plain[~wrong].mean()


def test_cross_entropy_is_the_default_and_takes_no_lambda() -> None:
    data = Blobs()
    plain, other = (logits(fit(quick(MLP, **params), data.labeled()), data.inputs) for params in ({}, {"lam": 0.25}))
    assert torch.equal(plain, other)


def test_segmentation_learners_have_no_option_that_would_do_nothing() -> None:
    assert {"loss", "lam"}.isdisjoint(inspect.signature(DRND22).parameters)


@pytest.mark.parametrize(
    ("params", "message"),
    [({"loss": "hinge"}, "loss is one of"), ({"lam": 0.0}, "lam must be"), ({"lam": "1"}, "lam must be")],
)
def test_unusable_options_of_a_learner_are_errors_that_name_them(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(MLP(**params), Blobs().labeled())
