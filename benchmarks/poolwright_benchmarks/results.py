"""Results as tables in the terminal, JSON files and plots."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from poolwright_benchmarks import machine

if TYPE_CHECKING:
    from rich.console import Console

HEADINGS = ("contender", "median s", "min-max", "x ours", "MB", "of sgemm", "full product")


def checkout() -> Path | None:
    """Return the checkout that this package is imported from, or None where it is installed."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "benchmarks" / "results").is_dir() else None


def result_folder() -> Path:
    """Return where JSON files go by default."""
    root = checkout()
    return root / "benchmarks" / "results" if root else Path("benchmarks", "results")


def image_folder() -> Path:
    """Return where plots go by default: into the documentation of a checkout."""
    root = checkout()
    return root / "docs" / "images" if root else Path("benchmarks", "results")


def stem(facts: dict[str, Any], kernel: str, device: str) -> str:
    """Return the name of a kernel's files: kernel and machine, no date, so that a new run replaces the old one."""
    return f"{kernel}-{device}-{machine.tag(facts, device)}"


def save(report: dict[str, Any], path: Path | None, kernel: str, device: str) -> Path:
    """Write the report and return its path; None stands for a file of this kernel alone."""
    if path is None:
        path = result_folder() / f"{stem(report['machine'], kernel, device)}.json"
        report = report | {"kernels": {kernel: report["kernels"][kernel]}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    """Return the value with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- tables ------------------------------------------------------------------------------------------------------


def describe_machine(facts: dict[str, Any]) -> str:
    """Return processor, threads, GPU and how the kernels were built, in a line."""
    kernels = facts["kernels"]
    native = f"native {kernels['level']}, {kernels['compiler']}" if kernels["native"] else kernels["reason"]
    gpu = f"; {facts['gpu']['name']}, CUDA {facts['gpu']['torch_cuda']}" if "gpu" in facts else ""
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, "
        f"{facts['memory_bytes'] / 2**30:.0f} GiB{gpu}; kernels: {native}"
    )


def describe_packages(facts: dict[str, Any]) -> str:
    """Return the versions of the peers."""
    return ", ".join(f"{name} {version}" for name, version in facts["packages"].items())


def columns(rung: dict[str, Any]) -> list[str]:
    """Return the figures of quality that any contender has, in order."""
    return list(dict.fromkeys(name for row in rung["results"] for name in row["quality"]))


def cells(row: dict[str, Any], figures: list[str]) -> list[str]:
    """Return one row of a table as text."""
    seconds = row["seconds"]
    runs = f"{_number(min(seconds))}-{_number(max(seconds))}"
    if row["single"]:
        runs = "one run"
    elif len(seconds) < 5:
        runs += f" ({len(seconds)} runs)"
    share, full = row["share_of_product"], row["full_product"]
    return [
        row["name"],
        _number(row["median"]),
        runs,
        "" if row["times_ours"] is None else f"{row['times_ours']:.3g}",
        "?" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}",
        "" if share is None else f"{100 * share:.0f} %",
        "" if full is None else f"{full:.3g}",
        *(_number(row["quality"].get(name)) for name in figures),
    ]


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.5g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def heading(record: dict[str, Any], rung: dict[str, Any]) -> str:
    """Return the size and what does not change with it, in a line."""
    settings = ", ".join(f"{key} {value}" for key, value in record["settings"].items())
    return f"{record['axis']} {rung[record['axis']]:,}, {settings}"


def product_line(rung: dict[str, Any]) -> str:
    """Return what the matrix product of the same run reached, and what ours multiplies, or an empty string."""
    product = rung.get("product", {})
    if not product.get("flops_per_second"):
        return ""
    line = f"torch's matrix product in the same run: {product['flops_per_second'] / 1e9:,.0f} GFLOP/s"
    return f"{line}; ours multiplies {product['arithmetic_of_ours']}" if product["arithmetic_of_ours"] else line


def print_machine(console: Console, facts: dict[str, Any]) -> None:
    """Print the machine, the peers that are there, and a warning if it is busy."""
    for line in (describe_machine(facts), describe_packages(facts)):
        console.print(line, markup=False, highlight=False)
    if facts["load_average"][0] > 0.5:
        console.print(
            f"load {facts['load_average'][0]:.1f}: the machine is not idle, the figures are noisy", style="yellow"
        )


def print_case(console: Console, record: dict[str, Any]) -> None:
    """Print a table for each size of a case."""
    for rung in record["sizes"]:
        figures = columns(rung)
        table = Table(title=f"{record['title']}\n{heading(record, rung)}", box=SIMPLE_HEAD, pad_edge=False)
        for name in (*HEADINGS, *(figure.replace("_", " ") for figure in figures)):
            table.add_column(name, justify="left" if name == "contender" else "right")
        for row in rung["results"]:
            table.add_row(*cells(row, figures))
        console.print(table)
        for line in (product_line(rung), *(f"not measured: {n}: {r}" for n, r in rung["not_measured"].items())):
            if line:
                console.print(f"  {line}", markup=False, highlight=False)


# -- plots -------------------------------------------------------------------------------------------------------


def plot(records: list[dict[str, Any]], path: Path) -> Path:
    """Draw time against size, log-log, a panel per case and a line per contender; return the path."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # The same data give the same file: no date, no random ids.
    with rc_context({"svg.hashsalt": "poolwright", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7.5 * max(1, len(records)), 5), layout="constrained")
        for panel, record in enumerate(records, 1):
            axes = figure.add_subplot(1, len(records), panel)
            for number, (name, points) in enumerate(_lines(record).items()):
                sizes, seconds = zip(*points, strict=True)
                ours = name.startswith("poolwright")
                axes.plot(
                    sizes, seconds, marker="os^vD<>"[number % 7], linewidth=2.5 if ours else 1.2, label=name, alpha=0.9
                )
            axes.set(xscale="log", yscale="log", xlabel=record["axis"], ylabel="seconds (median)")
            settings = ", ".join(f"{key} {value}" for key, value in record["settings"].items())
            axes.set_title(f"{record['title']}\n{settings}", fontsize=9, wrap=True)
            axes.grid(alpha=0.3, which="both", linewidth=0.5)
            if axes.lines:
                axes.legend(fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    return path


def _lines(record: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    lines: dict[str, list[tuple[int, float]]] = {}
    for rung in record["sizes"]:
        for row in rung["results"]:
            lines.setdefault(row["name"], []).append((rung[record["axis"]], row["median"]))
    return lines
