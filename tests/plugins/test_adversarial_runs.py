"""VAAL and SRAAL in whole experiments: the initial pool, the log, the report, a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from poolwright import Cycle, Experiment, load_result, run, testing
from poolwright.report import write_html
from poolwright_plugins.strategies.sraal import SRAAL
from poolwright_plugins.strategies.vaal import VAAL

from .adversarial_parts import SMALL, cycle_with, logged, trained


def experiment(**changes: Any) -> Experiment:
    """Return a small experiment on digits."""
    return Experiment.model_validate(
        {
            "dataset": {"name": "digits", "subset": 120},
            "learner": "linear",
            "initial": {"strategy": "sraal-init", "size": 20, **SMALL},
            "budget": 20,
            "batch": 10,
            "threads": 1,
            "strategy": [{"name": "vaal", **SMALL}, {"name": "sraal", **SMALL}],
        }
        | changes
    )


def test_an_experiment_logs_the_losses_of_each_cycle_and_the_report_shows_them(tmp_path) -> None:
    result = run(experiment(), tmp_path / "run")
    write_html(result, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")

    for one in result.runs:
        assert one.complete
        assert [record.labeled for record in one.records] == [20, 30, 40]
        for record in one.records[:2]:
            assert len(record.logs[f"{one.strategy}.update.reconstruction"]) == SMALL["epochs"]
            assert record.seconds["update"] > 0
            assert record.seconds["score"] > 0
        assert one.records[-1].logs == {}
        for name in one.records[0].logs:
            assert name in page


def test_all_strategies_start_from_the_same_initial_pool() -> None:
    result = run(experiment(seeds=[3]))
    first = [one.records[0] for one in result.runs]

    assert first[0].test == first[1].test
    assert first[0].streams["learner"] == first[1].streams["learner"]


KILLED = """
import os, signal, sys
from poolwright import run
from tests.plugins.test_adversarial_runs import experiment

def listen(event):
    if event.kind == "progress" and event.text.startswith("sraal: training") and event.cycle == 1 and event.done == 5:
        os.kill(os.getpid(), signal.SIGKILL)

run(experiment(), sys.argv[1], listener=listen)
"""


def test_killed_in_the_middle_of_a_training_it_ends_as_if_it_never_was(tmp_path) -> None:
    whole = run(experiment())
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "run")], cwd=root, check=False, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not all(one.complete for one in load_result(tmp_path / "run").runs)
    resumed = run(experiment(), tmp_path / "run", resume=True)

    for one, other in zip(whole.runs, resumed.runs, strict=True):
        assert [record.selected for record in one.records] == [record.selected for record in other.records]
        assert [record.logs for record in one.records] == [record.logs for record in other.records]


def cycle_of_images(channels: int, size: int) -> Cycle:
    return cycle_with(testing.make_dataset(n=8, shape=(channels, size, size)), labeled=3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 32, 64, 220, 224])
@pytest.mark.parametrize("plugin", [VAAL, SRAAL])
def test_images_of_any_size_are_scored(plugin, size, channels) -> None:
    scores = trained(plugin(width=2, latent=3, epochs=1, batch_size=4), cycle_of_images(channels, size))

    assert scores.shape == (5,)
    assert bool(torch.isfinite(scores).all())


def test_only_the_candidates_of_a_cycle_are_scored() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL)
    scores = trained(strategy, cycle)
    cycle._state.candidates = cycle.pool.unlabeled[5:12]

    torch.testing.assert_close(strategy.score(cycle), scores[5:12], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("plugin", [VAAL, SRAAL])
def test_digits_are_learned_with_the_settings_for_two_cores(plugin) -> None:
    """The settings that the docstrings name: the autoencoder learns, its latent space is used, and D tells apart."""
    from poolwright_plugins.datasets.digits import Digits

    digits = Digits()
    digits.load()
    cycle = cycle_with(digits, labeled=150)
    params = {"beta_stl": 0.01} if plugin is SRAAL else {}
    trained(plugin(width=16, epochs=50, reconstruction="sum", beta=0.1, **params), cycle)

    series = logged(cycle, "reconstruction")
    assert series[-1] < 0.1 * series[0]
    assert logged(cycle, "active_units")[-1] >= 16
    assert logged(cycle, "auc")[-1] > 0.6
