"""k-center: ours against eager torch, the scikit-learn way, fpsample and scikit-activeml; row 0 is labeled for all."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from poolwright_benchmarks.harness import Case, Contender, Problem
from poolwright_benchmarks.sizes import arithmetic, cpu_only, ladder, native_backend, normal_rows, product

if TYPE_CHECKING:
    import numpy as np
    import torch

TITLE = "greedy k-center (farthest point)"
_RADIUS_WORK = {"cpu": 1e11, "cuda": 1e13}


class Size(NamedTuple):
    """Shape of the largest pool of one case, and the picks."""

    n: int
    d: int
    k: int
    dtype: str


TARGETS = {
    "cpu": (Size(200_000, 256, 1000, "float32"),),
    "cuda": (
        Size(1_000_000, 512, 10_000, "float32"),
        Size(10_000_000, 512, 10_000, "bfloat16"),
        Size(100_000_000, 512, 10_000, "bfloat16"),
    ),
}


def cases(device: str, scale: float, steps: int) -> Iterator[Case]:
    """Yield the rows of the table for a device; `scale` multiplies n, and k where it would exceed a tenth of n."""
    pace: dict[str, float] = {}
    for size in TARGETS[device]:
        width = 4 if size.dtype == "float32" else 2
        k = max(10, min(size.k, int(size.n * scale) // 80))
        row_bytes = width * size.d
        sizes = ladder(size.n, scale, steps=steps, least=2 * k, row_bytes=row_bytes, device=device)

        def build(n: int, size: Size = size, k: int = k) -> Problem:
            return problem(n, size.d, k, size.dtype, device)

        settings = {"d": size.d, "k": k, "dtype": size.dtype, "device": device, "labeled": "row 0"}
        work = float(row_bytes * k)
        yield Case(TITLE, settings, "n", sizes, build, work.__mul__, pace)


def problem(n: int, d: int, k: int, dtype: str, device: str) -> Problem:
    """Return the contenders on n rows."""
    import torch

    from poolwright import kernels

    kind = getattr(torch, dtype)
    x = normal_rows(n, d, device, kind)
    backend, missing = native_backend(device)

    def ours() -> Any:
        return kernels.k_center(x, k, labeled=[0], backend=backend)  # type: ignore[arg-type]

    contenders = [
        Contender(f"poolwright {backend}", ours, missing=missing),
        Contender(f"own eager {backend}", lambda: own_eager(x, k), missing=missing),
    ]
    if n > 2_000_000:  # our own eager kernel is the faster one
        return Problem(contenders, _quality(x, k), *product(d, device, kind), arithmetic(device))
    contenders.append(Contender("torch eager (addmv)", lambda: torch_addmv(x, k)))
    if device == "cuda":
        compiled, graph = CompiledLoop(x, k), GraphLoop(x, k)
        triton = ("triton",)
        contenders.append(Contender("torch.compile", compiled.run, requires=triton, prepare=compiled.prepare))
        contenders.append(Contender("torch CUDA graph", graph.run, prepare=graph.prepare))
    array = x.numpy() if dtype == "float32" and device == "cpu" else None
    peers: dict[str, tuple[Callable[..., Any], str, str, int]] = {
        "scikit-learn style": (sklearn_style, "scikit-learn", "sklearn.metrics", 0),
        "fpsample": (fpsample, "fpsample", "fpsample", 4 * n * d),
        "scikit-activeml CoreSet": (skactiveml, "scikit-activeml", "skactiveml.pool", 8 * n * k),
    }
    for name, (peer, package, module, memory) in peers.items():
        reason = cpu_only(device) or ("takes no bfloat16" if array is None else "")
        run = lambda peer=peer: peer(array, k)  # noqa: E731 - one line for three peers
        contenders.append(
            Contender(name, run, requires=(package,), missing=reason, needs_bytes=memory, imports=(module,))
        )

    return Problem(contenders, _quality(x, k), *product(d, device, kind), arithmetic(device))


def _quality(x: torch.Tensor, k: int) -> Callable[[Any], dict[str, Any]]:
    """Return the figures of a result: what it covers, and whether it is what the first contender picked."""
    import torch

    first: list[int] = []
    radii: dict[tuple[int, ...], float] = {}

    def quality(result: Any) -> dict[str, Any]:
        picks = torch.as_tensor(result.indices if isinstance(result, tuple) else result).to(torch.int64).tolist()
        first[:] = first or picks
        key = tuple(picks)
        if key not in radii:
            radii[key] = covering_radius(x, torch.tensor(picks))
        figures: dict[str, Any] = {"radius": radii[key]}
        figures["picks_of_ours"] = sum(a == b for a, b in zip(picks, first, strict=True)) / k
        evaluated = getattr(result, "distances_evaluated", len(x) * k)
        work = {"flops": 2.0 * x.shape[1] * evaluated, "full_flops": 2.0 * x.shape[1] * len(x) * k}
        return figures | {"distances_evaluated": evaluated} | work

    return quality


def own_eager(x: torch.Tensor, k: int) -> torch.Tensor:
    """Our own kernels reading the whole pool once per pick: what laziness gains."""
    import torch

    from poolwright.kernels import _native

    nearest = torch.full((len(x),), torch.inf, dtype=torch.float32, device=x.device)
    eligible = torch.ones(len(x), dtype=torch.uint8, device=x.device)
    indices = torch.empty(k, dtype=torch.int64, device=x.device)
    index = torch.zeros(1, dtype=torch.int64, device=x.device)
    key, value = torch.empty_like(index), torch.empty(1, dtype=torch.float32, device=x.device)
    for i in range(k):
        eligible.index_fill_(0, index, 0)
        center = x.index_select(0, index).to(torch.float32)
        if x.is_cuda:  # nothing here waits for the device
            stream = torch.cuda.current_stream(x.device).cuda_stream
            key.zero_()
            _native.cuda_k_center_fold(x, center, nearest, eligible, key, stream=stream)
            _native.cuda_k_center_decode(key, index, value, stream=stream)
        else:
            index[0] = _native.k_center_fold(x, center, nearest, eligible, threads=torch.get_num_threads())[0]
        indices[i : i + 1] = index
    return indices


def _step(
    x: torch.Tensor, norms: torch.Tensor, nearest: torch.Tensor, center: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fold one center into the squared distances; return them and the farthest row, without leaving the device."""
    import torch

    row = x.index_select(0, center).flatten()
    distances = torch.addmv(norms, x, row, alpha=-2) + norms.index_select(0, center)
    nearest = torch.minimum(nearest, distances)
    return nearest, nearest.argmax().reshape(1)


