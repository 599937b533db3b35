"""What the command line shows: progress of a run, findings of a check, the doctor's table."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .events import Event

if TYPE_CHECKING:
    from .spec import Experiment
    from .testing import Finding

console = Console()

Run = tuple[str, int]
"""Label of the strategy, and seed."""
INITIAL = -1
"""The cycle in which an initial pool is selected, which belongs to no run."""


def stderr_logging() -> None:
    """Show warnings of the engine on stderr, one line each."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)


class RunDisplay:
    """The progress of an experiment: a bar over all labels to buy, and one for a plugin's own long loop.

    Where several runs go on side by side, the second bar is there for each of them, over its labels or its loop.
    Where the output is no terminal, a line is printed for each finished run instead.
    """

    def __init__(self, experiment: Experiment, jobs: int = 1) -> None:
        self._total_runs = len(experiment.strategies) * len(experiment.seed_list)
        self._several = min(jobs, self._total_runs) > 1
        self._budget = max(1, experiment.budget)
        self._runs_done = 0
        self._bought: dict[Run, int] = {}
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
        self._bars: dict[Run, TaskID] = {}
        self._drawing: set[Run] = set()

    def __enter__(self) -> RunDisplay:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        run = event.strategy, event.seed
        if event.cycle == INITIAL:
            self._drawing.add(run)
            self._show_loop(run, event)
        elif event.kind == "progress":
            self._show_loop(run, event)
        elif event.kind == "failed":
            print(f"poolwright: {event.strategy}, seed {event.seed}: {event.text}", file=sys.stderr)  # noqa: T201
        elif event.kind == "run":
            self._finished(event)
        else:
            self._drawn(event.seed)
            self._bought[run] = event.done
            what = f"{event.text}" if event.kind == "phase" else "done"
            description = f"{event.strategy}, seed {event.seed}, cycle {event.cycle}: {what}"
            if self._several:
                self._show(run, f"  {description}", event.done, self._budget)
                description = f"{self._runs_done} of {self._total_runs} runs done, {len(self._bought)} going on"
            else:
                self._hide(run)
            completed = self._runs_done * self._budget + sum(self._bought.values())
            self._progress.update(self._bar, description=f"{description:<48}", completed=completed)

    def _show_loop(self, run: Run, event: Event) -> None:
        where = (
            f"{event.strategy}, seed {event.seed}: "
            if event.strategy and (self._several or event.cycle == INITIAL)
            else ""
        )
        self._show(run, f"  {where}{event.text}", event.done, event.total or None)

    def _show(self, run: Run, description: str, done: int, total: int | None) -> None:
        if run not in self._bars:
            self._bars[run] = self._progress.add_task(description, total=total)
        self._progress.update(self._bars[run], description=description, completed=done, total=total, visible=True)

    def _drawn(self, seed: int) -> None:
        """Remove the bar of a seed's initial pool, which is there once a run of the seed goes on."""
        for run in [run for run in self._drawing if run[1] == seed]:
            self._drawing.remove(run)
            self._progress.remove_task(self._bars.pop(run))

    def _hide(self, run: Run) -> None:
        if run in self._bars:
            self._progress.update(self._bars[run], visible=False)

    def _finished(self, event: Event) -> None:
        run = event.strategy, event.seed
        self._runs_done += 1
        self._bought.pop(run, None)
        if run in self._bars:
            self._progress.remove_task(self._bars.pop(run))
        completed = self._runs_done * self._budget + sum(self._bought.values())
        self._progress.update(self._bar, completed=completed)
        if not console.is_terminal:
            console.print(
                f"run {self._runs_done}/{self._total_runs}: {event.strategy}, seed {event.seed}, {event.cycle} cycles",
                highlight=False,
            )


