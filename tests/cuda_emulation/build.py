"""Compile csrc/cuda and its bindings for the CPU, into one Python module."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pybind11

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
# No contraction into fused operations: the kernels are built with -fmad=false. The stack protector of a
# distribution's compiler takes jumps between fibers for errors.
FLAGS = ["-std=c++20", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-pthread"]
FLAGS += ["-U_FORTIFY_SOURCE", "-DPOOLWRIGHT_CUDA_EMULATION", "-DPOOLWRIGHT_WITH_CUDA"]


def compiler() -> list[str] | None:
    """Return the command of a C++ compiler that knows GNU's options, or None."""
    asked = shlex.split(os.environ.get("CXX", ""))
    return next(
        (command for command in ([asked] if asked else [["g++"], ["clang++"]]) if shutil.which(command[0])), None
    )


def sources() -> list[Path]:
    """Return what is compiled: every kernel, its bindings, and the emulation."""
    kernels = sorted(CSRC.glob("cuda/*.cu")) + sorted(CSRC.glob("bindings/*_cuda.cpp"))
    return [*kernels, *sorted(HERE.glob("*.c[pu]*"))]


def build(folder: Path) -> ModuleType:
    """Compile, unless `folder` holds what the same sources gave; import the module.

    Raises
    ------
    RuntimeError
        A source does not compile; with the compiler's words.
    """
    command = compiler()
    if command is None:
        raise RuntimeError("there is no C++ compiler")
    command = [*command, *FLAGS, f"-I{HERE / 'include'}", f"-I{pybind11.get_include()}"]
    command += [f"-I{sysconfig.get_paths()['include']}"]
    digest = hashlib.sha256(shlex.join(command).encode())
    for path in sorted([*CSRC.rglob("*.*"), *HERE.rglob("*.[chu]*")]):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    made = folder / f"{digest.hexdigest()[:16]}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:

            def compile_one(source: Path) -> str:
                target = str(Path(scratch, source.name + ".o"))
                # The bindings are most of the text and none of the work.
                level = "-O0" if source.suffix == ".cpp" and source.name != "emulated_block.cpp" else "-O1"
                line = [*command, level, "-c", "-x", "c++", str(source), "-o", target]
                done = subprocess.run(line, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise RuntimeError(f"{shlex.join(line)}\n{done.stderr}")
                return target

            with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
                objects = list(pool.map(compile_one, sources()))
            linked = str(Path(scratch, "linked.so"))
            subprocess.run([*command, *objects, "-o", linked], check=True, capture_output=True, text=True)
            os.replace(linked, made)
    spec = importlib.util.spec_from_file_location("emulated_cuda", made)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
