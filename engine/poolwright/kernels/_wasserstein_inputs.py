"""Reading the point sets and weights that `wasserstein` is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from poolwright.kernels._matrix import _share
from poolwright.kernels._ragged import Packed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]


@dataclass
class Side:
    """One side of all pairs: pair i is ``size`` rows from row ``begin`` on of ``sets[set]``, where ``set, begin,
    size, number = spans[i]``.

    Attributes
    ----------
    name : str
        "x" or "y", for messages.
    sets : list of Tensor
        Distinct (rows, d) floating tensors, shared with the caller.
    spans : array
        (pairs, 4) int64; ``number`` is what the caller knows the pair by, for messages.
    weights : array or None
        float64, those of all pairs one after the other, each pair's sum 1; None: uniform.
    """

    name: str
    sets: list[Tensor]
    spans: Integers
    weights: Floats | None

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def sizes(self) -> Integers:
        """(pairs,) number of points."""
        return self.spans[:, 2]

    def points(self, pair: int) -> Tensor:
        """Return the points of a pair, shared."""
        of, begin, size, _ = self.spans[pair].tolist()
        points: Tensor = self.sets[of][begin : begin + size]
        return points

    def weights_of(self, pair: int) -> Floats:
        """Return the weights of a pair, also where they are uniform."""
        import numpy as np

        if self.weights is None:
            return np.full(self.sizes[pair], 1 / self.sizes[pair])
        begin = int(self._starts[pair])
        return self.weights[begin : begin + int(self.sizes[pair])]

    def uniform(self) -> NDArray[np.bool_]:
        """(pairs,) whether all points of a pair weigh the same."""
        import numpy as np

        if self.weights is None:
            return np.ones(len(self), dtype=bool)
        starts = self._starts
        smallest = np.minimum.reduceat(self.weights, starts)
        return np.asarray(smallest == np.maximum.reduceat(self.weights, starts))

    @cached_property
    def _starts(self) -> Integers:
        import numpy as np

        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    def select(self, pairs: Integers) -> Side:
        """Return some of the pairs."""
        import numpy as np

        weights = None
        if self.weights is not None:
            starts = self._starts
            parts = [self.weights[starts[i] : starts[i] + self.sizes[i]] for i in pairs]
            weights = np.concatenate(parts) if parts else np.empty(0)
        return Side(self.name, self.sets, self.spans[pairs], weights)

    def without_zero_weights(self) -> Side:
        """Return the same without the points that weigh nothing; only pairs that have some are copied."""
        import numpy as np
        import torch

        if self.weights is None or self.weights.all():
            return self
        sets, spans, starts = list(self.sets), self.spans.copy(), self._starts
        for i in np.flatnonzero(np.minimum.reduceat(self.weights, starts) == 0).tolist():
            points = self.points(i)
            kept = np.flatnonzero(self.weights[starts[i] : starts[i] + len(points)])
            spans[i, :3] = len(sets), 0, len(kept)
            sets.append(points[torch.from_numpy(kept).to(points.device)])
        return Side(self.name, sets, spans, self.weights[self.weights > 0])

    def check_finite(self) -> None:
        """Raise where a point is NaN or infinite, naming the pair."""
        import torch

        for i in range(len(self)):
            points = self.points(i)
            # One pass without a temporary is enough, unless the sum itself overflows.
            if not bool(points.sum().isfinite()) and not bool(torch.isfinite(points).all()):
                raise ValueError(
                    f"pair {self.spans[i, 3]}: {self.name} holds NaN or infinity: drop or fill those points, "
                    "or give them weight 0"
                )


def read_pairs(
    xs: Any, ys: Any, x_weights: Any, y_weights: Any, x_offsets: Any, y_offsets: Any
) -> tuple[Side, Side, bool, bool]:
    """Return both sides, whether it is one pair given as two matrices, and whether all of it came as numpy."""
    import torch

    x, one_x, numpy_x = _read_side("x", xs, x_weights, x_offsets)
    y, one_y, numpy_y = _read_side("y", ys, y_weights, y_offsets)
    if one_x != one_y:
        single, other = ("xs", "ys") if one_x else ("ys", "xs")
        count = len(y if one_x else x)
        raise ValueError(f"{single} is one set and {other} are many: repeat it ([set] * {count}; no copy is made)")
    if len(x) != len(y):
        raise ValueError(f"xs holds {len(x)} point sets and ys {len(y)}: there must be as many")
    devices = {points.device for side in (x, y) for points in side.sets}
    if len(devices) > 1:
        raise ValueError(f"all points must be on one device, and are on {', '.join(sorted(map(str, devices)))}")
    widths = [torch.tensor([points.shape[1] for points in side.sets] or [0])[side.spans[:, 0]] for side in (x, y)]
    for i in torch.nonzero(widths[0] != widths[1]).flatten().tolist():
        raise ValueError(f"pair {i}: x has {int(widths[0][i])} dimensions and y has {int(widths[1][i])}")
    for i in torch.nonzero(widths[0] == 0).flatten().tolist():
        raise ValueError(f"pair {i}: the points have no dimensions")
    return x, y, one_x, numpy_x and numpy_y


def _read_side(name: str, sets: Any, weights: Any, offsets: Any) -> tuple[Side, bool, bool]:
    import numpy as np

    matrix = hasattr(sets, "shape") and len(sets.shape) == 2
    if offsets is not None:
        if not matrix:
            raise ValueError(f"{name}_offsets are for {name}s in one matrix (rows, d); a list of sets needs none")
        points, numpy = _points(f"{name}s", sets)
        bounds = _offsets(name, offsets, len(points))
        count = len(bounds) - 1
        spans = np.stack([np.zeros(count, np.int64), bounds[:-1], np.diff(bounds), np.arange(count)], axis=1)
        side = Side(name, [points], spans, None)
        if weights is not None:
            flat = _vector(f"{name}_weights", weights)
            if len(flat) != len(points):
                raise ValueError(f"{name}_weights has {len(flat)} entries, and {name}s has {len(points)} rows")
            side.weights = flat[bounds[0] : bounds[-1]]
        one = False
    else:
        one = matrix
        if not matrix and not isinstance(sets, Sequence) and len(getattr(sets, "shape", ())) != 3:
            raise TypeError(f"{name}s must be a matrix, a list of matrices, or a matrix and {name}_offsets")
        items: list[Any] = [sets] if matrix else list(sets)
        if weights is not None and matrix:
            weights = [weights]
        distinct: dict[int, int] = {}
        numbers: list[int] = []
        tensors: list[Tensor] = []
        kinds: list[bool] = []
        for i, item in enumerate(items):
            number = distinct.setdefault(id(item), len(tensors))
            if number == len(tensors):
                points, from_numpy = _points(f"{name}s" if matrix else f"{name}s[{i}]", item)
                if len(points) == 0:
                    raise ValueError(f"pair {i}: {name} has no points")
                tensors.append(points)
                kinds.append(from_numpy)
            numbers.append(number)
        spans = np.zeros((len(items), 4), np.int64)
        spans[:, 3] = np.arange(len(items))
        spans[:, 0] = numbers
        spans[:, 2] = [len(tensors[number]) for number in numbers]
        side, numpy = Side(name, tensors, spans, None), all(kinds)
        if weights is not None:
            if len(weights) != len(items):
                raise ValueError(f"{name}_weights holds weights of {len(weights)} sets, and {name}s holds {len(items)}")
            vectors = [_vector(f"{name}_weights of pair {i}", vector) for i, vector in enumerate(weights)]
            for i, vector in enumerate(vectors):
                if len(vector) != side.sizes[i]:
                    raise ValueError(f"pair {i}: {name} has {side.sizes[i]} points and {len(vector)} weights")
            side.weights = np.concatenate(vectors) if vectors else None
    if side.weights is not None and len(side):
        side.weights = _normalized(side)
    return side, one, numpy


def _points(name: str, value: Any) -> tuple[Tensor, bool]:
    """Return a matrix as a tensor that shares its memory where torch can, and whether it came as numpy."""
    import numpy as np
    import torch

    numpy = not isinstance(value, torch.Tensor)
    if numpy:
        if not hasattr(value, "shape"):
            raise TypeError(f"{name} must be a numpy array or a torch tensor, not {type(value).__name__}")
        array = np.asarray(value)
        if array.dtype.kind != "f" or array.dtype.itemsize > 8:
            raise TypeError(
                f"{name} must be float32, float16, bfloat16 or float64, not {array.dtype}: convert it first"
            )
        usable = array.dtype.isnative and all(s >= 0 and s % array.itemsize == 0 for s in array.strides)
        tensor = _share(array if usable else np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    else:
        tensor = value.detach()
        if tensor.layout != torch.strided or tensor.dtype not in (
            torch.float32,
            torch.float16,
            torch.bfloat16,
            torch.float64,
        ):
            raise TypeError(
                f"{name} must be a dense tensor of float32, float16, bfloat16 or float64, not {value.dtype}"
            )
    if tensor.ndim != 2:
        raise ValueError(f"{name} must be a matrix (points, dimensions), not of shape {tuple(tensor.shape)}")
    return tensor, numpy


def _offsets(name: str, value: Any, rows: int) -> Integers:
    import numpy as np
    import torch

    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iu":
        raise ValueError(f"{name}_offsets must be pairs + 1 integers")
    bounds = array.astype(np.int64)
    if bounds[0] < 0 or bounds[-1] > rows:
        raise ValueError(f"{name}_offsets run from {bounds[0]} to {bounds[-1]}, and {name}s has {rows} rows")
    for i in np.flatnonzero(np.diff(bounds) <= 0).tolist():
        raise ValueError(f"pair {i}: {name} has no points ({name}_offsets must grow)")
    return bounds


def _vector(name: str, value: Any) -> Floats:
    import numpy as np
    import torch

    array = value.detach().cpu().to(torch.float64).numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be a vector of numbers, not {array.dtype} of shape {array.shape}")
    return array.astype(np.float64)


def _normalized(side: Side) -> Floats:
    """Return the weights with a sum of 1 in each pair."""
    import numpy as np

    weights, starts = side.weights, side._starts
    assert weights is not None
    for message, good in (
        ("holds NaN or infinity", np.isfinite(weights)),
        ("is negative somewhere", weights >= 0),
    ):
        if not good.all():
            pair = int(np.searchsorted(starts, int(np.argmin(good)), side="right")) - 1
            raise ValueError(f"pair {pair}: {side.name}_weights {message}")
    largest = np.maximum.reduceat(weights, starts)
    for i in np.flatnonzero(largest == 0).tolist():
        raise ValueError(f"pair {i}: {side.name}_weights are all zero")
    # By the largest first: the sum of very large weights could overflow, that of very small ones vanish.
    scaled = weights / np.repeat(largest, side.sizes)
    return np.asarray(scaled / np.repeat(np.add.reduceat(scaled, starts), side.sizes))


def scale_together(x: Tensor, y: Tensor) -> Tensor:
    """Divide float64 sets (pairs, n, d) and (pairs, m, d), in place, by a power of two a pair, so that the largest
    coordinate is below 1; returns these (pairs,). Exact, but for what is too small to matter beside it."""
    import torch

    largest = torch.maximum(x.abs().amax(dim=(1, 2)), y.abs().amax(dim=(1, 2)))
    exponents = torch.frexp(largest).exponent
    # In two steps, since 2^exponent itself may not be a number.
    halves = exponents // 2, exponents - exponents // 2
    for half in halves:
        factor = torch.ldexp(torch.ones_like(largest), -half)[:, None, None]
        x *= factor
        y *= factor
    return torch.ldexp(torch.ldexp(torch.ones_like(largest), halves[0]), halves[1])


def pack(x: Side, y: Side, dtype: torch.dtype) -> Packed:
    """Return pairs in one piece, in a copy."""
    import torch

    parts: list[Any] = []
    for side in (x, y):
        device = side.sets[0].device
        points = torch.cat([side.points(i).to(dtype) for i in range(len(side))])
        offsets = torch.zeros(len(side) + 1, dtype=torch.int64)
        offsets[1:] = torch.from_numpy(side.sizes).cumsum(0)
        sizes = torch.from_numpy(side.sizes.copy())
        if side.weights is None:
            weights = (1 / sizes.to(torch.float64)).repeat_interleave(sizes)
        else:
            weights = torch.from_numpy(side.weights)
        parts.append((points, offsets.to(device), weights.to(device), tuple(side.sizes.tolist())))
    (px, ox, wx, sx), (py, oy, wy, sy) = parts
    return Packed(px, py, ox, oy, wx, wy, sx, sy)
