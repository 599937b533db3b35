"""Stopping criteria: end a run before its budget is spent."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import torch
from torch import Tensor

from poolwright import ConfigError, Cycle, hookimpl

BLOCK_BYTES = 2**26


def agreement(ids: Tensor, classes: Tensor, other_ids: Tensor, other_classes: Tensor) -> float | None:
    """Return the share of samples present in both sets of predictions whose predicted class is the same.

    Parameters
    ----------
    ids, other_ids : Tensor
        int64, each ascending.
    classes, other_classes : Tensor
        int64, the predicted class of each id.

    Returns
    -------
    float or None
        Between 0 and 1; None when no sample is in both.
    """
    shared = torch.isin(ids, other_ids)
    if not shared.any():
        return None
    other_shared = torch.isin(other_ids, ids)
    return float((classes[shared] == other_classes[other_shared]).double().mean())


class StopWhen:
    """End the run once the learner is good enough, or once its predictions have settled.

    Either criterion ends the run; at least one has to be set.

    - ``threshold``: a validation metric has reached it. Needs validation data.
    - ``stable``: in so many cycles in a row, the share of unlabeled samples whose predicted class is the same
      as in the cycle before has been at least ``agreement``. A cycle that shares no unlabeled sample with the
      one before starts the count again.

    Source: stabilizing predictions follows Bloodgood and Vijay-Shanker, *A Method for Stopping Active
    Learning Based on Stabilizing Predictions and the Need for User-Adjustable Stopping*, CoNLL 2009, with
    plain agreement on the unlabeled pool where they measure Cohen's kappa on a stop set.

    Parameters
    ----------
    metric : str, optional
        Name of the validation metric; the task's headline metric by default.
    threshold : float, optional
        The value of ``metric`` at which to stop.
    stable : int, optional
        How many cycles in a row have to agree with the one before.
    agreement : float
        The share that counts as agreement, above 0 and at most 1.
    """

    def __init__(
        self,
        *,
        metric: str | None = None,
        threshold: float | None = None,
        stable: int | None = None,
        agreement: float = 0.99,
    ) -> None:
        self.metric = metric
        self.threshold = threshold
        self.stable = stable
        self.agreement = agreement
        self._ids = torch.empty(0, dtype=torch.int64)
        self._classes = torch.empty(0, dtype=torch.int64)
        self._agreed = 0

    @property
    def needs(self) -> frozenset[str]:
        """``validation`` for the threshold, ``probabilities`` for stable predictions."""
        return frozenset(
            name
            for name, wanted in (("validation", self.threshold), ("probabilities", self.stable))
            if wanted is not None
        )

    @hookimpl(wrapper=True)
    def update(self, cycle: Cycle) -> Generator[None, object, object]:
        """Compare the predictions of this cycle with those of the cycle before."""
        result = yield
        self._check()
        if self.stable is not None:
            ids, classes = cycle.pool.unlabeled, predicted_classes(cycle)
            share = agreement(ids, classes, self._ids, self._classes)
            if share is not None:
                cycle.log("agreement", share)
            self._agreed = self._agreed + 1 if share is not None and share >= self.agreement else 0
            self._ids, self._classes = ids.clone(), classes
        return result

    @hookimpl(wrapper=True)
    def select(self, cycle: Cycle) -> Generator[None, Tensor, Tensor]:
        """Return the inner selection, or no ids when the run is to end."""
        result = yield
        self._check()
        settled = self.stable is not None and self._agreed >= self.stable
        return torch.empty(0, dtype=torch.int64) if settled or self._reached(cycle) else result

    def _reached(self, cycle: Cycle) -> bool:
        if self.threshold is None:
            return False
        metric = cycle.task.headline if self.metric is None else self.metric
        if not cycle.metrics:
            raise ConfigError(
                f"stop-when: {metric!r} is measured on validation data, and there is none: "
                f"set [dataset] validation = 0.1"
            )
        if metric not in cycle.metrics:
            raise ConfigError(f"stop-when: unknown metric {metric!r}; there are: {', '.join(sorted(cycle.metrics))}")
        return cycle.metrics[metric] >= self.threshold

    def _check(self) -> None:
        if self.threshold is None and self.metric is not None:
            raise ConfigError(f"stop-when: metric = {self.metric!r} needs a threshold at which to stop")
        if self.threshold is None and self.stable is None:
            raise ConfigError("stop-when has no criterion: set threshold (of a metric), or stable (a number of cycles)")
        if self.stable is not None and (not isinstance(self.stable, int) or self.stable < 1):
            raise ConfigError(f"stop-when: stable must be an integer of at least 1, not {self.stable!r}")
        if not 0 < self.agreement <= 1:
            raise ConfigError(f"stop-when: agreement must be above 0 and at most 1, not {self.agreement!r}")

    def state_dict(self) -> dict[str, Any]:
        """Return the predictions of the cycle before and how many cycles have agreed."""
        return {"ids": self._ids, "classes": self._classes, "agreed": self._agreed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self._ids, self._classes = state["ids"], state["classes"]
        self._agreed = int(state["agreed"])


def predicted_classes(cycle: Cycle) -> Tensor:
    """Return the most probable class of each unlabeled sample, int64 ``(n_unlabeled,)``, on the CPU."""
    rows = cycle.rows("probabilities")
    parts = [block.argmax(1).cpu() for _, block in rows.blocks(min(BLOCK_BYTES, rows.memory_limit))]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
