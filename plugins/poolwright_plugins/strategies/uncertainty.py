"""Uncertainty sampling: prefer the samples whose predicted class distribution is least decided."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from poolwright import Cycle, hookimpl

BLOCK_BYTES = 2**26
"""Probabilities read at a time: temporaries stay small however large the pool is."""


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy in nats of each row of ``(n, classes)``, shape ``(n,)``; 0 log 0 counts as 0."""
    terms: Tensor = torch.special.entr(probabilities)
    return terms.sum(1)


def least_confidence(probabilities: Tensor) -> Tensor:
    """Return one minus the largest probability of each row of ``(n, classes)``, shape ``(n,)``."""
    return 1 - probabilities.amax(1)


def margin(probabilities: Tensor) -> Tensor:
    """Return the largest minus the second largest entry of each row of ``(n, classes)``, shape ``(n,)``."""
    best = probabilities.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


def blockwise(measure: Callable[[Tensor], Tensor], cycle: Cycle) -> Tensor:
    """Return ``measure`` of the unlabeled samples' probabilities, ``(n_unlabeled,)``, read in blocks."""
    rows = cycle.rows("probabilities")
    parts = [measure(block) for _, block in rows.blocks(min(BLOCK_BYTES, rows.memory_limit))]
    return torch.cat(parts) if parts else torch.empty(0)


class Entropy:
    """Score by the entropy of the predicted class distribution.

    score(x) = - sum_c p(c|x) log p(c|x)

    Source: Settles, *Active Learning Literature Survey*, University of Wisconsin-Madison 2009, section 3.1;
    the entropy is Shannon's (1948).
    """

    needs = frozenset({"probabilities"})

    @hookimpl
    def score(self, cycle: Cycle) -> Tensor:
        """Return entropies in nats, float32 ``(n_unlabeled,)``."""
        return blockwise(entropy, cycle)


class LeastConfidence:
    """Score by how little the most probable class is trusted.

    score(x) = 1 - max_c p(c|x)

    Source: Lewis and Gale, *A Sequential Algorithm for Training Text Classifiers*, SIGIR 1994; in this form
    for more than two classes: Culotta and McCallum, AAAI 2005.
    """

    needs = frozenset({"probabilities"})

    @hookimpl
    def score(self, cycle: Cycle) -> Tensor:
        """Return 1 - max p, float32 ``(n_unlabeled,)``."""
        return blockwise(least_confidence, cycle)


class Margin:
    """Score by how close the two most probable classes are.

    score(x) = p(second|x) - p(first|x), at most 0: the smallest margin is the highest score.

    Source: Scheffer, Decomain and Wrobel, *Active Hidden Markov Models for Information Extraction*, IDA 2001.
    """

    needs = frozenset({"probabilities"})

    @hookimpl
    def score(self, cycle: Cycle) -> Tensor:
        """Return negative margins, float32 ``(n_unlabeled,)``."""
        return -blockwise(margin, cycle)
