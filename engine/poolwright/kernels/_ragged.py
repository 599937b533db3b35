"""Pairs of weighted point sets of many sizes in one piece, as the batched Sinkhorn solvers take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """The pairs; every tensor lies on one device and is contiguous.

    Attributes
    ----------
    x, y : Tensor
        (sum n_i, d) and (sum m_i, d): the points of all pairs one after the other, finite. Same dtype:
        float32, float16 or bfloat16, or float64 (which only the torch solver takes).
    x_offsets, y_offsets : Tensor
        (pairs + 1,) int64: pair i has the rows ``x_offsets[i]`` to ``x_offsets[i + 1]`` (excluded), at least
        one on each side.
    a, b : Tensor
        (sum n_i,) and (sum m_i,) float64 or float32: weights, each not negative; those of one pair sum to 1
        up to rounding, on both sides. Zeros are legal.
    x_sizes, y_sizes : tuple of int
        The differences of the offsets, known on the host without asking the device.
    """

    x: Tensor
    y: Tensor
    x_offsets: Tensor
    y_offsets: Tensor
    a: Tensor
    b: Tensor
    x_sizes: tuple[int, ...]
    y_sizes: tuple[int, ...]

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.x_sizes)

    @property
    def d(self) -> int:
        """Number of dimensions."""
        return int(self.x.shape[1])

    @property
    def device(self) -> torch.device:
        """Where everything lies."""
        return self.x.device


class SinkhornResult(NamedTuple):
    """What a Sinkhorn solver says of each pair; each a (pairs,) tensor on the device of the points.

    The cost is ``sum_ij P_ij ||x_i - y_j||^p``: the p-th power of the distance.
    """

    value: Tensor
    """float64: cost of a feasible plan (the entropic one rounded to the marginals: Altschuler, Weed and
    Rigollet 2017, algorithm 2); at least the exact cost, but for the rounding of the costs."""
    lower: Tensor
    """float64: the dual objective at a feasible point; at most the exact cost."""
    iterations: Tensor
    """int64: iterations done, over all values of epsilon."""
    converged: Tensor
    """bool: the marginals were met within the tolerance before the iterations ran out."""