class PolicyDisplay:
    """The progress of a policy's training: a bar over its share, and one for the strategy's own long loop.

    Where the output is no terminal, a line is printed for every twentieth of the training instead, with the time that
    is left if the rest is as slow.
    """

    def __init__(self) -> None:
        self.label = self.plugin = ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=3600,  # pieces may take minutes
        )
        self._bar = self._progress.add_task("reading data", total=None)
        self._loop: TaskID | None = None
        self._began: tuple[float, float] | None = None
        self._told = 0.0

    def __enter__(self) -> PolicyDisplay:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event.kind == "policy" and event.value is not None:
            self.plugin = event.text
            self._share(event.strategy, event.value)
        elif event.kind == "progress":
            if self._loop is None:
                self._loop = self._progress.add_task("")
            self._progress.update(
                self._loop, description=f"  {event.text}", completed=event.done, total=event.total or None
            )
        elif event.kind == "phase":
            self._progress.update(self._bar, description=f"first labels: {event.text}")

    def _share(self, label: str, share: float) -> None:
        now = time.monotonic()
        if self._began is None:  # a training that goes on begins where it was stopped
            self.label, self._began, self._told = label, (now, share), share
            if share:
                console.print(f"going on with {label}: {share:.0%} done", markup=False, highlight=False)
            self._progress.remove_task(self._bar)
            self._bar = self._progress.add_task(f"training {label}", total=1)
            self._progress.update(self._bar, completed=share)
            return
        self._progress.update(self._bar, completed=share)
        began, first = self._began
        if not console.is_terminal and share > first and share >= min(1.0, self._told + 0.05):
            left = timedelta(seconds=round((now - began) * (1 - share) / (share - first)))
            console.print(f"training {label}: {share:.0%} done, about {left} left", markup=False, highlight=False)
            self._told = share


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
    rows += [(name, escape(value)) for name, value in _choices(kernels.build_info())]
    facts = {key: value for key, value in kernels.build_info().items() if value not in ("", None, {}, [])}
    rows += [(f"kernels: {key.replace('_', ' ')}", escape(_plain(value))) for key, value in facts.items()]
    rows += [(name, escape(environment[name])) for name in sorted(environment) if name.startswith("POOLWRIGHT_")]
    problems = [problem for entry in Catalog().entries() if (problem := entry.problem())]
    rows.append(("plugins", f"[red]{len(problems)} broken[/red]" if problems else "all can be imported"))
    rows += [("", escape(problem)) for problem in problems]
    return rows, not problems


def _choices(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the kernels run on here, and why; ``info`` is that of `kernels.build_info`."""
    import torch

    threads = f"{torch.get_num_threads()} (torch's; the kernels and FAISS take the same number)"
    return [
        ("threads", threads),
        ("on the CPU", _cpu_choice(info)),
        ("on CUDA", _cuda_choice(info)),
        ("FAISS", _faiss()),
        ("POT", _pot(info["native"])),
    ]


def _cpu_choice(info: Mapping[str, Any]) -> str:
    if not info["native"]:
        return f"kernels run on torch: {info['reason']}"
    if info["level_error"]:
        return f"no kernels: {info['level_error']}"
    wide = info["level"] == info["levels"][-1]
    asked = "POOLWRIGHT_CPU_LEVEL" in info["environment"]
    why = "POOLWRIGHT_CPU_LEVEL asks for it" if asked else "the best of this build that the processor has"
    absent = [level for level in info["levels_built"] if level not in info["levels"]]
    if wide and absent:
        why += f" ({', '.join(absent)} built, but not in this processor)"
    return f"native kernels, level {info['level']}: {why}; {'OpenMP' if info['openmp'] else 'one thread, no OpenMP'}"


def _cuda_choice(info: Mapping[str, Any]) -> str:
    import torch

    if not torch.cuda.is_available():
        built = f"kernels built for {', '.join(info['cuda_archs'])}, unused: " if info["cuda"] else "no kernels, and "
        return f"{built}torch sees no CUDA device"
    if not info["cuda"]:
        return f"kernels run on torch: {info['cuda_compiler'] or info['reason']}"
    major, minor = torch.cuda.get_device_capability(0)
    real = [int(arch[3:].rstrip("af")) for arch in info["cuda_archs"] if arch.startswith("sm_")]
    # Machine code runs on later devices of the same major capability; PTX is compiled on any later one.
    fits = any(arch // 10 == major and arch % 10 <= minor for arch in real)
    portable = [int(arch[8:].rstrip("af")) for arch in info["cuda_archs"] if arch.startswith("compute_")]
    if fits:
        return f"CUDA kernels: machine code for this device (sm_{major}{minor}) is built in"
    if any(arch <= 10 * major + minor for arch in portable):
        return f"CUDA kernels: compiled by the driver from PTX for this device (sm_{major}{minor})"
    return (
        f"CUDA kernels were built for {', '.join(info['cuda_archs'])} and do not run on this device (sm_{major}{minor})"
    )


def _faiss() -> str:
    from importlib.metadata import PackageNotFoundError, version

    for name in ("faiss-gpu", "faiss-cpu", "faiss"):
        try:
            found = f"{name} {version(name)}"
            break
        except PackageNotFoundError:
            continue
    else:
        return "not installed: k-means runs on torch"
    try:
        import faiss
    except ImportError as error:
        return f"{found} does not load: {error}"
    if not hasattr(faiss, "StandardGpuResources"):
        return f"{found}, without GPU support: k-means of data on the CPU uses it"
    count = faiss.get_num_gpus()
    return f"{found}, with GPU support, sees {count} GPU{'' if count == 1 else 's'}"


def _pot(native: bool) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("POT")
    except PackageNotFoundError:
        return "not installed" + ("" if native else ": exact transport of unequal sizes cannot run without it")
    return found if native else f"{found}: exact transport of unequal sizes runs on it"


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "none"
    return (
        {True: "yes", False: "no", None: "none"}.get(value, str(value))
        if isinstance(value, (bool, type(None)))
        else str(value)
    )
