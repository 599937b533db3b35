"""Honest timing: all contenders in one process, interleaved, with what is needed to compare two results."""

from __future__ import annotations

import datetime
import gc
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MINIMUM_REPEATS = 5
PACKAGES = ("numpy", "torch", "scikit-learn", "scikit-activeml", "fpsample")


@dataclass(frozen=True)
class Contender:
    """One way to compute the same thing.

    Attributes
    ----------
    name : str
        As it appears in tables; the first contender of a case is ours.
    run : callable
        No arguments; returns the result, of which `quality` makes figures.
    """

    name: str
    run: Callable[[], Any]


@dataclass
class Timing:
    """What one contender took, in seconds, in the order of the repeats."""

    name: str
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    quality: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure(
    contenders: Sequence[Contender],
    *,
    repeats: int = MINIMUM_REPEATS,
    device: str = "cpu",
    quality: Callable[[Any], Mapping[str, Any]] | None = None,
) -> list[Timing]:
    """Time the contenders in turn, `repeats` times, after one run of each to warm up.

    The runs are interleaved (a b c, b c a, ...), so that a noisy minute or a hot processor hits all of them,
    and none always follows the same other. Peak memory and quality come from the warm-up, which is not timed.

    Parameters
    ----------
    contenders : sequence of Contender
    repeats : int
        At least 5.
    device : str
        "cuda": wait for the device before and after each run, and read its memory.
    quality : callable, optional
        Figures of a result.

    Returns
    -------
    list of Timing
        In the order of the contenders.
    """
    if repeats < MINIMUM_REPEATS:
        raise ValueError(f"repeats must be at least {MINIMUM_REPEATS}, not {repeats}")
    timings = [Timing(contender.name) for contender in contenders]
    for contender, timing in zip(contenders, timings, strict=True):
        result, timing.peak_bytes = _with_peak_memory(contender.run, device)
        timing.quality = dict(quality(result)) if quality is not None else {}
        del result
    for repeat in range(repeats):
        for turn in range(len(contenders)):
            which = (repeat + turn) % len(contenders)
            gc.collect()
            _synchronize(device)
            start = time.perf_counter()
            contenders[which].run()
            _synchronize(device)
            timings[which].seconds.append(time.perf_counter() - start)
    return timings


def _synchronize(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _with_peak_memory(run: Callable[[], Any], device: str) -> tuple[Any, int | None]:
    """Run once; return the result and the bytes in use at the worst moment beyond those before, if they are known.

    On the CPU this is a lower bound: memory that the process kept from an earlier contender is not counted again.
    """
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = run()
        torch.cuda.synchronize()
        return result, torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: start the high-water mark anew
        before = _status("VmRSS")
    except OSError:
        return run(), None
    result = run()
    return result, max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in /proc/self/status")


def machine() -> dict[str, Any]:
    """Return what a reader needs to know of the machine and the software, without names of hosts or users."""
    import torch

    from poolwright import kernels

    cpus = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in cpus.read_text().splitlines() if "model name" in line]
    facts: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": models[0] if models else platform.processor(),
        "cores": available_cores(),
        "memory_bytes": memory_bytes(),
        "load_average": list(os.getloadavg()),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := installed(name)) is not None},
        "threads": torch.get_num_threads(),
        "kernels": kernels.build_info(),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts["gpu"] = {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "torch_cuda": torch.version.cuda,
        }
    return facts


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def installed(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def case_record(settings: Mapping[str, Any], timings: Sequence[Timing], missing: Mapping[str, str]) -> dict[str, Any]:
    """Return one case as plain data: its settings, every repeat, medians and ratios to ours, and what was missing."""
    ours = timings[0].median
    return {
        "settings": dict(settings),
        "results": [
            {**asdict(timing), "median": timing.median, "times_ours": timing.median / ours} for timing in timings
        ],
        "missing": dict(missing),
    }
