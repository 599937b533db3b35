"""``poolwright train-policy``: the command, what it prints, and that `run` uses what it writes."""

from __future__ import annotations

import io
import re
import shlex
from importlib.metadata import EntryPoint

import pytest
from rich.console import Console

from poolwright import catalog, read_policy, screen
from poolwright.events import Event

CONFIG = """
seeds = 1
budget = 20
batch = 10
threads = 1
reserve_seed = 0

[dataset]
name = "digits"
subset = 200

[learner]
name = "linear"
epochs = 2
min_steps = 5

[initial]
size = 20

[reserve]
policy = 0.2

[[strategy]]
name = "random"

[[strategy]]
label = "weighing"
score = { name = "numbering", epochs = 3 }
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Return a configuration whose second strategy is a test's own, as if it were installed."""
    points = catalog.entry_points

    def more(group: str):
        own = EntryPoint("numbering", "tests.cli.policies:Numbering", "poolwright.strategies")
        return [*points(group=group), *([own] if group == own.group else [])]

    monkeypatch.setattr(catalog, "entry_points", more)
    path = tmp_path / "a.toml"
    path.write_text(CONFIG)
    return path


def test_a_policy_is_trained_and_the_run_that_is_suggested_uses_it(poolwright, config, tmp_path):
    out = tmp_path / "my policy"
    outcome = poolwright("train-policy", config, "--out", out, "--set", "numbering.epochs=2")
    assert outcome.status == 0, outcome.err
    assert "training weighing: 50% done, about 0:" in outcome.out
    assert "training weighing: 100% done" in outcome.out
    assert read_policy(out, "numbering")["done"] == 2
    suggested = re.search(r"^To use it: +(poolwright run .*)$", outcome.out, re.MULTILINE)
    run = poolwright(*shlex.split(suggested[1])[1:], "--out", tmp_path / "run")
    assert run.status == 0, run.err
    assert poolwright("train-policy", config, "--out", out).err.endswith(
        "is there already: choose another --out, or remove it to train it again\n"
    )


def test_ctrl_c_says_how_to_go_on_and_that_command_does(poolwright, config, tmp_path, monkeypatch):
    out, changed = tmp_path / "a", ["--set", "numbering.epochs=4", "--strategy", "weighing", "--seed", "7"]
    monkeypatch.setattr("tests.cli.policies.INTERRUPT_AFTER", 2)
    outcome = poolwright("train-policy", config, "--out", out, *changed)
    assert outcome.status == 130
    assert not out.exists()
    monkeypatch.undo()
    monkeypatch.setenv("COLUMNS", "200")
    command = re.search(r"^Stopped\. To go on: +(poolwright train-policy .*)$", outcome.out, re.MULTILINE)
    words = shlex.split(command[1])
    assert words[1:] == ["train-policy", str(config), "--out", str(out), *changed]


def test_what_is_stopped_goes_on_where_it_was(poolwright, config, tmp_path, monkeypatch):
    command = ["train-policy", config, "--out", tmp_path / "a", "--set", "numbering.epochs=4"]
    with monkeypatch.context() as patched:
        patched.setattr("tests.cli.policies.INTERRUPT_AFTER", 2)
        assert poolwright(*command).status == 130
    outcome = poolwright(*command)
    assert outcome.status == 0, outcome.err
    assert "going on with weighing: 50% done" in outcome.out
    assert poolwright("train-policy", config, "--out", tmp_path / "b", "--set", "numbering.epochs=4").status == 0
    assert read_policy(tmp_path / "a", "numbering") == read_policy(tmp_path / "b", "numbering")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "random"], "lacks train_policy(), state_dict(), load_state_dict(), a parameter policy"),
        (["--strategy", "weihging"], "no strategy is labeled 'weihging': did you mean 'weighing'?"),
        (["--set", "numbering.policy=old"], "strategy 'weighing' has policy = 'old' already"),
        (["--set", "numbering.epoch=3"], "did you mean 'epochs'?"),
        (["--set", "seeds=2", "--set", "reserve_seed=none"], "reserve_seed = 'none'"),
    ],
)
def test_what_cannot_be_trained_is_one_line(arguments, message, poolwright, config, tmp_path):
    outcome = poolwright("train-policy", config, "--out", tmp_path / "a", *arguments)
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list(tmp_path.glob("a.p*"))


def test_run_refuses_a_policy_that_is_not_there_before_it_makes_its_folder(poolwright, config, tmp_path):
    outcome = poolwright("run", config, "--set", f"numbering.policy={tmp_path / 'none'}", "--out", tmp_path / "run")
    assert outcome.status == 2
    assert outcome.err == (
        f"poolwright: there is no policy {tmp_path / 'none'}: train it with `poolwright train-policy CONFIG "
        f"--out {tmp_path / 'none'}`, or leave policy out\n"
    )
    assert not (tmp_path / "run").exists()


def test_the_bar_of_a_training_shows_what_is_done_of_it_and_of_a_loop(monkeypatch):
    monkeypatch.setattr(screen, "console", Console(file=io.StringIO(), force_terminal=True, width=160))
    with screen.PolicyDisplay() as display:
        display(Event("phase", "fit", "mine"))
        assert [task.description for task in display._progress.tasks] == ["first labels: fit"]
        display(Event("policy", "x", "mine", value=0.25))
        display(Event("progress", "episodes", done=3, total=8))
        display(Event("policy", "x", "mine", value=0.5))
        bars = {task.description.strip(): (task.completed, task.total) for task in display._progress.tasks}
    assert bars == {"training mine": (0.5, 1), "episodes": (3, 8)}