def _start(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    import torch

    norms = torch.linalg.vector_norm(x, dim=1, dtype=torch.float32).square().to(x.dtype)
    return norms, torch.full_like(norms, torch.inf), torch.zeros(1, dtype=torch.int64, device=x.device)


def torch_addmv(x: torch.Tensor, k: int, step: Callable[..., Any] = _step) -> torch.Tensor:
    """Eager greedy as it is usually written in torch: one matrix-vector product per pick, norms computed once."""
    import torch

    norms, nearest, center = _start(x)
    picks = torch.empty(k, dtype=torch.int64, device=x.device)
    for i in range(k):
        nearest, center = step(x, norms, nearest, center)
        picks[i : i + 1] = center
    return picks


class CompiledLoop:
    """The same with the step compiled by torch."""

    def __init__(self, x: torch.Tensor, k: int) -> None:
        self.x, self.k = x, k

    def prepare(self) -> None:
        import torch

        self.step = torch.compile(_step)
        torch_addmv(self.x, 2, self.step)

    def run(self) -> torch.Tensor:
        return torch_addmv(self.x, self.k, self.step)


class GraphLoop:
    """The same with the step recorded as a CUDA graph and replayed: no launch overhead."""

    def __init__(self, x: torch.Tensor, k: int) -> None:
        self.x, self.k = x, k

    def prepare(self) -> None:
        import torch

        x = self.x
        self.norms, self.nearest, self.center = _start(x)
        self.count = torch.zeros(1, dtype=torch.int64, device=x.device)
        self.picks = torch.empty(self.k, dtype=torch.int64, device=x.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # workspaces are made outside the recording
            self._step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._step()

    def _step(self) -> None:
        nearest, center = _step(self.x, self.norms, self.nearest, self.center)
        self.nearest.copy_(nearest)
        self.center.copy_(center)
        self.picks.index_copy_(0, self.count, center)
        self.count += 1

    def run(self) -> torch.Tensor:
        import torch

        self.nearest.fill_(torch.inf)
        self.center.zero_()
        self.count.zero_()
        for _ in range(self.k):
            self.graph.replay()
        return self.picks.clone()


def sklearn_style(x: np.ndarray, k: int) -> np.ndarray:
    """The loop of the public core-set implementations: scikit-learn's distances to the newest center."""
    import numpy as np
    from sklearn.metrics import pairwise_distances

    nearest = np.full(len(x), np.inf)
    picks = np.empty(k, dtype=np.int64)
    center = 0
    for i in range(k):
        np.minimum(nearest, pairwise_distances(x, x[center : center + 1]).ravel(), out=nearest)
        picks[i] = center = int(nearest.argmax())
    return picks


def fpsample(x: np.ndarray, k: int) -> Any:
    """fpsample's exact sampling, from row 0, which it returns as the first pick."""
    return importlib.import_module("fpsample").fps_sampling(x, k + 1, start_idx=0)[1:]


def skactiveml(x: np.ndarray, k: int) -> Any:
    """scikit-activeml's CoreSet strategy with row 0 labeled."""
    import numpy as np

    labels = np.full(len(x), np.nan)
    labels[0] = 0
    return importlib.import_module("skactiveml.pool").CoreSet(random_state=0).query(X=x, y=labels, batch_size=k)


def covering_radius(x: torch.Tensor, picks: torch.Tensor) -> float:
    """Return the largest distance of a row to row 0 or a pick, in float64: the quality of a pick.

    Over evenly spaced rows where all would take too long; they are the same rows for every contender.
    """
    import torch

    device = "cuda" if x.is_cuda else "cpu"
    limit = max(1, int(_RADIUS_WORK[device] / (x.shape[1] * (len(picks) + 1))))
    rows = x[:: -(-len(x) // limit)]
    centers = x[torch.cat([torch.zeros(1, dtype=torch.int64), picks]).to(x.device)].to(torch.float64)
    norms = (centers * centers).sum(dim=1)
    largest = 0.0
    for block in rows.split(max(1, (256 << 20) // (8 * len(centers)))):
        wide = block.to(torch.float64)
        products = torch.addmm(norms, wide, centers.T, alpha=-2)
        largest = max(largest, float((products.amin(dim=1) + (wide * wide).sum(dim=1)).max()))
    return max(0.0, largest) ** 0.5
