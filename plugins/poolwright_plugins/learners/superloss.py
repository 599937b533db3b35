"""SuperLoss: a curriculum from the losses themselves, in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from poolwright import ConfigError

HALLEY_STEPS = 8
"""From the starting value below, five reach float64 precision everywhere; the others cost nothing."""

BRANCH = 1e-2
"""Up to this distance sqrt(2 (e x + 1)) from the branch point, its series is exact to 1e-12 and Halley's is not."""


def lambert_w(x: Tensor) -> Tensor:
    """Return the principal branch W of the Lambert function: W exp(W) = x.

    Halley's iteration; at the branch point -1/e, where its denominator vanishes, the series around it.

    Parameters
    ----------
    x : Tensor
        Finite, at least -1/e; what lies below counts as -1/e.

    Returns
    -------
    Tensor
        float64, shape of ``x``, at least -1.

    References
    ----------
    R. Corless et al., "On the Lambert W function", Advances in Computational Mathematics 5, 1996, equations 4.22 and
    5.9.
    """
    x = x.double().clamp(min=-1 / math.e)
    p = torch.where(x > -1 / math.e, 2 * (math.e * x + 1), 0).clamp(min=0).sqrt()
    series = -1 + p * (1 + p * (-1 / 3 + p * (11 / 72 + p * (-43 / 540 + p * 769 / 17280))))
    log = x.clamp(min=math.e).log()
    w = torch.where(x > math.e, log - log.log(), torch.where(x > 0, x.clamp(min=-0.5).log1p(), series))
    for _ in range(HALLEY_STEPS):
        power = w.exp()
        excess = w * power - x
        slope = power * (w + 1)
        step = excess / (slope - (w + 2) * excess / (2 * w + 2))
        w = torch.where(p > BRANCH, w - step, series)
    return w


def superloss(losses: Tensor, tau: float, lam: float) -> tuple[Tensor, Tensor]:
    """Return SuperLoss of each sample and the confidence sigma that it gives the sample.

    min over sigma of (l - tau) sigma + lam (log sigma)^2, reached at sigma = exp(-W(max(-2/e, beta) / 2)) with
    beta = (l - tau) / lam and the Lambert function W. Samples with a loss below tau weigh more than 1 (at most e),
    those above weigh less.

    Computed in float64. Sigma is detached; since it minimises the loss, the gradient in l is sigma all the same.

    Parameters
    ----------
    losses : Tensor
        Floating point, any shape: the task's loss of each sample. NaN and infinity come out as NaN.
    tau : float
        What separates easy from hard samples; log(classes) for the cross entropy.
    lam : float
        Above 0; the larger, the closer sigma is to 1.

    Returns
    -------
    loss, sigma : Tensor
        Shape and dtype of ``losses``; sigma in [0, e].

    Raises
    ------
    ConfigError
        ``lam`` is not above 0, or ``tau`` is not finite.

    References
    ----------
    T. Castells, P. Weinzaepfel and J. Revaud, "SuperLoss: a generic loss for robust curriculum learning", NeurIPS 2020,
    equations 1 and 5; BRAL-T's equation 6.
    """
    if not (lam > 0 and math.isfinite(lam)):
        raise ConfigError(f"superloss: lambda must be above 0, not {lam!r}")
    if not math.isfinite(tau):
        raise ConfigError(f"superloss: tau must be a finite number, not {tau!r}")
    excess = losses.double() - tau
    w = lambert_w((excess.detach() / lam).clamp(min=-2 / math.e) / 2)
    sigma = (-w).exp()
    return (excess * sigma + lam * w.square()).to(losses.dtype), sigma.to(losses.dtype)


def super_cross_entropy(logits: Tensor, labels: Tensor, lam: float) -> Tensor:
    """Return the mean SuperLoss of the cross entropy, with tau = log(classes).

    Its gradient in the logits of a sample is sigma (p - onehot(y)) / n.

    Parameters
    ----------
    logits : Tensor
        Floating point ``(n, classes)``.
    labels : Tensor
        int64 ``(n,)``.
    lam : float
        As for :func:`superloss`.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    return superloss(losses, math.log(logits.shape[1]), lam)[0].mean()
