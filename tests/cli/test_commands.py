"""Help, plugins, doctor, and what starting the command line costs."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest
import torch

from poolwright import kernels, screen

COMMANDS = ("run", "report", "select", "plugins", "new", "check", "bench", "doctor")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plugins"], ["plugins", "--json"], ["run", "--help"], ["bench", "--help"]]
)
def test_light_commands_import_no_torch(arguments):
    script = (
        "import sys; sys.argv = ['poolwright', *sys.argv[1:]]\n"
        "from poolwright import cli\n"
        "try:\n    cli.main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'sklearn', 'matplotlib', 'poolwright_plugins'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(poolwright, command):
    outcome = poolwright(command, "--help")
    assert outcome.status == 0
    assert f"poolwright {command}" in outcome.out


def test_plugins_lists_the_built_in_ones_with_their_distribution(poolwright):
    rows = json.loads(poolwright("plugins", "--json").out)
    found = {(row["kind"], row["name"]): row for row in rows}
    for kind, names in {
        "strategy": "random entropy least-confidence margin coreset kmeans badge",
        "learner": "linear mlp cnn sklearn",
        "dataset": "digits fashion-mnist arrays",
        "wrapper": "stop-when",
    }.items():
        for name in names.split():
            assert found[kind, name]["distribution"] == "poolwright"
    text = poolwright("plugins", "--check")
    assert "least-confidence" in text.out


def test_an_unknown_command_is_a_usage_error(poolwright):
    outcome = poolwright("rnu")
    assert outcome.status == 2
    assert "rnu" in outcome.err


def test_doctor_tells_versions_kernels_and_overrides(poolwright, monkeypatch):
    monkeypatch.setenv("POOLWRIGHT_CPU_LEVEL", "base")
    outcome = poolwright("doctor")
    for word in ("torch", "kernels: ", "CUDA device", "POOLWRIGHT_CPU_LEVEL"):
        assert word in outcome.out


def test_doctor_says_what_was_chosen_and_why(poolwright, monkeypatch):
    monkeypatch.delenv("POOLWRIGHT_CPU_LEVEL", raising=False)
    rows = {
        name: " ".join(line.split()[1:]) for line in poolwright("doctor").out.splitlines() for name in line.split()[:1]
    }
    assert str(torch.get_num_threads()) in rows["threads"]
    assert {"FAISS", "POT", "on"} <= set(rows)
    if kernels.build_info()["native"]:
        assert "the best of this build" in poolwright("doctor").out
        monkeypatch.setenv("POOLWRIGHT_CPU_LEVEL", "base")
        assert "level base: POOLWRIGHT_CPU_LEVEL asks for it" in poolwright("doctor").out


@pytest.mark.parametrize(
    ("archs", "capability", "words"),
    [
        (["sm_80", "sm_90", "compute_90"], (9, 0), "machine code for this device (sm_90)"),
        (["sm_80", "sm_90", "compute_90"], (8, 6), "machine code for this device (sm_86)"),
        (["sm_80", "sm_90", "compute_90"], (12, 0), "compiled by the driver from PTX"),
        (["sm_90"], (8, 0), "do not run on this device (sm_80)"),
    ],
)
def test_doctor_tells_whether_the_cuda_code_fits_the_device(archs, capability, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert words in screen._cuda_choice({"cuda": True, "cuda_archs": archs, "cuda_compiler": "nvcc", "reason": ""})


def test_doctor_names_a_faiss_that_is_missing(monkeypatch):
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert screen._faiss().startswith("not installed")
    assert screen._pot(native=False).startswith("not installed: exact transport")


def test_check_asks_which_kind_and_knows_close_names(poolwright):
    assert "did you mean 'margin'" in poolwright("check", "margn").err
    assert "--kind 'strat'" in poolwright("check", "margin", "--kind", "strat").err


def test_new_refuses_two_kinds(poolwright, tmp_path):
    outcome = poolwright("new", "my-thing", "--learner", "--dataset", "--folder", tmp_path)
    assert outcome.status == 2
    assert "exclude each other" in outcome.err


def test_a_defect_keeps_its_traceback_and_ends_with_1(poolwright, tmp_path, monkeypatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("poolwright.experiment.run", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        poolwright("run", "--out", tmp_path / "run")
