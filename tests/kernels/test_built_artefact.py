"""The extension as it was built and installed. Nothing is built here."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from poolwright import kernels

INFO = kernels.build_info()


def test_build_info_names_what_was_built(native):
    info = kernels.build_info()
    assert info["reason"] == ""
    assert info["level"] in info["levels"]
    assert info["levels"][0] == "base"
    assert set(info["levels"]) <= set(info["levels_built"])
    assert info["compiler"]
    assert info["cuda_compiler"]  # its version, or why there is none
    assert bool(info["cuda_archs"]) == info["cuda"]


def test_build_info_has_the_same_keys_without_the_extension(monkeypatch):
    keys = set(kernels.build_info())
    from poolwright.kernels import _native_build

    monkeypatch.setattr(_native_build, "load", lambda: (None, "not built"))
    info = kernels.build_info()
    assert set(info) == keys
    assert (info["native"], info["reason"], info["level"], info["cuda"]) == (False, "not built", None, False)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_the_extension_loads_no_driver_no_cuda_runtime_and_no_torch(native):
    code = (
        "import poolwright.kernels as k; assert k.build_info()['native']; "
        "print({line.split('/')[-1].strip() for line in open('/proc/self/maps') if '/' in line})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "_native" in done.stdout
    for library in ("libcuda", "libcudart", "libtorch", "libc10", "libnvrtc"):
        assert library not in done.stdout


def cuobjdump() -> str | None:
    """The tool on PATH, in the toolkit, or as torch's compiler package brings it."""
    folders = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        folders.append(str(Path(triton.origin).parent / "backends" / "nvidia"))
    found = (shutil.which("cuobjdump", path=f"{folder}/bin") for folder in folders if folder)
    return shutil.which("cuobjdump") or next((path for path in found if path), None)


@pytest.mark.skipif(not INFO["cuda"], reason=f"built without CUDA ({INFO['cuda_compiler'] or INFO['reason']})")
@pytest.mark.skipif(cuobjdump() is None, reason="there is no cuobjdump to look into the extension with")
def test_the_extension_holds_the_cuda_code_that_it_names(native):
    def listing(what: str, suffix: str) -> set[str]:
        command = [str(cuobjdump()), what, native.__file__]
        text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        return set(re.findall(rf"sm_(\w+)\.{suffix}", text))

    named = kernels.build_info()["cuda_archs"]
    assert listing("--list-elf", "cubin") == {name[3:] for name in named if name.startswith("sm_")}
    assert listing("--list-ptx", "ptx") == {name[8:] for name in named if name.startswith("compute_")}
    if "POOLWRIGHT_CUDA_ARCHS" not in os.environ:
        assert named == ["sm_80", "sm_90", "compute_90"]
