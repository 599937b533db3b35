"""k-center: ours against eager torch, the scikit-learn way, fpsample and scikit-activeml; the same picks for all."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from poolwright_benchmarks.harness import (
    MINIMUM_REPEATS,
    Contender,
    available_cores,
    case_record,
    installed,
    measure,
    memory_bytes,
)

if TYPE_CHECKING:
    import numpy as np
    import torch

TITLE = "greedy k-center (farthest point), row 0 labeled"


def cases(device: str, scale: float) -> Iterator[dict[str, int]]:
    """Yield pool sizes for this machine: 50,000 rows a core (CPU) or 1,000,000 rows (GPU) times `scale`.

    No pool takes more than an eighth of the memory, since peers copy it.
    """
    for d, k in ((64, 100), (256, 50)):
        if device == "cuda":
            import torch

            rows, memory = 1_000_000, torch.cuda.get_device_properties(0).total_memory
        else:
            rows, memory = 50_000 * available_cores(), memory_bytes()
        n = max(1000, int(rows * scale))
        yield {"n": min(n, memory // 8 // (4 * d)), "d": d, "k": k}


def run(device: str = "cpu", scale: float = 1.0, repeats: int = MINIMUM_REPEATS) -> list[dict[str, Any]]:
    """Measure every case; return records as of `harness.case_record`."""
    import torch

    records = []
    for case in cases(device, scale):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(case["n"], case["d"], generator=generator).to(device)
        contenders, missing = _contenders(x, case["k"])

        def quality(picks: Any, x: torch.Tensor = x) -> Mapping[str, Any]:
            ids = torch.as_tensor(picks).to(torch.int64).cpu()
            return {"radius": covering_radius(x, ids), "picks": ids.tolist()}

        timings = measure(contenders, repeats=repeats, device=device, quality=quality)
        first = timings[0].quality["picks"]
        for timing in timings:
            picks = timing.quality.pop("picks")
            timing.quality["picks_of_ours"] = sum(a == b for a, b in zip(picks, first, strict=True)) / len(first)
        records.append(case_record({**case, "dtype": "float32", "device": device}, timings, missing))
    return records


def _contenders(x: torch.Tensor, k: int) -> tuple[list[Contender], dict[str, str]]:
    """Return those that can run on this device and in this installation, and why the others cannot."""
    from poolwright import kernels

    info = kernels.build_info()
    ours: Literal["cuda", "native"] = "cuda" if x.is_cuda else "native"
    found: list[Contender] = []
    missing: dict[str, str] = {}
    if info["cuda"] if x.is_cuda else info["native"]:
        found.append(Contender(f"poolwright {ours}", lambda: kernels.k_center(x, k, labeled=[0], backend=ours).indices))
    else:
        missing[f"poolwright {ours}"] = info["reason"] or info["cuda_compiler"]
    found.append(Contender("poolwright torch", lambda: kernels.k_center(x, k, labeled=[0], backend="torch").indices))
    found.append(Contender("torch eager (addmv)", lambda: torch_addmv(x, k)))
    if x.is_cuda:
        for name in ("scikit-learn style", "fpsample", "scikit-activeml"):
            missing[name] = "runs on the CPU only"
        return found, missing
    array = x.numpy()
    found.append(Contender("scikit-learn style", lambda: sklearn_style(array, k)))
    peers: dict[str, Callable[[np.ndarray, int], Any]] = {"fpsample": fpsample, "scikit-activeml": skactiveml}
    for name, peer in peers.items():
        if installed(name) is None:
            missing[name] = f"not installed (pip install {name})"
        else:
            found.append(Contender(name, lambda peer=peer: peer(array, k)))  # type: ignore[misc]
    return found, missing


def torch_addmv(x: torch.Tensor, k: int) -> torch.Tensor:
    """Eager greedy as it is usually written in torch: one matrix-vector product per pick, norms computed once."""
    import torch

    norms = (x * x).sum(dim=1)
    nearest = torch.full_like(norms, torch.inf)
    picks = torch.empty(k, dtype=torch.int64, device=x.device)
    center = torch.zeros((), dtype=torch.int64, device=x.device)
    for i in range(k):
        row = x[center]
        torch.minimum(nearest, torch.addmv(norms, x, row, alpha=-2).add_(norms[center]), out=nearest)
        center = nearest.argmax()
        picks[i] = center
    return picks


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
    """Return the largest distance of a row to row 0 or a pick, in float64 and in blocks: the quality of a pick."""
    import torch

    centers = x[torch.cat([torch.zeros(1, dtype=torch.int64), picks]).to(x.device)].to(torch.float64)
    largest = 0.0
    for block in x.split(16384):
        nearest = torch.full((len(block),), torch.inf, dtype=torch.float64, device=x.device)
        for part in centers.split(64):
            distances = torch.cdist(block.to(torch.float64), part, compute_mode="donot_use_mm_for_euclid_dist")
            nearest = torch.minimum(nearest, distances.amin(dim=1))
        largest = max(largest, float(nearest.max()))
    return largest
