"""Check a machine with a CUDA device: build in place, run the tests marked `gpu`, then the GPU benchmarks.

Run from a checkout, ``python benchmarks/gpu_check.py`` or ``make gpu-check``; nothing needs to be installed but what
the kernels, pytest and the tables need. JSON goes to the folder that POOLWRIGHT_GPU_OUT names (default:
benchmarks/results): ``gpu_check.json`` says what ran, what failed and what was not run, ``gpu_tests.json`` has the
outcome of every test, and there is a file for each kernel's benchmark. All ends within POOLWRIGHT_GPU_SECONDS (default:
510); what does not fit is named as not run.

Exit status: 0; 1 when there is no CUDA device, the build, a test or a benchmark fails, or no test ran.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ("k-center", "kmeans-plus-plus", "badge", "wasserstein", "kmeans", "bures")
SECONDS = 510.0
TEST_SHARE, BENCHMARK_RESERVE = 0.6, 15.0
"""Part of what the build leaves that the tests may take; seconds that a benchmark is given to come to its end."""


def say(text: str) -> None:
    """Print a line of the report."""
    sys.stdout.write(f"gpu-check: {text}\n")
    sys.stdout.flush()


def run(command: list[str], seconds: float, **environment: str) -> int | None:
    """Run a command in the checkout; return its exit status, or None where it had to be ended."""
    paths = [str(ROOT / name) for name in ("engine", "plugins", "benchmarks")]
    paths += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **environment}
    # A session of its own, so that what it started ends with it.
    process = subprocess.Popen(command, cwd=ROOT, env=variables, start_new_session=True)
    try:
        return process.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def device_problem() -> str:
    """Return why this machine cannot be checked, or an empty string."""
    try:
        import torch
    except ImportError as error:
        return f"{sys.executable} has no torch ({error})"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device here (no GPU, no driver, or a torch without CUDA)"
    return ""


def build(seconds: float) -> str:
    """Build the extension in place, with CUDA; return what is wrong, or an empty string."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    status = run(command, seconds, POOLWRIGHT_CUDA="1", POOLWRIGHT_NO_EXT="")
    if status is None:
        return f"the build took longer than {seconds:.0f} s"
    return f"the build failed (exit status {status})" if status else ""


def run_tests(out: Path, seconds: float) -> tuple[list[str], list[str]]:
    """Run the tests marked `gpu` and write their outcomes; return what failed and what was not run."""
    lines = out / "gpu_tests.jsonl"
    lines.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "poolwright_benchmarks.outcomes",
        "tests/kernels",
    ]
    status = run(command, seconds, POOLWRIGHT_OUTCOMES=str(lines))
    outcomes: dict[str, str] = {}
    if lines.exists():
        for line in lines.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if not outcomes.get(record["test"], "").startswith("failed"):
                outcomes[record["test"]] = record["outcome"]
        lines.unlink()
    (out / "gpu_tests.json").write_text(json.dumps(outcomes, indent=1) + "\n", encoding="utf-8")
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    failed = [f"{test}: {outcome}" for test, outcome in outcomes.items() if outcome.startswith("failed")]
    skipped = [f"{test}: {outcome}" for test, outcome in outcomes.items() if outcome.startswith("skipped")]
    left = [f"{test}: not run, the time was used up" for test, outcome in outcomes.items() if outcome == "not run"]
    say(f"{passed} of {len(outcomes)} tests passed, {len(failed)} failed, {len(skipped) + len(left)} not run")
    if not passed:
        failed.append("no test passed")
    if status not in (0, None) and not failed:
        failed.append(f"pytest ended with status {status}")
    return failed, skipped + left


def run_benchmarks(out: Path, deadline: float) -> tuple[list[str], list[str]]:
    """Run each kernel's benchmark in a process of its own; return what failed and what was not run."""
    failed, not_run = [], []
    for number, kernel in enumerate(KERNELS):
        share = (deadline - time.monotonic()) / (len(KERNELS) - number)
        if share < 2 * BENCHMARK_RESERVE:
            not_run.append(f"benchmark {kernel}: the time was used up")
            continue
        path = out / f"gpu_{kernel}.json"
        path.unlink(missing_ok=True)
        command = [sys.executable, "-m", "poolwright_benchmarks", kernel, "--device", "cuda", "--largest"]
        command += [
            "--cap",
            "15",
            "--single",
            "30",
            "--seconds",
            f"{share - BENCHMARK_RESERVE:.0f}",
            "--json",
            str(path),
        ]
        # What one kernel does not use is the others'; one that overruns its share takes from the last.
        status = run(command, min(deadline - time.monotonic(), share + 30.0))
        if status is None:
            not_run.append(f"benchmark {kernel}: ended in its middle, the time was used up")
        elif status:
            failed.append(f"benchmark {kernel}: exit status {status}")
        not_run += missing(path, kernel)
    return failed, not_run


def missing(path: Path, kernel: str) -> list[str]:
    """Return what a benchmark's file says was not measured."""
    if not path.exists():
        return []
    cases = json.loads(path.read_text(encoding="utf-8"))["kernels"][kernel]
    return [
        f"benchmark {kernel}, {case['axis']} {rung[case['axis']]}, {name}: {reason}"
        for case in cases
        for rung in case["sizes"]
        for name, reason in rung["not_measured"].items()
    ]


def main() -> int:
    """Check, and return the exit status."""
    started = time.monotonic()
    seconds = float(os.environ.get("POOLWRIGHT_GPU_SECONDS") or SECONDS)
    reason = device_problem()
    if reason:
        say(f"{reason}; nothing was checked")
        return 1
    out = Path(os.environ.get("POOLWRIGHT_GPU_OUT") or ROOT / "benchmarks" / "results").resolve()
    out.mkdir(parents=True, exist_ok=True)
    deadline = started + seconds
    took: dict[str, float] = {}

    problem = build(seconds * 0.6)
    took["build"] = time.monotonic() - started
    failed, not_run = ([problem], ["tests", "benchmarks"]) if problem else ([], [])
    if not problem:
        begun = time.monotonic()
        failed, not_run = run_tests(out, TEST_SHARE * (deadline - begun))
        took["tests"] = time.monotonic() - begun
        begun = time.monotonic()
        # The benchmarks run after a failed test too: their figures may explain it.
        more_failed, more_not_run = run_benchmarks(out, deadline)
        took["benchmarks"] = time.monotonic() - begun
        failed, not_run = failed + more_failed, not_run + more_not_run
    record = {"seconds": took, "failed": failed, "not_run": not_run}
    (out / "gpu_check.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for title, items in (("not run", not_run), ("FAILED", failed)):
        for item in items:
            say(f"{title}: {item}")
    say(f"{'FAILED' if failed else 'ok'} after {time.monotonic() - started:.0f} s; files in {out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
