"""Sizes that a case is measured at, and the products that it is held against."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from poolwright_benchmarks.machine import device_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def ladder(
    top: int, scale: float, *, steps: int, least: int = 1, row_bytes: int = 0, device: str = "cpu"
) -> tuple[int, ...]:
    """Return sizes up to `top` times `scale`, small ones first.

    Parameters
    ----------
    top : int
        The size of the table of targets.
    scale : float
        Multiplies it.
    steps : int
        How many sizes: each is four times the one before; of two, eight times.
    least : int
        No size is smaller.
    row_bytes : int
        Bytes of the data per unit: the largest size takes at most an eighth of the memory on the CPU, since peers copy
        it, and six eighths on a device.
    device : {"cpu", "cuda"}
    """
    largest = max(least, int(top * scale))
    if row_bytes:
        largest = max(least, min(largest, device_bytes(device) // 8 * (6 if device == "cuda" else 1) // row_bytes))
    factor = 8 if steps == 2 else 4
    return tuple(sorted({max(least, largest // factor**step) for step in range(steps)}))


def normal_rows(n: int, d: int, device: str, dtype: torch.dtype | None = None, seed: int = 0) -> Tensor:
    """Return (n, d) standard normal numbers, made where they are used."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    out = torch.empty((n, d), dtype=dtype or torch.float32, device=device)
    return out.normal_(generator=generator)


def product(width: int, device: str, dtype: torch.dtype | None = None) -> tuple[Callable[[], Any], float]:
    """Return a matrix product over `width` columns, and its FLOPs: what a refresh cannot be faster than.

    float32 products are float32 throughout: torch leaves TF32 off unless it is asked for.
    """
    rows, columns = (16384, 8192) if device == "cuda" else (8192, 1024)
    a = normal_rows(rows, width, device, dtype)
    b = normal_rows(columns, width, device, dtype)
    return lambda: a @ b.T, 2.0 * rows * columns * width


def arithmetic(device: str) -> str:
    """Return what our k-center and seeding multiply where it is not the type of the data, or an empty string."""
    from poolwright import kernels

    info = kernels.build_info()
    if device == "cuda":
        return "bfloat16 on tensor cores, and measures again in float32 what that leaves open"
    if info["native"] and info["level"] == "amx":
        return "bfloat16 on AMX tiles (level amx), and again in float32 what that leaves open"
    return ""


def native_backend(device: str) -> tuple[str, str]:
    """Return the backend of ours that belongs to a device, and why it is not there, or an empty string."""
    from poolwright import kernels

    info = kernels.build_info()
    if device == "cuda":
        return "cuda", "" if info["cuda"] else info["reason"] or info["cuda_compiler"]
    return "native", info["reason"]


def cpu_only(device: str) -> str:
    """Return why a peer without CUDA code is missing on this device, or an empty string."""
    return "runs on the CPU only" if device == "cuda" else ""
