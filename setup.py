"""Builds poolwright.kernels._native from csrc/; everything else about the package is in pyproject.toml.

Variables
---------
POOLWRIGHT_NO_EXT=1
    Build no extension: a pure package whose kernels run on torch.
POOLWRIGHT_CUDA=auto|0|1
    auto (the default): build the CUDA kernels if a working nvcc is found (PATH, then CUDA_HOME, then
    /usr/local/cuda); 1: fail without one; 0: leave them out. A GPU is never looked for: none is needed to
    build.
POOLWRIGHT_CUDA_ARCHS="80;90+ptx"
    Compute capabilities to build machine code for; "+ptx" adds the portable code of that one, which newer
    devices compile when they load it. The default is 80 and 90 with the PTX of 90: machine code for 8.x and
    9.0, and PTX that every later generation can take (PTX of the very newest one could not run on those
    between).
POOLWRIGHT_SANITIZE=address,undefined|thread
    Sanitizers of GCC, for `make sanitize`: checks instead of speed, in a folder of objects of its own.
CXX, CXXFLAGS, LDFLAGS
    As usual.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, OptionError, PlatformError

ROOT = Path(__file__).resolve().parent
WAY_OUT = "Set POOLWRIGHT_NO_EXT=1 to install without the native kernels (they then run on torch, slower)."
DEFAULT_ARCHS = ("80", "90")
X86 = platform.machine().lower() in ("x86_64", "amd64")
AVX512 = ["-mavx512f"]
X86_LEVELS = {
    "avx2": ["-mavx2", "-mf16c", "-mfma"],
    "avx512": AVX512,
    "amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],  # left out where `Compiler.has_amx` says no
}
CPU_LEVELS = {"base": [], **(X86_LEVELS if X86 else {})}
# Every level, thread count and batch must give the same bits: no contraction into FMA, no fast-math, and
# these last, so that no CXXFLAGS of the caller undoes them.
STRICT = ["-ffp-contract=off", "-fno-fast-math"]
OPENMP_ON_THREADS = "tests/sanitize/openmp_on_threads.cpp"  # what ThreadSanitizer can follow instead of libgomp


def say(text: str) -> None:
    """Print a line of the build's report."""
    sys.stdout.write(f"poolwright: {text}\n")
    sys.stdout.flush()


def sources() -> list[str]:
    """Return the sources of the extension, relative to this file; CUDA ones included."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.c[pu]*"))
    levels = [name for name in X86_LEVELS if name not in CPU_LEVELS]
    return [
        name
        for name in found
        if name.endswith((".cpp", ".cu")) and not name.endswith(tuple(f"_{x}.cpp" for x in levels))
    ]


def output(command: list[str]) -> tuple[bool, str]:
    """Run a command; return whether it succeeded, and what it printed."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError as error:
        return False, str(error)
    return done.returncode == 0, done.stdout


class Compiler:
    """The C++ compiler, and whether it has OpenMP."""

    def __init__(self) -> None:
        configured = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or ""
        tried = [shlex.split(configured)] if configured else []
        tried += [[name] for name in ("c++", "g++", "clang++")]
        if os.environ.get("CXX"):
            tried = tried[:1]  # what the user names is used or is an error
        works = [command for command in tried if shutil.which(command[0])]
        if not works:
            names = ", ".join(command[0] for command in tried)
            raise PlatformError(
                f"poolwright: no C++ compiler found (looked for {names}). Install g++ or clang++. {WAY_OUT}"
            )
        self.command = works[0]
        self.version = output([*self.command, "--version"])[1].splitlines()[0].strip()
        ok, text = self.tries("int main() { return 0; }", [])
        if not ok:
            raise CompileError(f"poolwright: {self.command[0]} cannot compile a C++17 program:\n{text}\n{WAY_OUT}")
        program = "#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }"
        self.openmp, _ = self.tries(program, ["-fopenmp"])

    def tries(self, program: str, flags: list[str]) -> tuple[bool, str]:
        """Compile and link a small program."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cpp")
            source.write_text(program + "\n")
            return output([*self.command, "-std=c++17", *flags, str(source), "-o", str(Path(folder, "probe"))])

    def has_amx(self) -> bool:
        """Return whether the compiler knows the tiles, and the system how they are asked for (csrc/cpu/levels.cpp)."""
        program = """#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
