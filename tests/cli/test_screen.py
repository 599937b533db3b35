"""The bars that `poolwright run` shows, for one run after the other and for several side by side."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from poolwright import Experiment, Part, Roles, load_dataset, screen
from poolwright.catalog import Catalog
from poolwright.events import Event
from poolwright.initial import draw_initial


@pytest.fixture
def shown(monkeypatch):
    """Return a function that plays events on a terminal and returns the descriptions and states of its bars."""
    monkeypatch.setattr(screen, "console", Console(file=io.StringIO(), force_terminal=True, width=160))

    def play(events: list[Event], jobs: int) -> dict[str, tuple[float, float | None]]:
        experiment = Experiment(strategies=["random", "margin"], seeds=2, budget=40)
        with screen.RunDisplay(experiment, jobs) as display:
            for event in events:
                display(event)
            tasks = [task for task in display._progress.tasks if task.visible]
        return {task.description.strip(): (task.completed, task.total) for task in tasks}

    return play


def phase(strategy: str, seed: int, text: str, done: int) -> Event:
    return Event("phase", text, strategy, seed, cycle=1, done=done, total=40)


def loop(strategy: str, seed: int, done: int) -> Event:
    return Event("progress", "training", strategy, seed, cycle=1, done=done, total=9)


def test_one_run_after_the_other_has_a_bar_for_all_and_one_for_a_loop(shown):
    events = [phase("random", 0, "fit", 20), loop("random", 0, 4)]
    assert shown(events, 1) == {"random, seed 0, cycle 1: fit": (20, 160), "training": (4, 9)}
    assert shown([*events, phase("random", 0, "score", 20)], 1) == {"random, seed 0, cycle 1: score": (20, 160)}
    finished = [*events, Event("run", "", "random", 0), phase("margin", 0, "fit", 10)]
    assert shown(finished, 1) == {"margin, seed 0, cycle 1: fit": (50, 160)}


def test_runs_side_by_side_have_a_bar_each(shown):
    events = [phase("random", 0, "fit", 20), phase("margin", 0, "fit", 10), loop("random", 0, 4)]
    assert shown(events, 2) == {
        "0 of 4 runs done, 2 going on": (30, 160),
        "random, seed 0: training": (4, 9),
        "margin, seed 0, cycle 1: fit": (10, 40),
    }
    events += [Event("run", "", "random", 0), phase("margin", 0, "fit", 20), phase("random", 1, "fit", 0)]
    assert shown(events, 2) == {
        "1 of 4 runs done, 2 going on": (60, 160),
        "margin, seed 0, cycle 1: fit": (20, 40),
        "random, seed 1, cycle 1: fit": (0, 40),
    }


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_loop_of_an_initial_pool_is_gone_once_a_cycle_begins(shown, jobs):
    events: list[Event] = []
    dataset = load_dataset("digits", subset=60)
    roles = Roles(name=Part("random"))
    draw_initial(dataset, roles, 5, 0, reserved={}, catalog=Catalog(), listener=events.append)
    events.append(replace(events[-1], kind="progress", text="training", done=3, total=9))
    assert shown(events, jobs)["initial pool, seed 0: training"] == (3, 9)
    bars = shown([*events, phase("random", 0, "fit", 0)], jobs)
    assert not any("training" in bar or "initial pool" in bar for bar in bars)
    if jobs > 1:
        assert "0 of 4 runs done, 1 going on" in bars, "an initial pool is no run"
