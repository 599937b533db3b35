"""Who is named when something fails inside a hook or a learner: the plugin, its hook, its own line."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
import torch

from poolwright import LearnerError, PluginError, PoolwrightError, hookimpl, load_result, run

from .helpers.build import EMPTY, experiment, play, roles, session
from .helpers.toys import Blobs, Flat, LeastConfident, Lowest, Softmax, load

# -- hooks -------------------------------------------------------------------------------------------------------


class Broken:
    """Fails by itself, or inside a library that it calls; the line is said to the engine's user."""

    library = False

    @hookimpl
    def score(self, cycle):
        if self.library:
            json.loads("{")
        raise ValueError("out of luck")


@pytest.mark.parametrize(("library", "line"), [(False, 4), (True, 3)])
def test_an_exception_in_a_hook_names_file_and_line_of_the_plugins_own_code(library, line, monkeypatch):
    monkeypatch.setattr(Broken, "library", library)
    here = f"{Path(__file__).name}:{Broken.score.__code__.co_firstlineno + line}"
    with pytest.raises(PluginError, match=r"plugin 'broken'.* failed in score \(cycle 0\)") as caught:
        play(session(Broken))
    assert here in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_exception_in_a_wrapper_names_its_own_line():
    class Failing:
        @hookimpl(wrapper=True)
        def score(self, cycle):
            yield
            raise ValueError("out of luck")

    here = f"{Path(__file__).name}:{Failing.score.__code__.co_firstlineno + 3}"
    with pytest.raises(PluginError, match=r"plugin 'failing'") as caught:
        play(session(roles(Flat, wrappers=[Failing])))
    assert here in str(caught.value)


NOTEBOOK = """
class Cell:
    @hookimpl
    def score(self, cycle):
        raise ValueError("out of luck")

"""


@pytest.mark.parametrize("module", ["notebook", "__main__"])
def test_a_plugin_whose_code_has_no_file_is_named_all_the_same(module, monkeypatch):
    """As those that are written in a notebook, or read from standard input."""
    cell = types.ModuleType(module)
    monkeypatch.setitem(sys.modules, module, cell)
    cell.hookimpl = hookimpl
    exec(compile(NOTEBOOK, "<cell 1>", "exec"), cell.__dict__)
    with pytest.raises(PluginError, match=r"plugin 'cell'.* failed in score \(cycle 0\).*: ValueError: out of luck"):
        play(session(cell.Cell))


def test_an_error_that_the_engine_raises_in_a_hook_is_not_wrapped():
    class Releasing(Lowest):
        @hookimpl
        def update(self, cycle):
            cycle.pool.release([70])

    with pytest.raises(PoolwrightError) as caught:
        play(session(Releasing))
    assert not isinstance(caught.value, PluginError)


# -- learners ----------------------------------------------------------------------------------------------------


class Failing(Softmax):
    """Its predict fails for batches of one size."""

    size = 0

    def predict(self, inputs):
        if len(inputs) == self.size:
            raise RuntimeError("boom\nsecond line")
        return super().predict(inputs)


FAILED = r"learner Failing failed to predict {} samples.*: RuntimeError: boom"


@pytest.mark.parametrize(
    ("size", "settings"), [(12, {}), (40, {}), (72, {}), (40, {"learner": Softmax, "report_learner": Failing})]
)
def test_a_prediction_that_fails_blames_the_learner_and_is_kept_in_the_run(size, settings, tmp_path, monkeypatch):
    """In the evaluation on validation data, on test data, in a query, and by the learner of the report."""
    monkeypatch.setattr(Failing, "size", size)
    configured = experiment(LeastConfident, **({"learner": Failing} | settings))
    with pytest.raises(LearnerError, match=FAILED.format(size)) as caught:
        run(configured, tmp_path / "out", catalog=EMPTY)
    assert "\n" not in str(caught.value)
    assert load_result(tmp_path / "out").runs[0].error == str(caught.value)
    kept = run(configured, tmp_path / "other", catalog=EMPTY, keep_going=True)
    assert [one.error for one in kept.runs] == [str(caught.value)]


@pytest.mark.parametrize("way", ["predict", "rows", "simulate"])
def test_a_prediction_that_fails_in_a_hook_blames_the_learner(way, monkeypatch):
    monkeypatch.setattr(Failing, "size", 9)

    class Asking(Lowest):
        needs = frozenset({"learner", "inputs", "embeddings", "labels"})

        @hookimpl
        def update(self, cycle):
            if way == "predict":
                cycle.learner.predict(torch.ones(9, 2))
            elif way == "rows":
                cycle.embeddings(torch.arange(9))
            else:
                monkeypatch.setattr(Failing, "size", 12)
                cycle.simulate(cycle.pool.labeled, start=4, budget=2, seed=0).advance()

    class Late(Failing):
        """Fails on the validation data only in the episode, which is fitted on four samples."""

        def fit(self, labeled, **options):
            super().fit(labeled, **options)
            if way == "simulate":
                monkeypatch.setattr(Failing, "size", 12 if len(labeled) == 4 else 0)

    Late.__name__ = "Failing"
    with pytest.raises(LearnerError, match=FAILED.format(12 if way == "simulate" else 9)):
        play(session(Asking, learner=Late, dataset=load(Blobs(n_validation=12))))


def test_a_member_of_a_plugin_is_not_called_by_another_error_than_its_own():
    class Asking(Lowest):
        needs = frozenset({"learner"})

        @hookimpl
        def update(self, cycle):
            cycle.learner.sample(torch.ones(2, 2), cycle.generator)

    with pytest.raises(PoolwrightError, match=r"'asking'.*sample.*learner Softmax"):
        play(session(Asking))
