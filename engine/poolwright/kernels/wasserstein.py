"""Wasserstein distances between many pairs of point sets."""

from __future__ import annotations

import math
import numbers
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from poolwright.kernels._arguments import say_once
from poolwright.kernels._matrix import default_memory_limit
from poolwright.kernels._native_build import cuda_missing, load, serial_after_fork
from poolwright.kernels._wasserstein_exact import (
    check_bytes,
    exact_native,
    exact_peer_bytes,
    exact_peers,
    exact_reference,
    native_error,
    needs_pot,
    pot_missing,
)
from poolwright.kernels._wasserstein_exact import pair_bytes as native_bytes
from poolwright.kernels._wasserstein_gaussian import gaussian, gaussian_reference
from poolwright.kernels._wasserstein_inputs import Side, pack, read_pairs
from poolwright.kernels._wasserstein_sinkhorn import pair_bytes as sinkhorn_bytes
from poolwright.kernels._wasserstein_sinkhorn import sinkhorn
from poolwright.kernels._wasserstein_sliced import sliced

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from poolwright.kernels._ragged import SinkhornResult

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

Method = Literal["auto", "exact", "sinkhorn", "sliced", "gaussian"]
BackendName = Literal["auto", "reference", "native", "cuda", "torch", "pot"]

_BACKENDS = {
    "exact": ("native", "torch", "pot", "reference"),
    "sinkhorn": ("cuda", "torch"),
    "sliced": ("torch",),
    "gaussian": ("torch", "reference"),
}

# "auto" is exact up to this many entries of the cost matrix: on a CPU (4096 x 4096: seconds, and still faster than
# Sinkhorn there), and for points on a GPU, which it has to copy to the CPU (256 x 256: about a millisecond).
_EXACT_ENTRIES = {"cpu": 1 << 24, "cuda": 1 << 16}

# Powers above this underflow.
_LARGEST_POWER = 32

# Points that a Sinkhorn solver gets in one piece at most, in bytes.
_PACKED_BYTES = 1 << 30


class WassersteinResult(NamedTuple):
    """What `wasserstein` returns with ``bounds=True``; arrays in kind, or scalars for a single pair."""

    distance: Any
    """(pairs,) float64, as without bounds."""
    lower: Any
    """(pairs,) float64: W_p is at least this."""
    upper: Any
    """(pairs,) float64: W_p is at most this; inf where the method knows no bound."""
    method: Any
    """Tuple of str, one a pair (a str for a single pair): the method that was used."""
    converged: Any
    """(pairs,) bool: False where Sinkhorn stopped at ``max_iterations``. The bounds hold all the same."""