int main() { _tile_release(); return syscall(SYS_arch_prctl, 0x1023, 18) != 0; }"""
        return self.tries(program, X86_LEVELS["amx"])[0]


class Nvcc:
    """A CUDA compiler that works with the C++ compiler, and the architectures to build for."""

    def __init__(self, path: str, compiler: Compiler) -> None:
        self.path = path
        self.base = [path, "-ccbin", compiler.command[0], "-std=c++17"]
        ok, text = output([path, "--version"])
        release = re.search(r"release ([\d.]+)", text)
        if not ok or release is None:
            raise PlatformError(f"{path} --version failed: {text.strip()}")
        self.version = release[1]
        self.archs = self.choose_archs()
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cu")
            source.write_text("#include <cuda_fp16.h>\n__global__ void probe(float* x) { *x = 1; }\n")
            ok, text = output([*self.base, *self.gencode()[:1], "-c", str(source), "-o", str(Path(folder, "probe.o"))])
            if not ok:
                raise PlatformError(f"{path} cannot compile with {compiler.version}: {text.strip()}")
            # nvcc itself knows where its libraries are, whatever wrapper or package it came in.
            plan = output([path, "--dryrun", str(source)])[1]
        line = re.search(r"LIBRARIES=(.*)", plan)
        folders = [flag[2:] for flag in shlex.split(line[1]) if flag.startswith("-L")] if line else []
        folders = [folder for folder in folders if Path(folder, "libcudart_static.a").exists()]
        if not folders:
            raise PlatformError(f"{path} has no libcudart_static.a beside it (package cuda-cudart-dev)")
        self.link = [f"-L{folders[0]}", "-lcudart_static", "-ldl", "-lpthread", "-lrt"]

    def choose_archs(self) -> list[str]:
        """Return what POOLWRIGHT_CUDA_ARCHS asks for, else those of the default that this nvcc knows."""
        known = set(re.findall(r"compute_(\d+)", output([self.path, "--list-gpu-arch"])[1]))
        asked = [arch for arch in re.split(r"[;,\s]+", os.environ.get("POOLWRIGHT_CUDA_ARCHS", "")) if arch]
        # "90a" and "100f" are variants of an architecture, which nvcc does not list.
        unknown = [arch for arch in asked if arch.removesuffix("+ptx").rstrip("af") not in known]
        if unknown:
            names = " ".join(sorted(known, key=int))
            raise OptionError(
                f"poolwright: POOLWRIGHT_CUDA_ARCHS names {', '.join(unknown)}; CUDA {self.version} builds for {names}"
            )
        if asked:
            return asked
        default = [arch for arch in DEFAULT_ARCHS if arch in known]
        if not default:
            raise PlatformError(f"CUDA {self.version} builds for none of {', '.join(DEFAULT_ARCHS)}")
        return [*default[:-1], f"{default[-1]}+ptx"]

    def gencode(self) -> list[str]:
        """Return the -gencode flags: machine code for each architecture, PTX where asked."""
        flags = []
        for arch in self.archs:
            name = arch.removesuffix("+ptx")
            codes = f"[sm_{name},compute_{name}]" if arch.endswith("+ptx") else f"sm_{name}"
            flags.append(f"-gencode=arch=compute_{name},code={codes}")
        return flags

    def facts(self) -> str:
        """Return the architectures as they are listed: "sm_80 sm_90 compute_90"."""
        real = [f"sm_{arch.removesuffix('+ptx')}" for arch in self.archs]
        return " ".join(real + [f"compute_{arch[:-4]}" for arch in self.archs if arch.endswith("+ptx")])


def find_nvcc(compiler: Compiler) -> tuple[Nvcc | None, str]:
    """Return a working nvcc, or None and the reason, as POOLWRIGHT_CUDA says."""
    mode = os.environ.get("POOLWRIGHT_CUDA", "").strip().lower() or "auto"
    if mode not in ("auto", "0", "1"):
        raise PlatformError(f"poolwright: POOLWRIGHT_CUDA must be auto, 0 or 1, not {mode!r}")
    if mode == "0":
        return None, "POOLWRIGHT_CUDA=0"
    homes = [home for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda") if home]
    path = shutil.which("nvcc") or next(
        (found for home in homes if (found := shutil.which("nvcc", path=f"{home}/bin"))), None
    )
    if path is None:
        reason = "no nvcc on PATH, in CUDA_HOME or in /usr/local/cuda"
    else:
        try:
            return Nvcc(path, compiler), ""
        except PlatformError as error:
            reason = str(error)
    if mode == "1":
        raise PlatformError(f"poolwright: POOLWRIGHT_CUDA=1, but {reason}. POOLWRIGHT_CUDA=0 builds for the CPU alone.")
    return None, reason


def choose_sanitizers() -> str:
    """Return what POOLWRIGHT_SANITIZE asks for, or an empty string."""
    asked = os.environ.get("POOLWRIGHT_SANITIZE", "").strip()
    if asked not in ("", "address,undefined", "thread"):
        raise OptionError(f"poolwright: POOLWRIGHT_SANITIZE must be address,undefined or thread, not {asked!r}")
    return asked


class Objects:
    """Object files that are compiled again only if their command or the text of a file they include has changed.

    They lie under build/ beside this file and not in setuptools' temporary folder, which is new for each
    `pip install -e .`.
    """

    def __init__(self, sanitize: str) -> None:
        tag = f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        tag += f"-{sanitize.replace(',', '-')}" if sanitize else ""
        self.folder = ROOT / "build" / f"native-{tag}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.compiled = 0
        # Of our own files, before any is compiled: what is edited while the build runs does not count as compiled.
        own = [path for part in ("csrc", "tests/sanitize") for path in (ROOT / part).rglob("*") if path.is_file()]
        self.before = {str(path.resolve()): self.digest(str(path)) for path in own}

    @staticmethod
    def digest(path: str) -> str:
        try:
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError:
            return "missing"

    def compile(self, source: str, command: list[str]) -> Path:
        made = self.folder / (source.replace("/", "-") + ".o")
        # The whole path: objects that were copied from another checkout are not of these sources.
        command = [*command, "-c", str(ROOT / source)]
        receipt, depends = made.with_suffix(".json"), made.with_suffix(".d")
        if made.exists() and receipt.exists():
            last = json.loads(receipt.read_text())
            if last["command"] == command and all(self.digest(f) == d for f, d in last["files"].items()):
                return made
            receipt.unlink()
        self.compiled += 1
        line = [*command, "-MMD", "-MF", str(depends), "-o", str(made)]
        ok, text = output(line)
        if not ok:
            raise CompileError(f"poolwright: {source} did not compile:\n{shlex.join(line)}\n{text}\n{WAY_OUT}")
        if text.strip():
            say(text.strip())
        # A makefile rule: "target : file file \\\n file"; spaces in names are escaped with a backslash.
        rule = depends.read_text().replace("\\\n", " ").split(":", 1)[1]
        files = [name.replace("\\ ", " ") for name in re.split(r"(?<!\\)\s+", rule.strip())]
        digests = {f: self.before.get(str(Path(f).resolve())) or self.digest(f) for f in files}
        receipt.write_text(json.dumps({"command": command, "files": digests}))
        return made


class BuildNative(build_ext):
    """Compile each source with its own flags (instruction set, CUDA), then link."""

    def build_extension(self, ext: Extension) -> None:
        try:
            import pybind11
        except ImportError as error:
            raise PlatformError(
                f"poolwright: building needs pybind11 ({error}): pip install pybind11. {WAY_OUT}"
            ) from error
        compiler = Compiler()
        nvcc, without_cuda = find_nvcc(compiler)
        if not compiler.openmp:
            say(
                f"{compiler.command[0]} has no OpenMP: the CPU kernels will run on one thread. "
                "Install libgomp (part of gcc) or libomp and build again."
            )
        common = [*compiler.command, "-std=c++17", "-O3", "-DNDEBUG", "-g0", "-fPIC", "-fvisibility=hidden"]
        common += ["-Wall", "-Wextra", "-Wno-psabi", *shlex.split(os.environ.get("CXXFLAGS", "")), *STRICT]
        levels = {name: flags for name, flags in CPU_LEVELS.items() if name != "amx" or compiler.has_amx()}
        common += ["-DPOOLWRIGHT_X86_LEVELS"] if X86 else []
        common += ["-DPOOLWRIGHT_AMX_LEVEL"] if "amx" in levels else []
        common += ["-fopenmp"] if compiler.openmp else []
        common += ["-DPOOLWRIGHT_WITH_CUDA"] if nvcc else []
        python = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
        sanitize = choose_sanitizers()
        if sanitize:
            common += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
            common += ["-O1", "-g", "-UNDEBUG", "-D_GLIBCXX_ASSERTIONS"]
        facts = {
            "LEVELS": json.dumps(",".join(levels)),
            "COMPILER": json.dumps(compiler.version),
            "OPENMP": int(compiler.openmp),
            "CUDA": int(nvcc is not None),
            "NVCC": json.dumps(f"nvcc {nvcc.version}" if nvcc else without_cuda),
            "ARCHS": json.dumps(nvcc.facts() if nvcc else ""),
        }

        def command(source: str) -> list[str] | None:
            if nvcc is None and ("cuda" in Path(source).stem or source.startswith("csrc/cuda/")):
                return None
            if source.endswith(".cu") and nvcc:
                # fmad: see STRICT.
                flags = [
                    "-O3",
                    "-DNDEBUG",
                    "-fmad=false",
                    "-Xcompiler=-fPIC,-fvisibility=hidden",
                    "--threads=0",
                ]
                return [*nvcc.base, *flags, *nvcc.gencode()]
            if source == "csrc/module.cpp":
                return [
                    *common,
                    *python,
                    *(f"-DPOOLWRIGHT_FACT_{name}={value}" for name, value in facts.items()),
                ]
            if source.startswith("csrc/bindings/"):
                return [*common, *python]
            suffix = Path(source).stem.rpartition("_")[2]
            if suffix in CPU_LEVELS and suffix not in levels:
                return None
            return [*common, *levels.get(suffix, [])]

        objects = Objects(sanitize)
        shim = [OPENMP_ON_THREADS] if sanitize == "thread" else []
        jobs = [(source, line) for source in sources() + shim if (line := command(source)) is not None]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            made = list(pool.map(lambda job: str(objects.compile(*job)), jobs))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # Symbols of the static CUDA runtime stay inside: another library in the process may bring its own.
        link = [
            "-shared",
            *made,
            "-o",
            str(target),
            "-Wl,--exclude-libs,ALL",
            *shlex.split(os.environ.get("LDFLAGS", "")),
        ]
        link += [f"-fsanitize={sanitize}"] if sanitize else []
        link += (["-fopenmp"] if compiler.openmp and not shim else []) + (nvcc.link if nvcc else [])
        ok, text = output([*compiler.command, *link])
        if not ok:
            raise CompileError(f"poolwright: linking failed:\n{text}\n{WAY_OUT}")
        openmp = "OpenMP" if compiler.openmp else "no OpenMP"
        cuda = f"CUDA {nvcc.version} ({nvcc.facts()})" if nvcc else f"no CUDA ({without_cuda})"
        say(
            f"native kernels built: CPU {'+'.join(levels)}, {openmp}, {cuda}; {compiler.version}; "
            f"{objects.compiled} of {len(jobs)} files compiled"
        )


if os.environ.get("POOLWRIGHT_NO_EXT", "0").strip() not in ("", "0"):
    say("POOLWRIGHT_NO_EXT is set: no native kernels are built; they run on torch")
    setup()
else:
    setup(
        ext_modules=[Extension("poolwright.kernels._native", sources=sources(), language="c++")],
        cmdclass={"build_ext": BuildNative},
    )
