"""Wasserstein distances of many ragged pairs: ours against POT, scipy, GeomLoss and ot.solve_batch."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from poolwright_benchmarks.harness import Case, Contender, Problem
from poolwright_benchmarks.machine import installed
from poolwright_benchmarks.sizes import cpu_only, ladder, native_backend

if TYPE_CHECKING:
    from torch import Tensor

TITLE = "Wasserstein-2, many pairs"
D = 512
PAIRS = {"cpu": 1000, "cuda": 10_000}
CHECKED = 200
"""Pairs whose distance is held against an exact float64 solution."""


def cases(device: str, scale: float, steps: int) -> Iterator[Case]:
    """Yield equal sizes, then unequal ones, then (many steps) growing ones; `scale` multiplies the number of pairs."""
    for equal in (True, False):
        sizes = ladder(PAIRS[device], scale, steps=min(2, steps), least=20)
        points = "10 to 300 points, " + ("sizes equal within a pair" if equal else "sizes unequal within a pair")
        settings = {"points": points, "weights": "uniform", "d": D, "dtype": "float32", "device": device}

        def build(pairs: int, equal: bool = equal) -> Problem:
            return problem(*random_sizes(pairs, equal), device)

        yield Case(TITLE, settings, "pairs", sizes, build)
    if steps > 2:
        pairs = max(4, int(PAIRS[device] * scale) // 20)
        settings = {"pairs": pairs, "weights": "uniform", "d": D, "dtype": "float32", "device": device}

        def build_equal(n: int) -> Problem:
            return problem([n] * pairs, [n] * pairs, device)

        yield Case(TITLE, settings, "points", (10, 30, 100, 300, 1000), build_equal, lambda n: float(n) ** 2.5)


def random_sizes(pairs: int, equal: bool) -> tuple[list[int], list[int]]:
    """Return the sizes of the sets, 10 to 300 in tens (so that those who batch find some of one shape)."""
    import numpy as np

    draws = np.random.default_rng(0).integers(1, 31, size=(2, pairs)) * 10
    return draws[0].tolist(), draws[0 if equal else 1].tolist()


def problem(n: Sequence[int], m: Sequence[int], device: str) -> Problem:
    """Return the contenders on pairs with n_i and m_i points."""
    import numpy as np
    import torch

    from poolwright import kernels
    from poolwright_benchmarks import transport_pool

    generator = torch.Generator().manual_seed(0)
    xs = [torch.randn(size, D, generator=generator) for size in n]
    ys = [torch.randn(size, D, generator=generator) + 0.1 for size in m]
    on_cpu = [[points.numpy() for points in sets] for sets in (xs, ys)]
    pool = transport_pool.Pool(on_cpu[0], on_cpu[1], torch.get_num_threads())
    xs, ys = [points.to(device) for points in xs], [points.to(device) for points in ys]
    backend, missing = native_backend(device)
    equal = list(n) == list(m)

    def ours(method: str) -> Callable[[], Any]:
        return lambda: kernels.wasserstein(xs, ys, method=method, backend=backend)  # type: ignore[arg-type]

    contenders = [Contender("poolwright native exact", ours("exact"), missing=missing)]
    if device == "cuda":
        native_missing = native_backend("cpu")[1]

        def exact_on_cpu() -> Any:
            there = [[points.cpu() for points in sets] for sets in (xs, ys)]
            return kernels.wasserstein(there[0], there[1], method="exact", backend="native")

        contenders = [
            Contender("poolwright cuda sinkhorn", ours("sinkhorn"), missing=missing),
            Contender("poolwright native exact, copied", exact_on_cpu, missing=native_missing),
        ]
    else:
        contenders.append(Contender("poolwright sinkhorn", lambda: kernels.wasserstein(xs, ys, method="sinkhorn")))
    unequal = "" if equal else "solves equal sizes only"
    contenders += [
        Contender("POT emd2, processes", lambda: pool.run("pot"), requires=("POT",), prepare=pool.start),
        Contender("scipy assignment, processes", lambda: pool.run("scipy"), missing=unequal, prepare=pool.start),
        Contender("GeomLoss, blur 0.01", lambda: geomloss(xs, ys), requires=("geomloss",), imports=("geomloss",)),
        Contender("ot.solve_batch, reg 0.01", lambda: solve_batch(xs, ys), requires=("POT",), imports=("ot",)),
    ]
    if equal:
        contenders.append(
            Contender(
                "scipy assignment, one thread",
                lambda: one_thread(on_cpu),
                missing=cpu_only(device),
                imports=("scipy.optimize",),
            )
        )

    truth: list[Any] = []

    def quality(result: Any) -> dict[str, Any]:
        some = slice(None, None, -(-len(n) // CHECKED))
        if not truth:
            if not equal and installed("POT") is None:
                return {}
            solve = transport_pool.assignment if equal else transport_pool.pot
            wide = [[points.astype(np.float64) for points in sets[some]] for sets in on_cpu]
            truth.append(np.array([solve(x, y) for x, y in zip(*wide, strict=True)]))
        values = result.cpu().numpy() if isinstance(result, torch.Tensor) else np.asarray(result)
        errors = np.abs(values[some] / truth[0] - 1)
        return {"largest_relative_error": float(errors.max()), "not_a_number": int(np.isnan(values).sum())}

    return Problem(contenders, quality, close=pool.close)


def one_thread(sets: Sequence[Sequence[Any]]) -> Any:
    """scipy's assignment pair after pair in this process; the product may use all threads."""
    import numpy as np

    from poolwright_benchmarks.transport_pool import assignment

    return np.array([assignment(x, y) for x, y in zip(*sets, strict=True)])


def by_shape(
    xs: Sequence[Tensor], ys: Sequence[Tensor], limit: int = 1 << 26
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield batches of pairs of one shape, whose costs have at most `limit` entries: ids, (b, n, d), (b, m, d)."""
    import torch

    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        groups[len(x), len(y)].append(i)
    for (n, m), ids in groups.items():
        step = max(1, limit // (n * m))
        for start in range(0, len(ids), step):
            part = ids[start : start + step]
            yield part, torch.stack([xs[i] for i in part]), torch.stack([ys[i] for i in part])


def geomloss(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """GeomLoss' Sinkhorn loss without debiasing, in batches of one shape; its blur is relative to the spread."""
    import torch

    # Its cost for p = 2 is |x - y|^2 / 2.
    blur = 0.01 * float((xs[0] - ys[0].mean(dim=0)).norm(dim=1).mean())
    loss = importlib.import_module("geomloss").SamplesLoss(
        "sinkhorn", p=2, blur=blur, debias=False, backend="tensorized"
    )
    out = torch.empty(len(xs), dtype=torch.float64, device=xs[0].device)
    for ids, x, y in by_shape(xs, ys):
        out[ids] = (2 * loss(x, y)).clamp(min=0).sqrt().to(torch.float64)
    return out


def solve_batch(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """POT's batched log-domain Sinkhorn, in batches of one shape; reg is relative to the mean cost."""
    import torch

    solve = importlib.import_module("ot").solve_batch
    out = torch.empty(len(xs), dtype=torch.float64, device=xs[0].device)
    for ids, x, y in by_shape(xs, ys):
        cost = torch.cdist(x, y).square()
        value = solve(cost, reg=0.01 * float(cost.mean()), method="log_sinkhorn", grad="detach").value_linear
        out[ids] = value.clamp(min=0).sqrt().to(torch.float64)
    return out
