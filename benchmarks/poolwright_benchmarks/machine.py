"""What a reader needs to know of the machine and the software, without names of hosts or users."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy",
    "scipy",
    "torch",
    "triton",
    "scikit-learn",
    "scikit-activeml",
    "fpsample",
    "faiss-gpu",
    "faiss-cpu",
    "POT",
    "geomloss",
)


def facts() -> dict[str, Any]:
    """Return processor, memory, threads, load, versions of the peers, and how the kernels were built."""
    import torch

    from poolwright import kernels

    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": processor(),
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
        found["gpu"] = {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "torch_cuda": torch.version.cuda,
            "float32_products": torch.get_float32_matmul_precision(),
        }
    return found


def tag(found: dict[str, Any], device: str) -> str:
    """Return a name of the machine for files: ``intel-r-xeon-r-processor-2-cores``; no date, no host."""
    name = found["gpu"]["name"] if device == "cuda" else f"{found['cpu']} {found['threads']} threads"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def processor() -> str:
    """Return the model of the processor."""
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        for line in cpus.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def device_bytes(device: str) -> int:
    """Return the memory of the machine or of its first CUDA device."""
    if device == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory)
    return memory_bytes()


def installed(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
