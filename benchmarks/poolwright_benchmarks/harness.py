"""Honest timing: all contenders in one process, interleaved, with what is needed to compare two results."""

from __future__ import annotations

import gc
import importlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poolwright_benchmarks.machine import installed, memory_bytes

MINIMUM_REPEATS = 5
CAP_SECONDS = 120.0
"""What all runs of one contender on one problem may take together, unless the command line says otherwise."""
SINGLE_SECONDS = 40.0
"""What a single run may take on a size that is not the first, unless the command line says otherwise."""


@dataclass(frozen=True)
class Contender:
    """One way to compute the same thing.

    Attributes
    ----------
    name : str
        As it appears in tables; the first contender of a problem is ours.
    run : callable
        No arguments; returns the result, of which `Problem.quality` makes figures.
    requires : tuple of str
        Distributions that must be installed.
    missing : str
        Why it cannot run here, or empty.
    needs_bytes : int
        What it will allocate, where that is known and large.
    imports : tuple of str
        Modules that are imported before the first run and not timed with it.
    prepare : callable, optional
        Called once before the first run and not timed with it: starting processes, compiling.
    """

    name: str
    run: Callable[[], Any]
    requires: tuple[str, ...] = ()
    missing: str = ""
    needs_bytes: int = 0
    imports: tuple[str, ...] = ()
    prepare: Callable[[], None] | None = None

    def obstacle(self) -> str:
        """Return why it cannot run on this machine, or an empty string."""
        absent = [name for name in self.requires if installed(name) is None]
        if absent:
            return f"not installed (pip install {' '.join(absent)})"
        if self.missing:
            return self.missing
        if self.needs_bytes > memory_bytes() // 2:
            return f"needs {self.needs_bytes / 1e9:.1f} GB, more than half of the memory"
        return ""


@dataclass(frozen=True)
class Problem:
    """One size of a case.

    Attributes
    ----------
    contenders : sequence of Contender
    quality : callable
        Figures of a result. "flops" among them, if the work is one of products, is set beside `product`, and so is
        "full_flops", the work of a contender that leaves no pair out.
    product : callable, optional
        One matrix product of the problem's type and width, timed between the contenders.
    product_flops : float
        Its floating-point operations.
    arithmetic : str
        What ours multiplies, if it is something else than that product does.
    close : callable, optional
        Called at the end: stop processes, remove files.
    """

    contenders: Sequence[Contender]
    quality: Callable[[Any], Mapping[str, Any]] = lambda result: {}
    product: Callable[[], Any] | None = None
    product_flops: float = 0.0
    arithmetic: str = ""
    close: Callable[[], None] | None = None


@dataclass(frozen=True)
class Case:
    """A row of the table: one kind of problem at growing sizes.

    Attributes
    ----------
    title : str
    settings : mapping
        What does not change with the size.
    axis : str
        What the size counts.
    sizes : tuple of int
        From small to large: a contender that will take too long on the next size is not run there.
    build : callable
        size -> Problem.
    work : callable
        size -> the work of a contender, up to a factor.
    pace : dict
        Contender -> seconds per unit of work, as measured so far. Cases whose work has one unit may share it.
    """

    title: str
    settings: Mapping[str, Any]
    axis: str
    sizes: tuple[int, ...]
    build: Callable[[int], Problem]
    work: Callable[[int], float] = float
    pace: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """How often, and for how long.

    Attributes
    ----------
    repeats : int
        Timed runs of each contender.
    cap : float
        Seconds that the timed runs of one contender on one problem may take together; a contender whose runs
        would take longer is run once and marked.
    single : float
        Seconds that such a single run may take, judged by the time on the size before; a contender that would
        take longer is not run on this size.
    deadline : float
        Of `time.monotonic`; nothing is begun that would end after it.
    """

    repeats: int = MINIMUM_REPEATS
    cap: float = CAP_SECONDS
    single: float = SINGLE_SECONDS
    deadline: float = float("inf")


