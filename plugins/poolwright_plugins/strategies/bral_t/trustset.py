"""Which labeled samples matter most: EL2N and GraNd scores, and the TrustSet that they give."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from poolwright import ConfigError, Cycle, kernels

from ...learners.superloss import superloss
from .._kernels import data_errors

Measure = Literal["el2n", "grand"]


def el2n(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the length of the error vector of each sample, ||p - onehot(y)||_2, in [0, sqrt 2].

    It approximates the norm of the loss gradient (BRAL-T's equation 5 without its last factor).

    Parameters
    ----------
    probabilities : Tensor
        Floating point ``(n, classes)``.
    labels : Tensor
        int64 ``(n,)``, on the same device.

    Returns
    -------
    Tensor
        ``(n,)``, dtype of ``probabilities``.

    References
    ----------
    M. Paul, S. Ganguli and G. K. Dziugaite, "Deep Learning on a Data Diet: Finding Important Examples Early in
    Training", NeurIPS 2021, definition 2.2.
    """
    error = probabilities.clone()
    error[torch.arange(len(error), device=error.device), labels] -= 1
    length: Tensor = torch.linalg.vector_norm(error, dim=1)
    return length


def grand(probabilities: Tensor, labels: Tensor, embeddings: Tensor) -> Tensor:
    """Return the norm of each sample's loss gradient in the last layer's weights and biases.

    The gradient of the cross entropy is (p - onehot(y)) (x) [h; 1], so its norm is ||p - onehot(y)|| sqrt(||h||^2 + 1).

    Parameters
    ----------
    probabilities, labels : Tensor
        As for :func:`el2n`.
    embeddings : Tensor
        Floating point ``(n, d)``: what goes into the last layer.

    Returns
    -------
    Tensor
        ``(n,)``, dtype of ``probabilities``.

    References
    ----------
    Paul et al. 2021 (see :func:`el2n`), definition 2.1, for one fitted network and its last layer.
    """
    length: Tensor = (torch.linalg.vector_norm(embeddings, dim=1).square() + 1).sqrt()
    return el2n(probabilities, labels) * length.to(probabilities.dtype)