def wasserstein(
    xs: Any,
    ys: Any,
    *,
    p: float = 2,
    method: Method = "auto",
    x_weights: Any = None,
    y_weights: Any = None,
    x_offsets: Any = None,
    y_offsets: Any = None,
    backend: BackendName = "auto",
    epsilon: float = 0.01,
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
    projections: int = 128,
    seed: int = 0,
    memory_limit: int | None = None,
    bounds: bool = False,
) -> Any:
    """Compute the distance W_p of many pairs of weighted point sets at once; sizes may differ everywhere.

    Parameters
    ----------
    xs, ys : list of matrices, or one matrix
        Pair i is ``xs[i]`` (n_i, d) and ``ys[i]`` (m_i, d); n_i and m_i from 1, d may differ between pairs. A matrix
        with ``x_offsets`` holds the sets one after the other. A matrix on both sides without offsets is one pair.
        numpy arrays, memory maps or torch tensors (all on one device); float32, float16, bfloat16 or float64, any
        strides; never written. The same object may be repeated: it is not copied. Gradients are ignored.
    p : float
        1 <= p <= 32. The cost is the p-th power of the Euclidean distance. Where the plan costs less than 2^-28
        of the largest cost of a pair, it is improved on float64 costs, which takes longer. Distances below 2^(-90 / p)
        of the largest (4e-4 for p = 8, 0.14 for p = 32) still count as equal in its choice, and the bounds of "exact"
        do not hold for what that loses.
    method : {"auto", "exact", "sinkhorn", "sliced", "gaussian"}
        - "exact": the optimum of the linear program. Equal sizes and uniform weights by shortest augmenting paths,
          O(n^3) at worst; the rest by the network simplex method; d = 1 by sorting, O((n + m) log(n + m)). The plan is
          chosen on costs in float32, from d = 48 on sums of products (off by less than 16 (d + 4) 2^-24 of
          themselves, and mostly far less); the distance is summed in float64 over that plan.
        - "sinkhorn": a feasible plan found with entropic regularization, so never below W_p but for the rounding of
          float32 costs on "cuda"; O(n m (d + iterations)). Backend "cuda" takes float32 and narrower points; float64
          goes to "torch".
        - "sliced": the p-th root of the mean of W_p^p over random directions, a lower bound of W_p. **A proxy for
          ranking only, and only between pairs of one d and of like sizes**: even d times its square is a small and
          varying share of W_2^2 (0.01 to 0.23 for samples of 50 to 300 points of shifted Gaussians, d = 512).
        - "gaussian": W_2 of the Gaussians with the means and covariances (divided by n) of the sets: a lower bound of
          W_2 (Gelbrich 1990), O(n m min(n, m) + n m d) for n, m < d and O((n + m) d^2) for n, m > d.
        - "auto": pair by pair, "exact" where n m <= 2^24 (2^16 for points on a GPU) and the workspace fits
          ``memory_limit``, else "sinkhorn".
    x_weights, y_weights : list of vectors, or one vector, optional
        Laid out like the points; not negative, scaled here to a sum of 1 in each set. Points of weight 0 play no part
        (they may even be NaN). Uniform by default.
    x_offsets, y_offsets : array of int, optional
        (pairs + 1,): set i is the rows ``offsets[i]`` to ``offsets[i + 1]``.
    backend : {"auto", "native", "cuda", "torch", "pot", "reference"}
        "native" (C++, on as many threads as torch uses), "pot" (POT's ``emd2``) and "torch" (scipy's assignment, POT
        where that does not do) solve "exact", copying CUDA points to the CPU; "cuda" and "torch" "sinkhorn"; "torch"
        "sliced" and "gaussian"; "reference" is a linear program, or matrix square roots for "gaussian". "auto" takes
        the first of these that is there and fits the device; the logger ``poolwright.kernels`` says once which.
    epsilon : float
        Regularization of "sinkhorn", as a share of the mean cost of a pair (under the product of its weights); it is
        lowered to this in steps, on "torch" from the mean cost, on "cuda" from the largest. At least 6e-8 of the
        largest cost. Smaller is closer to W_p and slower.
    tolerance : float
        "sinkhorn" has converged for a pair when the L1 violation of its marginals is at most this: of the rows on
        "torch" (the columns are met then), of the columns on "cuda".
    max_iterations : int
        Of "sinkhorn", per pair.
    projections, seed : int
        Directions of "sliced", the same for all pairs of one d.
    memory_limit : int, optional
        Bytes of workspace at most, beside the points; a quarter of the memory by default. "exact" needs one cost
        matrix in float32 (4 n m), 4 (n + 2 m) d bytes for the points (twice that for float64) and under 200 (n + m) for
        the solver, for each thread; it takes fewer threads where the limit is tight.
    bounds : bool
        Return a `WassersteinResult` with bounds: a feasible plan and a dual solution for "sinkhorn", the independent
        coupling above "gaussian", nothing above "sliced". For "exact" ``upper`` is the cost of the plan and ``lower``
        is less by the worst case of its rounded costs (0 for the backend "reference"); both are for weights rounded
        to multiples of about 2^-58 n of their sum (uniform weights are exact).

    Returns
    -------
    array or WassersteinResult
        (pairs,) float64 distances (W_p, not its power): numpy for numpy, else a tensor on the device of the points.
        A float or a tensor of no dimensions for a single pair.

    Raises
    ------
    TypeError, ValueError
        A set, weight or option that is not legal: NaN or infinity, an empty set, another d, negative or all-zero
        weights (the message names the pair), or a limit that does not hold a single pair.
    RuntimeError
        The backend asked for by name, or POT where it is needed, is not there.

    Notes
    -----
    Same result for any number of threads; CPU levels may choose another of several plans that are equally good up to
    the rounding of float32 costs. A set is at distance exactly 0 from itself.

    References
    ----------
    R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems",
    Computing 38, 1987. M. Cuturi, "Sinkhorn distances", NeurIPS 2013, algorithm 1, here in the log domain. J.
    Altschuler, J. Weed and P. Rigollet, "Near-linear time approximation algorithms for optimal transport via Sinkhorn
    iteration", NeurIPS 2017, algorithm 2. D. Dowson and B. Landau, "The Frechet distance between multivariate normal
    distributions", 1982.

    Examples
    --------
    >>> import numpy as np
    >>> from poolwright.kernels import wasserstein
    >>> wasserstein([np.float32([[0], [1]]), np.float32([[5]])], [np.float32([[2], [3]]), np.float32([[1], [9]])])
    array([2., 4.])
    """
    options = _Options(
        p, method, backend, epsilon, tolerance, max_iterations, projections, seed, memory_limit
    ).checked()
    with serial_after_fork():
        x, y, single, numpy = read_pairs(xs, ys, x_weights, y_weights, x_offsets, y_offsets)
        solution = _solve(x, y, options)
        return _in_kind(solution, x, single, numpy, bounds)


