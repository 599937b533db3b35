"""`poolwright new`: what it writes is installed, run and tested as a user would."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from poolwright import ConfigError
from poolwright.catalog import KINDS
from poolwright.scaffold import create

from .third_party.environment import Environment, Outcome

SMALL = [
    "run",
    "--set",
    "threads=1",
    "--learner",
    "linear",
    "--set",
    "learner.epochs=1",
    "--seeds",
    "1",
    "--budget",
    "20",
    "--batch",
    "10",
]
USES = {
    "strategy": ["--strategy", "brand-new-strategy"],
    "learner": [
        "--strategy",
        "margin",
        "--learner",
        "brand-new-learner",
        "--set",
        'learner={name = "brand-new-learner"}',
    ],
    "dataset": ["--strategy", "margin", "--dataset", "brand-new-dataset"],
    "wrapper": ["--strategy", "margin", "--set", 'wrappers=[{name = "brand-new-wrapper", threshold = 100.0}]'],
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A package of each kind."""
    folder = tmp_path_factory.mktemp("new")
    return {kind: create(f"brand-new-{kind}", kind, folder) for kind in KINDS}


@pytest.fixture(scope="module")
def installed(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which the packages are installed as their README says."""
    environment = Environment(tmp_path_factory.mktemp("scaffold") / "venv")
    environment.install(*packages.values(), editable=True)
    return environment


@pytest.fixture(scope="module")
def outcomes(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What `poolwright run` and `poolwright check` did with each."""
    folder = tmp_path_factory.mktemp("runs")
    cases = {kind: [*SMALL, *use, "--out", str(folder / kind)] for kind, use in USES.items()}
    cases |= {f"check {kind}": ["check", f"brand-new-{kind}"] for kind in KINDS}
    return dict(zip(cases, installed.poolwright(*cases.values()), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_can_be_run_once_it_is_installed(outcomes, kind):
    assert outcomes[kind].status == 0, outcomes[kind].out + outcomes[kind].err


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_passes_the_conformance_suite(outcomes, kind):
    assert outcomes[f"check {kind}"].status == 0, outcomes[f"check {kind}"].out
    assert "FAIL" not in outcomes[f"check {kind}"].out


def test_the_tests_of_new_packages_pass(installed, packages):
    tests = [str(next((package / "tests").glob("test_*.py"))) for package in packages.values()]
    done = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)

    assert done.status == 0, done.out + done.err
    assert "8 passed" in done.out


def test_new_packages_are_clean_and_name_nothing_of_this_machine(packages):
    from subprocess import run

    for package in packages.values():
        for command in (["check", "--select", "E,F,W,I,B,UP"], ["format", "--check"]):
            line = [sys.executable, "-m", "ruff", command[0], "--isolated", "--line-length", "110", *command[1:], "."]
            done = run(line, cwd=package, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout
        files = [path for path in package.rglob("*") if path.suffix in (".py", ".md", ".toml")]
        assert {path.name for path in files} >= {"pyproject.toml", "README.md", "__init__.py"}
        for path in files:
            text = path.read_text()
            assert str(Path.home()) + "/" not in text
            assert "{{" not in text
            assert "{%" not in text
            assert text.endswith("\n")
            assert not text.endswith("\n\n")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("class", "word of the Python language"),
        ("none", "word of the Python language"),
        ("My-Strategy", "small letters"),
        ("my_strategy", "small letters"),
        ("2nd", "small letters"),
        ("a/b", "small letters"),
        ("", "small letters"),
        ("..", "small letters"),
        ("margin", "strategy 'margin' of distribution 'poolwright' is installed already"),
        ("queue", "there is a Python module 'queue' already"),
        ("torch", "there is a Python module 'torch' already"),
        ("scikit-learn", "a distribution 'scikit-learn' is installed already"),
    ],
)
def test_names_that_cannot_be_used_are_refused_and_nothing_is_written(tmp_path, name, reason):
    with pytest.raises(ConfigError) as caught:
        create(name, "strategy", tmp_path)

    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_another_kind_of_plugin_can_be_used(tmp_path):
    assert create("margin", "learner", tmp_path) == tmp_path / "margin"


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "my-new-thing").mkdir()

    with pytest.raises(ConfigError, match="exists already"):
        create("my-new-thing", "strategy", tmp_path)
    assert list((tmp_path / "my-new-thing").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"cannot write .*file"):
        create("my-new-thing", "strategy", tmp_path / "file")


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'strategy'"):
        create("my-new-thing", "strateegy", tmp_path)


def test_a_name_of_several_words_gives_module_and_class(tmp_path):
    package = create("my-best-2nd-try", "wrapper", tmp_path / "made" / "on the way")

    assert "class MyBest2ndTry:" in (package / "src" / "my_best_2nd_try" / "__init__.py").read_text()
    assert 'my-best-2nd-try = "my_best_2nd_try:MyBest2ndTry"' in (package / "pyproject.toml").read_text()