def class_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the place of each sample among those of its class, int64 ``(n,)``: 0 for the highest score.

    Equal scores go by row. ``scores`` is ``(n,)`` without NaN, ``labels`` int64 ``(n,)`` on the same device.
    """
    by_score = scores.sort(descending=True, stable=True).indices
    order = by_score[labels[by_score].sort(stable=True).indices]
    counts = torch.bincount(labels)
    first = counts.cumsum(0) - counts
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(order), device=order.device) - first[labels[order]]
    return ranks


def trust_set(scores: Tensor, labels: Tensor, per_class: int, rank: int = 1) -> Tensor:
    """Return which samples are in the TrustSet: of each class the ``per_class`` with the highest scores.

    A class with fewer samples gives all that it has.

    Parameters
    ----------
    scores : Tensor
        ``(n,)``, without NaN; equal ones go by row.
    labels : Tensor
        int64 ``(n,)``, on the same device.
    per_class : int
        At least 1.
    rank : int
        Which group of ``per_class`` samples in the order of their scores: 1 is the TrustSet, 2 the paper's
        DiffSet (section 5.4).

    Returns
    -------
    Tensor
        bool ``(n,)``.
    """
    ranks = class_ranks(scores, labels)
    return (ranks >= (rank - 1) * per_class) & (ranks < rank * per_class)


def balanced_top(scores: Tensor, labels: Tensor, budget: int) -> Tensor:
    """Return the positions of ``budget`` samples, int64: the best of every class, then the second best, and so on.

    A round that does not fit takes its highest scores.
    """
    by_score = scores.sort(descending=True, stable=True).indices
    rounds = class_ranks(scores, labels)[by_score]
    return by_score[rounds.sort(stable=True).indices[:budget]]


@dataclass(frozen=True)
class Importance:
    """How much a labeled sample matters: EL2N or GraNd, weighted by the confidence of SuperLoss.

    Attributes
    ----------
    measure : {"el2n", "grand"}
    curriculum : bool
        Weight by sigma: the gradient of SuperLoss is sigma times that of the cross entropy.
    lam : float
        SuperLoss's lambda.
    tau : float, optional
        SuperLoss's tau; log(classes) by default.
    """

    measure: Measure = "el2n"
    curriculum: bool = True
    lam: float = 1.0
    tau: float | None = None

    def check(self, who: str) -> None:
        """Refuse what is not legal in the name of the plugin ``who``."""
        if self.measure not in get_args(Measure):
            raise ConfigError(f"{who}: importance is one of {', '.join(get_args(Measure))}, not {self.measure!r}")
        if not isinstance(self.lam, (int, float)) or not 0 < self.lam < math.inf:
            raise ConfigError(f"{who}: lam must be a number above 0, not {self.lam!r}")
        if self.tau is not None and (not isinstance(self.tau, (int, float)) or not math.isfinite(self.tau)):
            raise ConfigError(f"{who}: tau must be a finite number, not {self.tau!r}")

    def __call__(self, probabilities: Tensor, labels: Tensor, embeddings: Tensor) -> Tensor:
        """Return a score each, float ``(n,)``; arguments as for :func:`grand`."""
        scores = el2n(probabilities, labels) if self.measure == "el2n" else grand(probabilities, labels, embeddings)
        if not self.curriculum:
            return scores
        # A float32 probability of 0 is one too small for it, not an infinite loss.
        tiny = torch.finfo(probabilities.dtype).tiny
        losses = -probabilities.gather(1, labels[:, None]).squeeze(1).clamp(min=tiny).log()
        tau = math.log(probabilities.shape[1]) if self.tau is None else self.tau
        return scores * superloss(losses, tau, self.lam)[1]


def labeled_trust_set(cycle: Cycle, importance: Importance, size: int, rank: int = 1) -> tuple[Tensor, Tensor]:
    """Return the embeddings of the labeled samples and which of them are in the TrustSet.

    Parameters
    ----------
    cycle : Cycle
        Of a plugin that needs ``probabilities``, ``embeddings`` and ``labels``.
    importance : Importance
    size : int
        Samples in the TrustSet: ``size // classes``, and one at least, of each class.
    rank : int
        As for :func:`trust_set`.

    Returns
    -------
    embeddings, chosen : Tensor
        float32 ``(n_labeled, d)``, and bool ``(n_labeled,)`` on the same device, both in the order of
        ``cycle.pool.labeled``.
    """
    ids = cycle.pool.labeled
    x = cycle.embeddings(ids)
    labels = cycle.labels(ids).to(x.device)
    scores = importance(cycle.probabilities(ids).to(x.device), labels, x)
    return x, trust_set(scores, labels, max(1, size // cycle.n_classes), rank)


def evenness(labels: Tensor, n_classes: int) -> float:
    """Return how even the classes of some samples are: the entropy of their shares over log(classes).

    Parameters
    ----------
    labels : Tensor
        int64 ``(n,)``, in ``0..n_classes - 1``.
    n_classes : int
        At least 2.

    Returns
    -------
    float
        1 where all classes are equally frequent, 0 where there is one alone (or no sample).
    """
    shares = torch.bincount(labels, minlength=n_classes).double() / max(1, len(labels))
    return float(torch.special.entr(shares).sum()) / math.log(n_classes)


def trust_set_reward(
    cycle: Cycle, batch: Tensor, importance: Importance, order: float, size: int | None, rank: int, who: str
) -> float:
    """Return -W(batch, TrustSet of the labeled samples), in units of the embeddings.

    Parameters
    ----------
    cycle : Cycle
        Of a plugin that needs ``probabilities``, ``embeddings`` and ``labels``.
    batch : Tensor
        int64 ``(n,)``: labeled ids, at least one.
    importance, rank
        As for `labeled_trust_set`.
    order : float
        p of W_p.
    size : int, optional
        Of the TrustSet; that of the batch by default.
    who : str
        Name of the plugin, for errors.
    """
    x, trusted = labeled_trust_set(cycle, importance, size or len(batch), rank)
    if not trusted.any():
        raise ConfigError(f"{who}: no class has labeled samples of rank {rank}: lower rank or trust_set")
    rows = torch.searchsorted(cycle.pool.labeled, batch).to(x.device)
    with data_errors(who):
        return -float(kernels.wasserstein(x[rows], x[trusted], p=order))