@dataclass
class _Options:
    p: float
    method: str
    backend: str
    epsilon: float
    tolerance: float
    max_iterations: int
    projections: int
    seed: int
    memory_limit: int | None

    def checked(self) -> _Options:
        """Return self, or raise for what is not legal whatever the points."""
        for name in ("p", "epsilon", "tolerance"):
            if not isinstance(getattr(self, name), numbers.Real):
                raise TypeError(f"{name} must be a number, not {getattr(self, name)!r}")
        for name in ("max_iterations", "projections", "seed", "memory_limit"):
            if name == "memory_limit" and self.memory_limit is None:
                continue
            try:
                setattr(self, name, operator.index(getattr(self, name)))
            except TypeError:
                raise TypeError(f"{name} must be an integer, not {getattr(self, name)!r}") from None
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed must fit 64 bits, and is {self.seed}")
        if not 1 <= self.p <= _LARGEST_POWER:
            raise ValueError(f"p must be from 1 to {_LARGEST_POWER}, not {self.p}")
        if self.method not in ("auto", *_BACKENDS):
            names = ", ".join(f'"{name}"' for name in ("auto", *_BACKENDS))
            raise ValueError(f"method must be one of {names}, not {self.method!r}")
        backends = ["auto", *dict.fromkeys(name for names in _BACKENDS.values() for name in names)]
        if self.backend not in backends:
            names = ", ".join(f'"{name}"' for name in backends)
            raise ValueError(f"backend must be one of {names}, not {self.backend!r}")
        if self.method == "auto" and self.backend != "auto":
            # A backend asked for by name settles the method: exact where it can.
            self.method = next(name for name, names in _BACKENDS.items() if self.backend in names)
        if self.backend != "auto" and self.backend not in _BACKENDS[self.method]:
            names = ", ".join(f'"{name}"' for name in _BACKENDS[self.method])
            raise ValueError(f'method="{self.method}" runs on {names}, not on {self.backend!r}')
        if self.method == "gaussian" and self.p != 2:
            raise ValueError(f'method="gaussian" is W_2: p must be 2, not {self.p}')
        for name, value in (("epsilon", self.epsilon), ("tolerance", self.tolerance)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive, not {value}")
        for name in ("max_iterations", "projections"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.memory_limit is not None and self.memory_limit < 1:
            raise ValueError(f"memory_limit must be a positive number of bytes, not {self.memory_limit}")
        return self


class _Solution:
    """Results of all pairs, on the CPU; unknown ones are NaN."""

    def __init__(self, pairs: int) -> None:
        import numpy as np

        self.distance = np.full(pairs, np.nan)
        self.lower = np.zeros(pairs)
        self.upper = np.full(pairs, np.inf)
        self.method = np.full(pairs, "", dtype=object)
        self.converged = np.ones(pairs, dtype=bool)


def _solve(x: Side, y: Side, options: _Options) -> _Solution:
    import numpy as np

    solution = _Solution(len(x))
    if len(x) == 0:
        return solution
    device = x.sets[0].device
    limit = default_memory_limit(device) if options.memory_limit is None else options.memory_limit
    methods = _methods(x, y, options, device, limit)
    solution.method[:] = methods
    same = _same(x, y)
    if same.any():
        x.select(np.flatnonzero(same)).without_zero_weights().check_finite()
        solution.distance[same] = solution.upper[same] = 0
    for method in dict.fromkeys(methods.tolist()):
        members = np.flatnonzero((methods == method) & ~same)
        if len(members) == 0:
            _check_backend(options.backend, device)
            continue
        some_x, some_y = (x, y) if len(members) == len(x) else (x.select(members), y.select(members))
        _run(method, some_x, some_y, options, limit, solution, members)
    return solution


def _methods(x: Side, y: Side, options: _Options, device: torch.device, limit: int) -> NDArray[np.object_]:
    """(pairs,) the method of each pair."""
    import numpy as np

    if options.method != "auto":
        return np.full(len(x), options.method, dtype=object)
    entries = x.sizes * y.sizes
    line = np.array([points.shape[1] == 1 for points in x.sets])[x.spans[:, 0]]
    exact = line | (entries <= _EXACT_ENTRIES["cuda" if device.type == "cuda" else "cpu"])
    if not load()[1]:
        # The largest need comes first and is mostly the answer for all.
        if native_bytes(x, y, range(len(x))) > limit:
            exact &= np.array([native_bytes(x, y, [i]) <= limit for i in range(len(x))])
    else:
        if pot_missing():
            exact &= ~needs_pot(x, y)
        exact &= exact_peer_bytes(entries) <= limit
    return np.where(exact, "exact", "sinkhorn").astype(object)


def _run(method: str, x: Side, y: Side, options: _Options, limit: int, solution: _Solution, members: Integers) -> None:
    """Solve pairs by one method into `solution`."""
    import numpy as np

    p, backend = options.p, options.backend
    if method != "exact":
        x, y = x.without_zero_weights(), y.without_zero_weights()
        x.check_finite()
        y.check_finite()
    if method == "exact":
        distance, lower = _exact(x, y, options, limit)
        solution.distance[members] = solution.upper[members] = distance
        solution.lower[members] = lower
    elif method == "sinkhorn":
        _sinkhorn(x, y, options, limit, solution, members)
    elif method == "sliced":
        distance, rounding = sliced(x, y, p, options.projections, options.seed, limit)
        solution.distance[members] = distance
        solution.lower[members] = np.maximum(distance - rounding, 0)
    elif backend == "reference":
        # Matrix square roots lose half the digits near 0: no lower bound but 0.
        solution.distance[members] = gaussian_reference(x, y, limit)
    else:
        solution.distance[members], solution.lower[members], solution.upper[members] = gaussian(x, y, limit)


def _same(x: Side, y: Side) -> NDArray[np.bool_]:
    """(pairs,) whether both sides are the same memory with the same weights: at distance 0 without rounding."""
    import numpy as np

    places: dict[Any, int] = {}
    of = []
    for side in (x, y):
        keys = [(points.data_ptr(), points.dtype, points.shape, points.stride()) for points in side.sets]
        numbers = np.array([places.setdefault(key, len(places)) for key in keys])
        of.append(numbers[side.spans[:, 0]])
    same = (of[0] == of[1]) & (x.spans[:, 1:3] == y.spans[:, 1:3]).all(axis=1)
    if x.weights is not None or y.weights is not None:
        for i in np.flatnonzero(same).tolist():
            same[i] = np.array_equal(x.weights_of(i), y.weights_of(i))
    return np.asarray(same)


def _check_backend(backend: str, device: torch.device) -> None:
    """Raise where the backend asked for by name is not there or does not take the points."""
    if backend == "native" and load()[1]:
        raise RuntimeError(f'backend="native" is not there: {load()[1]}')
    if backend == "cuda" and device.type != "cuda":
        raise ValueError(f'backend="cuda" needs points on a CUDA device, and they are on {device}: use .cuda()')
    if backend == "cuda" and cuda_missing():
        raise RuntimeError(f'backend="cuda" is not there: {cuda_missing()}')


def _exact(x: Side, y: Side, options: _Options, limit: int) -> tuple[Floats, Floats]:
    import numpy as np

    _check_backend(options.backend, x.sets[0].device)
    backend, missing = options.backend, load()[1]
    if backend == "reference":
        x, y = x.without_zero_weights(), y.without_zero_weights()
        x.check_finite()
        y.check_finite()
        distance = exact_reference(x, y, options.p, limit)
        return distance, np.zeros(len(x))  # the linear program says nothing of its tolerance
    if backend == "native" or (backend == "auto" and not missing):
        say_once("wasserstein: exact on backend native")
        distance = exact_native(x, y, options.p, limit)
        return distance, distance * (1 - native_error(x, y, options.p)) ** (1 / options.p)
    if backend == "auto":
        say_once(f"wasserstein: exact on backend torch (scipy and POT), since {missing}")
    x, y = x.without_zero_weights(), y.without_zero_weights()
    x.check_finite()
    y.check_finite()
    return exact_peers(x, y, options.p, limit, pot_only=backend == "pot")


def _sinkhorn(x: Side, y: Side, options: _Options, limit: int, solution: _Solution, members: Integers) -> None:
    import numpy as np
    import torch

    device = x.sets[0].device
    _check_backend(options.backend, device)
    used = {points.dtype for side in (x, y) for points in (side.sets[i] for i in np.unique(side.spans[:, 0]).tolist())}
    on_cuda = options.backend == "cuda" or (options.backend == "auto" and device.type == "cuda" and not cuda_missing())
    if on_cuda and torch.float64 in used:
        if options.backend == "cuda":
            wide = [torch.float64 in (x.points(i).dtype, y.points(i).dtype) for i in range(len(x))].index(True)
            raise ValueError(
                f'pair {x.spans[wide, 3]}: backend="cuda" computes in float32 and the points are float64: convert '
                'them with .float(), or use backend="torch"'
            )
        on_cuda = False
    reason = ", since points are float64" if device.type == "cuda" and torch.float64 in used else ""
    say_once(f"wasserstein: sinkhorn on backend {'cuda' if on_cuda else 'torch'}{reason}")
    # Of several narrow types: all are exact in float32.
    dtype = next(iter(used)) if len(used) == 1 else torch.float64 if torch.float64 in used else torch.float32
    for some in _pieces(x, y, limit, on_cuda, exact_too=options.method == "auto"):
        packed = pack(x.select(some), y.select(some), dtype)
        settings: dict[str, Any] = {
            "p": options.p,
            "epsilon": options.epsilon,
            "tolerance": options.tolerance,
            "max_iterations": options.max_iterations,
            "memory_limit": limit // 2,
        }
        if on_cuda:
            from poolwright.kernels import _sinkhorn_cuda

            found: SinkhornResult = _sinkhorn_cuda.sinkhorn(packed, **settings)
            unit: Any = 1.0
            slack = 1 + _sinkhorn_cuda.cost_error(packed.d, options.p)  # its costs are float32
        else:
            found, units = sinkhorn(packed, **settings)
            slack, unit = 1.0, units.cpu().numpy()
        into = members[some]
        value, lower = found.value.cpu().numpy(), found.lower.cpu().numpy()
        solution.distance[into] = unit * value ** (1 / options.p)
        solution.upper[into] = unit * (slack * value) ** (1 / options.p)
        solution.lower[into] = unit * np.maximum(lower, 0) ** (1 / options.p)
        solution.converged[into] = found.converged.cpu().numpy()


def _pieces(x: Side, y: Side, limit: int, on_cuda: bool, exact_too: bool) -> list[Integers]:
    """Split pairs so that the points of each piece, packed, take at most half the limit; pairs of one d only."""
    import numpy as np

    widths = np.array([points.shape[1] for points in x.sets])[x.spans[:, 0]]
    pieces = []
    for d in np.unique(widths).tolist():
        members = np.flatnonzero(widths == d)
        need = 8 * (d + 1) * (x.sizes[members] + y.sizes[members])
        for k, i in enumerate(members.tolist()):
            n, m = int(x.sizes[i]), int(y.sizes[i])
            workspace = 0 if on_cuda else sinkhorn_bytes(n, m, d)
            other = ""
            if exact_too and not load()[1] and 2 * max(int(need[k]), workspace) > limit:
                other = f' (method="exact": {native_bytes(x, y, [i])})'
            check_bytes(int(x.spans[i, 3]), n, m, 2 * max(int(need[k]), workspace), limit, other)
        begin = used = 0
        for k, bytes_each in enumerate(need.tolist()):
            if k > begin and used + bytes_each > min(limit // 2, _PACKED_BYTES):
                pieces.append(members[begin:k])
                begin, used = k, 0
            used += bytes_each
        pieces.append(members[begin:])
    return pieces


def _in_kind(solution: _Solution, x: Side, single: bool, numpy: bool, bounds: bool) -> Any:
    import torch

    def convert(values: Any) -> Any:
        if numpy or not x.sets:
            return values[0] if single else values
        tensor = torch.from_numpy(values).to(x.sets[0].device)
        return tensor[0] if single else tensor

    if not bounds:
        return convert(solution.distance)
    methods = solution.method.tolist()
    return WassersteinResult(
        convert(solution.distance),
        convert(solution.lower),
        convert(solution.upper),
        methods[0] if single else tuple(methods),
        convert(solution.converged),
    )
