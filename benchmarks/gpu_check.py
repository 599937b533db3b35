"""Check a machine with a CUDA device: the tests marked `gpu`, then the benchmarks, with the results as JSON.

Run from a checkout in which the package is installed: ``python benchmarks/gpu_check.py``. Writes
``gpu_tests.json`` and ``gpu_benchmarks.json`` to the folder that POOLWRIGHT_GPU_OUT names (default:
benchmarks/results). Exit status: 0; 1 when there is no CUDA device, the kernels were built without CUDA, a
test fails or none ran.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def say(text: str) -> None:
    """Print a line of the report."""
    sys.stdout.write(f"gpu-check: {text}\n")
    sys.stdout.flush()


def problem() -> str:
    """Return why this machine cannot be checked, or an empty string."""
    import torch

    from poolwright import kernels

    if not torch.cuda.is_available():
        return "torch finds no CUDA device here (driver missing, or a torch without CUDA); nothing was checked"
    info = kernels.build_info()
    if not info["cuda"]:
        return f"the kernels have no CUDA ({info['reason'] or info['cuda_compiler']}); nothing was checked"
    return ""


def run_tests(out: Path) -> bool:
    """Run the tests marked `gpu`; write their outcomes; return whether some ran and none failed."""
    from poolwright_benchmarks.harness import machine

    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "junit.xml")
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/kernels", f"--junitxml={report}"]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    outcomes = {f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in cases}
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    record = {"machine": machine(), "exit_status": status, "passed": passed, "outcomes": outcomes}
    (out / "gpu_tests.json").write_text(json.dumps(record, indent=1) + "\n")
    say(f"{passed} of {len(outcomes)} tests passed (pytest exit status {status})")
    return status == 0 and passed > 0


def _outcome(case: ElementTree.Element) -> str:
    for child in case:
        if child.tag in ("failure", "error", "skipped"):
            return f"{child.tag}: {child.get('message', '')}"
    return "passed"


def main() -> int:
    """Check, and return the exit status."""
    reason = problem()
    if reason:
        say(reason)
        return 1
    out = Path(os.environ.get("POOLWRIGHT_GPU_OUT") or ROOT / "benchmarks" / "results")
    out.mkdir(parents=True, exist_ok=True)
    tested = run_tests(out)

    from poolwright_benchmarks.__main__ import main as benchmark

    # The benchmarks run after a failed test too: their figures may explain it.
    benchmark(["--device", "cuda", "--json", str(out / "gpu_benchmarks.json")])
    return 0 if tested else 1


if __name__ == "__main__":
    sys.exit(main())
