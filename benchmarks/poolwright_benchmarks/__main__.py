"""Command line of the benchmarks: ``poolwright bench`` and ``python -m poolwright_benchmarks``."""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from poolwright_benchmarks import machine, results
from poolwright_benchmarks.harness import CAP_SECONDS, MINIMUM_REPEATS, SINGLE_SECONDS, Limits, run_case

# Name -> module with cases(device, scale, steps).
KERNELS = {
    "k-center": "k_center",
    "kmeans": "kmeans",
    "kmeans-plus-plus": "kmeans_plus_plus",
    "badge": "badge",
    "wasserstein": "wasserstein",
    "bures": "bures",
}
QUICK_SCALE, QUICK_CAP, QUICK_SECONDS = 0.05, 2.0, 100.0
# What an option with an optional path holds when the path is left out; argparse would make a Path of a string.
CHOSEN_FOR_YOU = True


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, exit status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="poolwright bench",
        description="Time the kernels beside every peer that is installed: one process, interleaved, median of at "
        "least 5 runs, with peak memory, quality and the matrix product of the same machine.",
    )
    parser.add_argument("kernel", nargs="?", metavar="KERNEL", help=f"one of {', '.join(KERNELS)}; all by default")
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=CHOSEN_FOR_YOU,
        metavar="PATH",
        help="write every run and the machine to this file; without PATH one file a kernel and machine in "
        "benchmarks/results",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        nargs="?",
        const=CHOSEN_FOR_YOU,
        metavar="FOLDER",
        help="draw time against size into this folder, an SVG a kernel; docs/images by default",
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--sweep", action="store_true", help="more sizes, for the plots")
    sizes.add_argument("--largest", action="store_true", help="the largest size of each case alone")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the data lie (default cpu)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="F", help="multiply the sizes (default 1)")
    parser.add_argument(
        "--repeats", type=int, default=MINIMUM_REPEATS, metavar="N", help="runs of each contender, at least 5"
    )
    parser.add_argument(
        "--cap",
        type=float,
        metavar="SECONDS",
        help="what all runs of one contender on one problem may take (default "
        f"{CAP_SECONDS:.0f}): a slower one is run once and marked",
    )
    parser.add_argument(
        "--single",
        type=float,
        metavar="SECONDS",
        help=f"what such a single run may take (default {SINGLE_SECONDS:.0f}, or half the cap if that is less): a "
        "contender that would take longer, by its time on a smaller size, is left out of that size and named",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="SECONDS",
        help="begin nothing that would end later than this; kernels share the time, and what did not fit is named (no "
        "limit by default)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"small sizes (scale {QUICK_SCALE}), cap {QUICK_CAP:.0f}, under two minutes: to see that it works",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks, print a table per case and size, and write what was asked for.

    Parameters
    ----------
    arguments : sequence of str, optional
        As ``--help`` lists them; those of the process by default.

    Returns
    -------
    int
        Exit status: 0, or 2 for arguments that the user can mend (through SystemExit, as argparse does).
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    started = time.monotonic()
    scale = options.scale * (QUICK_SCALE if options.quick else 1)
    cap = options.cap or (QUICK_CAP if options.quick else CAP_SECONDS)
    seconds = options.seconds or (QUICK_SECONDS if options.quick else math.inf)
    steps = 4 if options.sweep else 1 if options.quick or options.largest else 2
    limits = Limits(options.repeats, cap, options.single or min(SINGLE_SECONDS, cap / 2))

    console = Console()
    if not console.is_terminal:
        console.width = 140
    facts = machine.facts()
    results.print_machine(console, facts)
    report: dict[str, Any] = {
        "machine": facts,
        "limits": {"repeats": limits.repeats, "cap": cap, "single": limits.single},
        "kernels": {},
    }
    written: list[Path] = []
    names = [options.kernel] if options.kernel else list(KERNELS)
    for number, name in enumerate(names):
        # What one kernel leaves of its share is shared by those after it.
        now = time.monotonic()
        limits = replace(limits, deadline=now + (started + seconds - now) / (len(names) - number))
        records = report["kernels"][name] = []
        for case in _cases(name, options.device, scale, steps):
            with _progress(console) as show:
                record = run_case(case, limits, options.device, show)
            records.append(record)
            results.print_case(console, record)
            if options.json is not None:
                given = None if options.json is CHOSEN_FOR_YOU else options.json
                path = results.save(report, given, name, options.device)
                written += [path] if path not in written else []
        if options.plot is not None:
            folder = results.image_folder() if options.plot is CHOSEN_FOR_YOU else options.plot
            stem = results.stem(facts, name, options.device)
            written.append(results.plot(records, folder / f"{stem}.svg"))
    for path in written:
        console.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{time.monotonic() - started:.0f} seconds in all", highlight=False)
    return 0


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.kernel is not None and options.kernel not in KERNELS:
        parser.error(f"there is no benchmark called {options.kernel!r}: choose one of {', '.join(KERNELS)}")
    for option in ("json", "plot"):
        if str(getattr(options, option)) in KERNELS:
            parser.error(f"--{option} {getattr(options, option)}: to name a kernel, write it before --{option}")
    if isinstance(options.json, Path) and options.json.is_dir():
        parser.error(f"--json {options.json} is a folder: name a file, or leave PATH out")
    if isinstance(options.plot, Path) and options.plot.exists() and not options.plot.is_dir():
        parser.error(f"--plot {options.plot} is a file: name a folder")
    if options.repeats < MINIMUM_REPEATS:
        parser.error(f"--repeats must be at least {MINIMUM_REPEATS}, not {options.repeats}")
    for name in ("scale", "cap", "single", "seconds"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            parser.error(f"--{name} must be a positive number, not {value}")
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error("--device cuda: torch finds no CUDA device here")


def _cases(name: str, device: str, scale: float, steps: int) -> Iterator[Any]:
    module = importlib.import_module(f"poolwright_benchmarks.{KERNELS[name]}")
    yield from module.cases(device, scale, steps)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """Show what runs now: in place on a terminal, else a line on stderr for each step."""
    if console.is_terminal:
        with console.status("") as status:
            yield lambda text: status.update(text)
    else:
        lines = Console(stderr=True)
        yield lambda text: lines.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
