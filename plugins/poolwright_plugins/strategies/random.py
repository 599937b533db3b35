"""Random sampling: the baseline that every other strategy has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from poolwright import Cycle, hookimpl


class Random:
    """Draw the batch uniformly from the unlabeled samples, without replacement.

    Every sample gets an independent uniform score, so the highest scores are a uniform draw. As a score,
    randomness can also feed the ``select`` of another strategy (the ablation "SRAL+Random" is ``score =
    "random"``).

    Source: the control of every active-learning study since Lewis and Gale, *A Sequential Algorithm for
    Training Text Classifiers*, SIGIR 1994, section 5.
    """

    needs: frozenset[str] = frozenset()

    @hookimpl
    def score(self, cycle: Cycle) -> Tensor:
        """Return uniform numbers in [0, 1), float64 ``(n_unlabeled,)``."""
        return torch.rand(len(cycle.pool.unlabeled), generator=cycle.generator, dtype=torch.float64)
