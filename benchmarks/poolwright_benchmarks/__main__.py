"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from poolwright_benchmarks.harness import MINIMUM_REPEATS, machine

# Each module has TITLE and run(device, scale, repeats).
KERNELS = ("k_center",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks and print a table per case.

    Columns: seconds, times ours, peak memory beyond the start, covering radius, share of picks equal to ours.

    Parameters
    ----------
    arguments : sequence of str, optional
        ``[KERNEL] [--json PATH] [--device cpu|cuda] [--scale F] [--repeats N]``; those of the process by default.

    Returns
    -------
    int
        Exit status: 0, or 2 for arguments that the user can mend (through SystemExit, as argparse does).
    """
    parser = argparse.ArgumentParser(prog="python -m poolwright_benchmarks", description=__doc__)
    parser.add_argument("kernel", nargs="?", choices=KERNELS, help="one kernel; all by default")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every repeat and the machine to this file")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the size of the pools (default 1)")
    parser.add_argument("--repeats", type=int, default=MINIMUM_REPEATS, help="runs of each contender (at least 5)")
    options = parser.parse_args(arguments)
    if options.repeats < MINIMUM_REPEATS:
        parser.error(f"--repeats must be at least {MINIMUM_REPEATS}")
    if options.scale <= 0:
        parser.error("--scale must be positive")
    if options.device == "cuda" and not _has_gpu():
        parser.error("--device cuda: torch finds no CUDA device")

    console = Console()
    report: dict[str, Any] = {"machine": machine(), "kernels": {}}
    _print_machine(console, report["machine"])
    for name in [options.kernel] if options.kernel else KERNELS:
        module = importlib.import_module(f"poolwright_benchmarks.{name}")
        records = module.run(options.device, options.scale, options.repeats)
        report["kernels"][name] = records
        for record in records:
            _print_case(console, module.TITLE, record)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n")
        console.print(f"written to {options.json}")
    return 0


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _print_machine(console: Console, facts: dict[str, Any]) -> None:
    kernels = facts["kernels"]
    native = f"native {kernels['level']}, {kernels['compiler']}" if kernels["native"] else kernels["reason"]
    console.print(
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_bytes'] / 2**30:.0f} GiB, {facts['threads']} threads, "
        f"load {facts['load_average'][0]:.1f}; kernels: {native}",
        markup=False,
        highlight=False,
    )
    if facts["load_average"][0] > 0.5:
        console.print("The machine is not idle: the figures are noisy.", style="yellow")


def _print_case(console: Console, title: str, record: dict[str, Any]) -> None:
    settings = ", ".join(f"{key} {value}" for key, value in record["settings"].items())
    table = Table(title=f"{title}\n{settings}", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("contender", no_wrap=True)
    for column in ("median s", "min-max", "x ours", "MB", "radius", "same"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in record["results"]:
        quality = row["quality"]
        table.add_row(
            row["name"],
            f"{row['median']:.3f}",
            f"{min(row['seconds']):.3f}-{max(row['seconds']):.3f}",
            f"{row['times_ours']:.2f}",
            "?" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}",
            f"{quality['radius']:.5g}",
            f"{100 * quality['picks_of_ours']:.0f} %",
        )
    console.print(table)
    for name, reason in record["missing"].items():
        console.print(f"  not measured: {name}: {reason}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