@dataclass
class Timing:
    """What one contender took, in seconds, in the order of the runs."""

    name: str
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    prepare_seconds: float = 0.0
    single: bool = False
    quality: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def run_case(case: Case, limits: Limits, device: str, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure a case at each of its sizes, smallest first.

    Parameters
    ----------
    case : Case
    limits : Limits
    device : {"cpu", "cuda"}
        "cuda": wait for the device before and after each run, and read its memory.
    progress : callable
        Takes a line that says what runs now.

    Returns
    -------
    dict
        Plain data: title, settings, axis, and one record per size with every run, medians, ratios to ours, the
        matrix product timed beside them, and what was not measured and why.
    """
    if limits.repeats < MINIMUM_REPEATS:
        raise ValueError(f"repeats must be at least {MINIMUM_REPEATS}, not {limits.repeats}")
    rungs: list[dict[str, Any]] = []
    for size in case.sizes:
        expected = {name: pace * case.work(size) for name, pace in case.pace.items()}
        if time.monotonic() >= limits.deadline:
            rungs.append({case.axis: size, "results": [], "not_measured": {"everything": "the time was used up"}})
            continue
        progress(f"{case.title}, {case.axis} = {size:,}: making data")
        problem = case.build(size)

        def say(text: str, size: int = size) -> None:
            progress(f"{case.title}, {case.axis} = {size:,}: {text}")

        try:
            rung = _measure(problem, limits, device, expected, say)
        finally:
            if problem.close is not None:
                problem.close()
        rungs.append({case.axis: size, **rung})
        for row in rung["results"]:
            case.pace[row["name"]] = row["median"] / case.work(size)
        del problem
        gc.collect()
    return {"title": case.title, "settings": dict(case.settings), "axis": case.axis, "sizes": rungs}


def _measure(
    problem: Problem, limits: Limits, device: str, expected: Mapping[str, float], say: Callable[[str], None]
) -> dict[str, Any]:
    not_measured: dict[str, str] = {}
    timings: list[Timing] = []
    again: list[tuple[Contender, Timing]] = []
    for contender in problem.contenders:
        reason = contender.obstacle() or _too_long(expected.get(contender.name), limits)
        if reason:
            not_measured[contender.name] = reason
            continue
        say(contender.name)
        timing = Timing(contender.name)
        try:
            timing.prepare_seconds = _prepare(contender)
            result, first, timing.peak_bytes = _first_run(contender.run, device)
        except Exception as error:  # a peer that breaks is a finding
            if contender is problem.contenders[0]:
                raise
            not_measured[contender.name] = f"failed: {type(error).__name__}: {error}".splitlines()[0]
            continue
        timing.quality = dict(problem.quality(result))
        del result
        timings.append(timing)
        if contender.name not in expected and first * limits.repeats > limits.cap >= 2 * first:
            first = _timed(contender.run, device)[1]  # the first run ever may have met cold caches and lazy imports
        if first * limits.repeats > limits.cap:
            timing.seconds, timing.single = [first], True
        else:
            again.append((contender, timing))
    product = _repeat(problem, again, limits, device, say)
    for _, timing in again:
        if not timing.seconds:
            timings.remove(timing)
            not_measured[timing.name] = "the time was used up"
    return _record(timings, not_measured, problem, product)


def _prepare(contender: Contender) -> float:
    start = time.perf_counter()
    for module in contender.imports:
        importlib.import_module(module)
    if contender.prepare is not None:
        contender.prepare()
    return time.perf_counter() - start


def _too_long(expected: float | None, limits: Limits) -> str:
    """Return why a contender that is expected to take so long is not run, or an empty string."""
    left = limits.deadline - time.monotonic()
    if left <= 0:
        return "the time was used up"
    if expected is None:
        return ""
    if expected > limits.single:
        return f"one run would take about {expected:.0f} s, above the limit of {limits.single:.0f} s"
    if expected > left:
        return f"the time was used up: one run would take about {expected:.0f} s"
    return ""


def _repeat(
    problem: Problem,
    runners: Sequence[tuple[Contender, Timing]],
    limits: Limits,
    device: str,
    say: Callable[[str], None],
) -> list[float]:
    """Time the contenders in turn; return what the matrix product took, in seconds, once a round.

    The runs are interleaved (a b c, b c a, ...), so that a noisy minute or a hot processor hits all of them, and none
    always follows the same other. The first run of each is over and is not among these.
    """
    product: list[float] = []
    for repeat in range(limits.repeats if runners else 0):
        if time.monotonic() >= limits.deadline:
            break
        say(f"round {repeat + 1} of {limits.repeats}")
        if problem.product is not None:
            if not product:
                problem.product()
            product.append(_timed(problem.product, device)[1])
        for turn in range(len(runners)):
            contender, timing = runners[(repeat + turn) % len(runners)]
            timing.seconds.append(_timed(contender.run, device)[1])
    return product


def _timed(run: Callable[[], Any], device: str) -> tuple[Any, float]:
    gc.collect()
    _synchronize(device)
    start = time.perf_counter()
    result = run()
    _synchronize(device)
    return result, time.perf_counter() - start


def _synchronize(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _first_run(run: Callable[[], Any], device: str) -> tuple[Any, float, int | None]:
    """Run once; return the result, seconds, and the bytes in use at the worst moment beyond those before, if known.

    On the CPU this is a lower bound: memory that the process kept from an earlier contender is not counted again, nor
    is that of other processes.
    """
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result, seconds = _timed(run, device)
        return result, seconds, torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: start the high-water mark anew
        before = _status("VmRSS")
    except OSError:
        return *_timed(run, device), None
    result, seconds = _timed(run, device)
    return result, seconds, max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in /proc/self/status")


def _record(
    timings: Sequence[Timing], not_measured: Mapping[str, str], problem: Problem, product: Sequence[float]
) -> dict[str, Any]:
    ours = problem.contenders[0].name
    base = next((timing.median for timing in timings if timing.name == ours), None)
    rate = problem.product_flops / statistics.median(product) if product else None
    results = []
    for timing in timings:
        flops = timing.quality.pop("flops", None)
        full = timing.quality.pop("full_flops", None)
        results.append(
            {
                "name": timing.name,
                "median": timing.median,
                "seconds": timing.seconds,
                "single": timing.single,
                "prepare_seconds": timing.prepare_seconds,
                "times_ours": None if base is None else timing.median / base,
                "peak_bytes": timing.peak_bytes,
                "flops": flops,
                "share_of_product": None if flops is None or rate is None else flops / timing.median / rate,
                "full_product": None if full is None or rate is None else full / rate / timing.median,
                "quality": timing.quality,
            }
        )
    return {
        "ours": ours,
        "results": results,
        "not_measured": dict(not_measured),
        "product": {"flops_per_second": rate, "seconds": list(product), "arithmetic_of_ours": problem.arithmetic},
    }
