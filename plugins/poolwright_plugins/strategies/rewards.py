"""Rewards that can be used by themselves, with any strategy that learns: ``reward = "accuracy-gain"``."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from poolwright import ConfigError, Cycle, hookimpl

from .bral_t.trustset import Importance, Measure, evenness, trust_set_reward

Over = Literal["batch", "labeled"]


class AccuracyGain:
    """Reward a batch by the change of a validation metric since the last batch that was kept.

    Unlike the engine's default reward, it refuses to run without validation data.

    Source: r_t = Acc(after) - Acc(before), as in Jiu et al., *SRAL*, 2026, equation 2.

    Parameters
    ----------
    metric : str, optional
        Name of the metric; the task's headline metric (accuracy in classification) by default.
    """

    needs = frozenset({"validation"})

    def __init__(self, *, metric: str | None = None) -> None:
        self.metric = metric

    @hookimpl
    def reward(self, cycle: Cycle) -> float:
        """Return the change."""
        metric = cycle.task.headline if self.metric is None else self.metric
        return _metric("accuracy-gain", cycle.metrics, metric) - _metric("accuracy-gain", cycle.baseline or {}, metric)


class PrecisionPerLabel:
    """Reward a batch by the change of validation precision per label.

    r = P(B_{t+1}) / B_{t+1} - P(B_t) / B_t: P is the precision, weighted by class frequency, and B how many labels the
    learner was fitted on. Summed over the cycles, the rewards are the last share minus the first.

    Source: *ABAS-RAL*, 2024, equation 1.
    """

    needs = frozenset({"validation"})
    tasks = frozenset({"classification"})

    @hookimpl
    def reward(self, cycle: Cycle) -> float:
        """Return the change since the cycle before."""
        before = cycle.history[-1]
        now = _metric("precision-per-label", cycle.metrics, "precision") / len(cycle.pool.labeled)
        return now - _metric("precision-per-label", before.validation, "precision") / before.labeled


class TrustSetDistance:
    """Reward a batch by minus its Wasserstein distance to the TrustSet of the labeled samples.

    The TrustSet has as many samples as the batch, the same number of every class, those with the highest EL2N or GraNd
    score (see ``bral-t``). The unit is that of the learner's embeddings.

    Source: BRAL-T, equations 4 and 8; see ``bral-t``.

    Parameters
    ----------
    importance : {"el2n", "grand"}
        Score of a labeled sample: length of the error vector, or norm of the gradient in the last layer.
    curriculum : bool
        Weight the score by SuperLoss's confidence.
    lam : float
        SuperLoss's lambda, above 0.
    tau : float, optional
        SuperLoss's tau; log(classes) by default.
    order : float
        p of the Wasserstein distance W_p, at least 1.
    """

    needs = frozenset({"probabilities", "embeddings", "labels"})
    tasks = frozenset({"classification"})

    def __init__(
        self,
        *,
        importance: Measure = "el2n",
        curriculum: bool = True,
        lam: float = 1.0,
        tau: float | None = None,
        order: float = 1,
    ) -> None:
        self.importance = importance
        self.curriculum = curriculum
        self.lam = lam
        self.tau = tau
        self.order = order

    @hookimpl
    def reward(self, cycle: Cycle, batch: Tensor) -> float:
        """Return -W(batch, TrustSet)."""
        importance = Importance(self.importance, self.curriculum, self.lam, self.tau)
        importance.check("trustset-distance")
        return trust_set_reward(cycle, batch, importance, self.order, None, 1, "trustset-distance")


class ClassBalance:
    """Reward a batch by how even its classes are, or by how much more even it made those of all labeled samples.

    Evenness is the entropy of the classes' shares over log(classes): 1 where all are equally frequent, 0 where there
    is one alone.

    Source: rewards for balance go back to TAILOR (Zhang et al., *Algorithm Selection for Deep Active Learning with
    Imbalanced Datasets*, NeurIPS 2023), which counts labels by class; the entropy of the shares is ours.

    Parameters
    ----------
    over : {"batch", "labeled"}
        The evenness of the batch, in [0, 1]; or the change of that of the labeled samples, in [-1, 1].
    """

    needs = frozenset({"labels"})
    tasks = frozenset({"classification"})

    def __init__(self, *, over: Over = "batch") -> None:
        self.over = over

    @hookimpl
    def reward(self, cycle: Cycle, batch: Tensor) -> float:
        """Return the evenness, or its change."""
        if self.over not in get_args(Over):
            raise ConfigError(f"class-balance: over is one of {', '.join(get_args(Over))}, not {self.over!r}")
        if self.over == "batch":
            return evenness(cycle.labels(batch), cycle.n_classes)
        labeled = cycle.pool.labeled
        before = labeled[~torch.isin(labeled, batch)]
        return evenness(cycle.labels(labeled), cycle.n_classes) - evenness(cycle.labels(before), cycle.n_classes)


def _metric(plugin: str, metrics: dict[str, float], name: str) -> float:
    """Return one metric, or refuse in the name of ``plugin``."""
    if name not in metrics:
        raise ConfigError(f"{plugin}: unknown metric {name!r}; there are: {', '.join(sorted(metrics)) or 'none'}")
    return metrics[name]
