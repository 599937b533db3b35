"""Losses of the adversarial strategies, as functions of tensors.

A batch holds its labeled samples first; ``n_labeled`` says how many. A loss "on L and on U" is the mean over the
labeled part plus the mean over the unlabeled part, whatever their sizes; an empty part adds nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Reconstruction = Literal["mean", "sum"]
Reduction = Literal["mean", "sum"]

ACTIVE_VARIANCE = 0.01
"""Variance of its posterior mean over samples above which a latent dimension is active (Burda et al.)."""


def sample_latents(mu: Tensor, logvar: Tensor) -> Tensor:
    """Return mu + sigma * noise, the reparametrised draw from q(z | x), float ``(n, latent)``."""
    return mu + torch.randn_like(mu) * (0.5 * logvar).exp()


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(N(mu, sigma^2) || N(0, 1)) of each sample in nats, summed over the latent dimensions, ``(n,)``."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)


def reconstruction_error(images: Tensor, reconstructed: Tensor, reconstruction: Reconstruction) -> Tensor:
    """Return the squared error of each image, float32 ``(n,)``.

    "mean": averaged over the pixels and channels. "sum": half its sum, which is -log p(x | z) of a Gaussian decoder
    with variance 1, up to a constant.
    """
    squared = (reconstructed.float() - images.float()).square().flatten(1)
    return squared.mean(1) if reconstruction == "mean" else 0.5 * squared.sum(1)


def on_both_states(values: Tensor, n_labeled: int, reduction: Reduction = "mean") -> Tensor:
    """Return the mean (or sum) of ``values`` over the labeled samples plus that over the unlabeled ones."""
    total = values.new_zeros(())
    for part in (values[:n_labeled], values[n_labeled:]):
        if len(part):
            total = total + (part.mean() if reduction == "mean" else part.sum())
    return total


def adversarial_loss(logits: Tensor, n_labeled: int) -> Tensor:
    """Return what the encoder pays for samples that D does not take for labeled: VAAL eq. 2, SRAAL eq. 6."""
    return on_both_states(F.softplus(-logits), n_labeled)


def discriminator_loss(logits: Tensor, n_labeled: int, indicator: Tensor | None = None) -> Tensor:
    """Return D's binary cross entropy: targets are 1 for labeled samples and 1 - indicator for unlabeled ones.

    Without an indicator the targets of unlabeled samples are 0: VAAL's eq. 3. SRAAL's eq. 5 prints
    log(indicator - D) for them, which is undefined for D >= indicator.

    Parameters
    ----------
    logits : Tensor
        float ``(n,)``, of the labeled samples first.
    indicator : Tensor, optional
        float ``(n - n_labeled,)`` in [0, 1].
    """
    targets = torch.zeros_like(logits)
    targets[:n_labeled] = 1
    if indicator is not None:
        targets[n_labeled:] = 1 - indicator
    return on_both_states(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), n_labeled)


def discriminator_accuracy(logits: Tensor, n_labeled: int) -> Tensor:
    """Return the mean of the shares of labeled and of unlabeled samples that D takes for what they are."""
    return 0.5 * on_both_states(torch.cat([logits[:n_labeled] > 0, logits[n_labeled:] <= 0]).float(), n_labeled)


def discriminator_auc(logits: Tensor, n_labeled: int) -> Tensor:
    """Return how often a labeled sample has the higher logit of a pair, a tie being a half: the area under the ROC.

    Unlike the accuracy it does not depend on a threshold, which relabeled states shift.
    """
    difference = logits[:n_labeled, None] - logits[None, n_labeled:]
    return (0.5 * (1 + difference.sign())).mean()


def told_apart(logits: Tensor, n_labeled: int) -> dict[str, Tensor]:
    """Return how well D tells the two apart, for the log."""
    return {
        "accuracy": discriminator_accuracy(logits, n_labeled),
        "auc": discriminator_auc(logits, n_labeled),
    }


def active_units(variance: Tensor) -> int:
    """Return how many latent dimensions carry information, from the variance of mu over samples, ``(latent,)``.

    None of them does where the posterior has collapsed to the prior. Source: Burda, Grosse and Salakhutdinov,
    *Importance Weighted Autoencoders*, ICLR 2016, section 5.2, whose threshold is 0.01.
    """
    return int((variance > ACTIVE_VARIANCE).sum())


def gaussian_wasserstein(mu: Tensor, variance: Tensor, center: Tensor, spread: Tensor) -> Tensor:
    """Return the 2-Wasserstein distance of diagonal Gaussians N(mu, variance) to N(center, spread), ``(n,)``.

    Parameters
    ----------
    mu, variance : Tensor
        ``(n, latent)``.
    center, spread : Tensor
        ``(latent,)``, mean and variance of the other one.
    """
    squared = (mu - center).square() + (variance.sqrt() - spread.sqrt()).square()
    return squared.sum(1).sqrt()
