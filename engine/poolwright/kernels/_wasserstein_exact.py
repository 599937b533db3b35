"""Exact optimal transport: C++, or scipy and POT behind the same face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolwright.kernels import reference
from poolwright.kernels._native_build import native
from poolwright.kernels._wasserstein_inputs import Side
from poolwright.kernels._wasserstein_sliced import line_costs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def exact_native(x: Side, y: Side, p: float, memory_limit: int) -> Floats:
    """Return the (pairs,) distances from the C++ solvers, on as many threads as torch uses."""
    import numpy as np
    import torch

    distances = np.empty(len(x))
    native().transport_exact(
        [points.cpu() for points in x.sets],
        x.spans,
        [points.cpu() for points in y.sets],
        y.spans,
        distances,
        x_weights=x.weights,
        y_weights=y.weights,
        p=p,
        memory_limit=memory_limit,
        threads=torch.get_num_threads(),
    )
    return distances


def native_error(x: Side, y: Side, p: float) -> Floats:
    """Return, for each pair, by what share the cost of the native plan may exceed the optimum."""
    import numpy as np

    d = np.array([points.shape[1] for points in x.sets])[x.spans[:, 0]].astype(np.float64)
    # Sums of d terms in float32, twice: the plan's costs and the optimum's. Products lose a factor of 16, since they
    # are kept from an eighth of both norms on. Then powers, and rounding to 2^-48 of the largest (2^-20 of the plan's).
    squares = np.where(d < 48, d + 4, 16 * (d + 4)) * 2.0**-24
    costs = 2 * (max(1.0, p / 2) * squares + 2.0**-23) + 2.0**-19
    line = 8 * (x.sizes + y.sizes + p) * 2.0**-52
    return np.asarray(np.minimum(np.where(d == 1, line, costs), 1.0))


def pot_missing() -> str:
    """Return why POT is not there, or an empty string where it is."""
    try:
        import ot  # noqa: F401
    except ImportError as error:
        return f"POT does not import ({error}): pip install pot"
    return ""


def needs_pot(x: Side, y: Side) -> NDArray[np.bool_]:
    """(pairs,) whether neither sorting nor an assignment solves a pair."""
    import numpy as np

    line = np.array([side_d == 1 for side_d in (x.sets[number].shape[1] for number in x.spans[:, 0].tolist())])
    return np.asarray(~line & ~((x.sizes == y.sizes) & x.uniform() & y.uniform()))


def exact_peers(x: Side, y: Side, p: float, memory_limit: int, *, pot_only: bool) -> tuple[Floats, Floats]:
    """Return the (pairs,) distances, and the same less what their solvers may have lost to rounding.

    Pair after pair in float64: sorting for d = 1 and scipy's assignment for equal sizes and uniform weights unless
    ``pot_only``, POT's network simplex for the rest. No weight is 0.
    """
    import numpy as np
    import torch

    with_pot = np.full(len(x), True) if pot_only else needs_pot(x, y)
    if with_pot.any() and pot_missing():
        raise RuntimeError(
            f"pair {x.spans[int(np.argmax(with_pot)), 3]} has unequal sizes or weights, which without native kernels "
            f'is left to POT, and {pot_missing()}; or use method="sinkhorn"'
        )
    distances, lower = np.empty(len(x)), np.empty(len(x))
    for i in range(len(x)):
        points_x, points_y = x.points(i).cpu().to(torch.float64), y.points(i).cpu().to(torch.float64)
        n, m = len(points_x), len(points_y)
        check_bytes(int(x.spans[i, 3]), n, m, exact_peer_bytes(n * m), memory_limit)
        if points_x.shape[1] == 1 and not with_pot[i]:
            a, b = torch.from_numpy(x.weights_of(i)), torch.from_numpy(y.weights_of(i))
            costs, unit = line_costs(points_x, points_y, a, b, p)
            value = float(costs[0])
        else:
            costs, unit = reference.transport_costs(points_x, points_y, p)
            value = _solve(costs.numpy(), x.weights_of(i), y.weights_of(i), bool(with_pot[i]))
        distances[i] = unit * value ** (1 / p)
        # Relative to the largest cost, which is 1: potentials are sums of up to n + m costs.
        lower[i] = unit * max(0.0, value - (n + m + p) * 2.0**-48) ** (1 / p)
    return distances, lower


def _solve(costs: Floats, a: Floats, b: Floats, with_pot: bool) -> float:
    if not with_pot:
        from scipy.optimize import linear_sum_assignment

        return float(costs[linear_sum_assignment(costs)].mean())
    import ot

    value, log = ot.emd2(a, b / b.sum() * a.sum(), costs, numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"POT's emd2 gave up: {log['warning']}")
    return max(float(value), 0.0)


def exact_reference(x: Side, y: Side, p: float, memory_limit: int) -> Floats:
    """Return the (pairs,) distances as linear programs."""
    import numpy as np

    for i in range(len(x)):
        n, m = int(x.sizes[i]), int(y.sizes[i])
        check_bytes(int(x.spans[i, 3]), n, m, exact_peer_bytes(n * m), memory_limit)
    return np.array([_reference_pair(x, y, i, p) for i in range(len(x))])


def _reference_pair(x: Side, y: Side, i: int, p: float) -> float:
    return reference.wasserstein(x.points(i), y.points(i), p=p, a=x.weights_of(i), b=y.weights_of(i))


def exact_peer_bytes(entries: Any) -> Any:
    """Return what `exact_peers` needs for a cost matrix: itself, a copy in the solver, and its arcs."""
    return 4 * 8 * entries


def check_bytes(pair: int, n: int, m: int, need: int, memory_limit: int, other: str = "") -> None:
    """Raise where a pair needs more than the limit; `other` says what another method needs."""
    if need > memory_limit:
        raise ValueError(
            f"memory_limit = {memory_limit} bytes is too little for pair {pair} ({n} and {m} points): at least {need} "
            f"are needed{other}"
        )


def pair_bytes(x: Side, y: Side, pairs: Any) -> int:
    """Return what the largest of the pairs needs of the native solvers."""
    import torch

    largest = 0
    for i in pairs:
        points_x, points_y = x.points(i), y.points(i)
        need = native().transport_bytes(
            len(points_x),
            len(points_y),
            points_x.shape[1],
            wide=torch.float64 in (points_x.dtype, points_y.dtype),
        )
        largest = max(largest, need)
    return largest
