"""What the command line shows: progress of a run, findings of a check, the doctor's table."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .events import Event

if TYPE_CHECKING:
    from .spec import Experiment
    from .testing import Finding

console = Console()


def stderr_logging() -> None:
    """Show warnings of the engine on stderr, one line each."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)


class RunDisplay:
    """The progress of an experiment: a bar over all labels to buy, and one for a plugin's own long loop.

    Where the output is no terminal, a line is printed for each finished run instead.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._total_runs = len(experiment.strategies) * len(experiment.seed_list)
        self._budget = max(1, experiment.budget)
        self._runs_done = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("reading data", total=self._total_runs * self._budget)
        self._loop = self._progress.add_task("", total=None, visible=False)

    def __enter__(self) -> RunDisplay:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event.kind == "progress":
            total = event.total or None
            self._progress.update(
                self._loop, description=f"  {event.text}", completed=event.done, total=total, visible=True
            )
            return
        self._progress.update(self._loop, visible=False)
        done = self._runs_done * self._budget
        if event.kind in ("run", "failed"):
            self._finished(event)
        else:
            what = f"{event.text}" if event.kind == "phase" else "done"
            description = f"{event.strategy}, seed {event.seed}, cycle {event.cycle}: {what}"
            self._progress.update(self._bar, description=f"{description:<48}", completed=done + event.done)

    def _finished(self, event: Event) -> None:
        if event.kind == "failed":
            print(f"poolwright: {event.strategy}, seed {event.seed}: {event.text}", file=sys.stderr)  # noqa: T201
            return
        self._runs_done += 1
        self._progress.update(self._bar, completed=self._runs_done * self._budget)
        if not console.is_terminal:
            console.print(
                f"run {self._runs_done}/{self._total_runs}: {event.strategy}, seed {event.seed}, {event.cycle} cycles",
                highlight=False,
            )


def show_findings(title: str, findings: Sequence[Finding]) -> None:
    """Print one line a rule, then the count."""
    console.print(title, style="bold", highlight=False)
    for finding in findings:
        style = {"pass": "green", "FAIL": "bold red", "skip": "yellow"}[finding.outcome]
        console.print(f"  [{style}]{finding.outcome}[/{style}]  ", end="")
        reason = f": {finding.reason}" if finding.reason else ""
        console.print(f"{finding.rule}{reason}", markup=False, highlight=False, soft_wrap=True)
    failed = sum(finding.failed for finding in findings)
    console.print(f"{len(findings)} rules, {failed} broken" if failed else f"{len(findings)} rules, none broken")


def show_doctor(environment: Mapping[str, str]) -> bool:
    """Print what is installed, chosen and broken; return whether all is well."""
    from rich.table import Table

    rows, well = _doctor_rows(environment)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(f"[bold]{name}[/bold]", value)
    console.print(table)
    return well


def _doctor_rows(environment: Mapping[str, str]) -> tuple[list[tuple[str, str]], bool]:
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch
    from rich.markup import escape

    from . import __version__, kernels
    from .catalog import Catalog

    rows = [
        ("poolwright", __version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())),
    ]
    for name in ("torch", "torchvision", "numpy", "scikit-learn", "pluggy"):
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, "[red]not installed[/red]"))
    if torch.cuda.is_available():
        rows.append(("CUDA device", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))))
    else:
        rows.append(("CUDA device", "none that torch can use: everything runs on the CPU"))
    facts = {key: value for key, value in kernels.build_info().items() if value not in ("", None, {}, [])}
    rows += [(f"kernels: {key.replace('_', ' ')}", escape(_plain(value))) for key, value in facts.items()]
    rows += [(name, escape(environment[name])) for name in sorted(environment) if name.startswith("POOLWRIGHT_")]
    problems = [problem for entry in Catalog().entries() if (problem := entry.problem())]
    rows.append(("plugins", f"[red]{len(problems)} broken[/red]" if problems else "all can be imported"))
    rows += [("", escape(problem)) for problem in problems]
    return rows, not problems


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "none"
    return (
        {True: "yes", False: "no", None: "none"}.get(value, str(value))
        if isinstance(value, (bool, type(None)))
        else str(value)
    )
