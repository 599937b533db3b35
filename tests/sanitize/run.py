"""The CPU code of csrc/ under sanitizers, with the kernel tests: ``make sanitize``.

Address and undefined-behaviour sanitizers run together, ThreadSanitizer by itself. Each has a build of its own in
build/, which the ordinary one does not see. GNU OpenMP's synchronization is invisible to ThreadSanitizer; there its
entry points are replaced by openmp_on_threads.cpp. Exit status 1 if anything is found, a test fails, or a sanitizer
cannot be had.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
KINDS = {
    "address,undefined": ("libasan.so", "libubsan.so", "libstdc++.so"),
    "thread": ("libtsan.so",),
}
OPTIONS = {
    # Python, numpy and torch keep memory to the end of the process on purpose.
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
    "TSAN_OPTIONS": f"exitcode=99:halt_on_error=1:die_after_fork=0:suppressions={HERE / 'thread.supp'}",
}


def say(text: str) -> None:
    """Print a line of the report."""
    sys.stdout.write(f"sanitize: {text}\n")
    sys.stdout.flush()


def library(compiler: str, name: str) -> str:
    """Return the path of a library of the compiler, or an empty string."""
    command = [compiler, f"-print-file-name={name}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return str(Path(found).resolve()) if Path(found).is_absolute() else ""


def check(kind: str, compiler: str) -> bool:
    """Build with one set of sanitizers and run the kernel tests; return whether all is clean."""
    libraries = [library(compiler, name) for name in KINDS[kind]]
    if not all(libraries):
        missing = ", ".join(name for name, path in zip(KINDS[kind], libraries, strict=True) if not path)
        say(f"{kind}: {compiler} has no {missing}; not checked")
        return False
    base = ROOT / "build" / f"sanitize-{kind.replace(',', '-')}"
    lib = base / "lib"
    shutil.rmtree(lib, ignore_errors=True)  # build_py does not remove what the sources no longer have
    build = [sys.executable, "setup.py", "--quiet", "build", f"--build-base={base}", f"--build-lib={lib}"]
    environment = {**os.environ, "CXX": compiler, "POOLWRIGHT_SANITIZE": kind, "POOLWRIGHT_CUDA": "0"}
    environment.pop("POOLWRIGHT_NO_EXT", None)
    if subprocess.run(build, cwd=ROOT, env=environment, check=False).returncode:
        say(f"{kind}: the build failed")
        return False
    (extension,) = (lib / "poolwright" / "kernels").glob("_native*.so")
    if kind == "thread":
        unresolved = openmp_symbols(extension)
        if unresolved:
            say(f"thread: openmp_on_threads.cpp lacks {', '.join(unresolved)}")
            return False
    reports = base / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    # Reports go to files: pytest would swallow what is written just before the process is ended.
    environment |= {name: f"{value}:log_path={reports / 'report'}" for name, value in OPTIONS.items()}
    environment |= {"LD_PRELOAD": " ".join(libraries), "PYTHONPATH": str(lib), "PYTHONMALLOC": "malloc"}
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not gpu and not slow"]
    if kind == "thread":
        # torch's own threads would be judged too, and they synchronize where the sanitizer does not look: it gets
        # one, and the plugin gives the kernels several.
        environment["OMP_NUM_THREADS"] = "1"
        tests += ["-p", "tests.sanitize.several_threads", "tests/kernels"]
        # Its shadow memory does not fit where the system places libraries at random.
        setarch = shutil.which("setarch")
        tests = [setarch, "--addr-no-randomize", *tests] if setarch else tests
    else:
        environment["OMP_NUM_THREADS"] = "2"
        tests += ["tests/kernels"]
    where = "import poolwright.kernels._native as n; print(n.__file__)"
    loaded = subprocess.run(
        [*tests[: tests.index("-m")], "-c", where],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if Path(loaded.stdout.strip()) != extension:
        say(f"{kind}: the tests would not run on {extension}: {loaded.stdout}{loaded.stderr}")
        return False
    status = subprocess.run(tests, cwd=ROOT, env=environment, check=False).returncode
    found = sorted(reports.iterdir())
    for report in found:
        say(report.read_text(errors="replace"))
    clean = status == 0 and not found
    say(f"{kind}: {'clean' if clean else f'NOT clean (pytest exit status {status}, {len(found)} reports)'}")
    return clean


def openmp_symbols(extension: Path) -> list[str]:
    """Return OpenMP's entry points that the extension takes from elsewhere."""
    listing = subprocess.run(
        ["nm", "--dynamic", "--undefined-only", str(extension)], capture_output=True, text=True, check=True
    ).stdout
    return sorted(set(re.findall(r"\b(GOMP_\w+|omp_\w+)", listing)))


def main() -> int:
    """Check with each kind; return the exit status."""
    compiler = os.environ.get("CXX") or "g++"
    if shutil.which(compiler) is None:
        say(f"there is no {compiler}; the sanitizers are GCC's (CXX names another one)")
        return 1
    kinds = sys.argv[1:] or list(KINDS)
    outcomes = [check(kind, compiler) for kind in kinds]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
