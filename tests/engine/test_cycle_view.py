"""What a hook may see: needs, labels, the learner, history, and matrices beyond the memory limit."""

from __future__ import annotations

import re
import tempfile

import numpy as np
import pytest
import torch

from poolwright import (
    ConfigError,
    LabelLeakError,
    PluginError,
    PoolError,
    Rows,
    StoreError,
    hookimpl,
    run,
)

from .helpers.build import EMPTY, experiment, picks, play, session
from .helpers.toys import Blobs, Lowest, Softmax, load


def using(call, *needs: str, hook: str = "score") -> type:
    """Return a strategy that calls ``call(cycle)`` in one hook."""

    class Using:
        def __init__(self) -> None:
            self.needs = frozenset(needs)

        @hookimpl
        def update(self, cycle):
            if hook == "update":
                call(cycle)

        @hookimpl
        def score(self, cycle):
            if hook == "score":
                call(cycle)
            return torch.zeros(len(cycle.pool.unlabeled))

    return Using


@pytest.mark.parametrize(
    ("need", "what", "call"),
    [
        ("probabilities", "cycle.probabilities()", lambda cycle: cycle.probabilities()),
        ("embeddings", "cycle.embeddings()", lambda cycle: cycle.embeddings(cycle.pool.labeled)),
        ("logits", "cycle.logits()", lambda cycle: cycle.logits()),
        ("embeddings", "cycle.rows('embeddings')", lambda cycle: cycle.rows("embeddings")),
        ("features", "cycle.rows('features')", lambda cycle: cycle.rows("features")),
        ("inputs", "cycle.inputs()", lambda cycle: next(cycle.inputs())),
        ("inputs", "cycle.samples()", lambda cycle: cycle.samples(cycle.pool.labeled)),
        ("labels", "cycle.labels()", lambda cycle: cycle.labels(cycle.pool.labeled)),
        ("validation", "cycle.validation", lambda cycle: cycle.validation),
        ("learner", "cycle.learner", lambda cycle: cycle.learner),
    ],
)
def test_what_is_used_must_be_declared_and_works_when_it_is(need, what, call):
    dataset = load(Blobs(n_validation=8, features=True))
    with pytest.raises(
        PluginError, match=re.escape(f"plugin 'using' used {what} in score without declaring it")
    ) as caught:
        play(session(using(call, "labels" if need != "labels" else "inputs"), dataset=dataset))
    assert f"add {need!r} to its needs" in str(caught.value)
    play(session(using(call, need), dataset=dataset, budget=5))


def test_an_ability_of_the_learner_opens_the_learner():
    play(session(using(lambda cycle: cycle.learner.head.weight, "head"), budget=5))


@pytest.mark.parametrize(
    ("need", "message"),
    [
        ("validation", "needs validation data: set"),
        ("features", "needs the data set's own features"),
        ("dropout", "needs 'dropout', which the learner does not provide .it provides: embeddings, head, logits, prob"),
        ("truth", "reads hidden labels: set allow_truth = true"),
    ],
)
def test_needs_that_cannot_be_met_are_refused_before_anything_runs(need, message):
    with pytest.raises(ConfigError, match=f"plugin 'using' of distribution 'this program' .*{message}"):
        session(using(lambda cycle: None, need))
    with pytest.raises(ConfigError, match="needs a learner, and there is none"):
        session(using(lambda cycle: None, "learner"), learner=None)


# -- labels ------------------------------------------------------------------------------------------------------


def test_labels_are_those_that_were_told_and_of_reserved_samples():
    def call(cycle):
        assert cycle.labels(torch.tensor([3, 0])).tolist() == [3, 2 if cycle.index else 0]
        assert cycle.labels(cycle.pool.reserved("state")).tolist() == [0, 1]

    one = session(using(call, "labels"), reserve={"state": torch.tensor([40, 41])})
    one.advance()
    one.answer()
    one.advance()
    one.answer()
    one.tell([0], [2])
    one.advance()


@pytest.mark.parametrize("hidden", ["unlabeled", "asked", "released"])
def test_labels_that_nobody_told_are_a_leak(hidden):
    def call(cycle):
        if cycle.index == 1:
            ids = {"unlabeled": cycle.pool.unlabeled, "asked": cycle.pool.asked, "released": cycle.pool.batch}[hidden]
            if hidden == "released":
                cycle.pool.release(ids)
            cycle.labels(ids[:3])

    one = session(using(call, "labels", hook="update"))
    one.advance()
    one.answer()
    one.tell(one.advance()[:2], [0, 0])
    expected = r"plugin 'using' asked in update for the labels of \d samples that are not labeled, the first is id \d+"
    with pytest.raises(LabelLeakError, match=expected):
        one.advance()


@pytest.mark.parametrize("ids", [[80], [-1], [0.5]])
def test_ids_outside_the_pool_are_an_error(ids):
    with pytest.raises(PoolError, match="plugin 'using'"):
        play(session(using(lambda cycle: cycle.labels(ids), "labels")))


def test_truth_must_be_allowed_and_marks_the_results():
    def call(cycle):
        ids = cycle.pool.unlabeled
        assert cycle.truth(ids).tolist() == [i % 4 for i in ids.tolist()]

    Oracular = using(call, "truth")
    with pytest.raises(ConfigError, match="allow_truth = true"):
        run(experiment(Oracular), catalog=EMPTY)
    result = run(experiment(Oracular, Lowest, allow_truth=True), catalog=EMPTY)
    assert [one.truth for one in result.runs] == [True, False]
    assert all(record.truth for record in result.runs[0].records)


# -- the learner, the history, the samples -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda learner: learner.fit(None),
        lambda learner: learner.load_state_dict({}),
        lambda learner: setattr(learner, "rate", 1.0),
        lambda learner: setattr(learner, "head", None),
    ],
)
def test_the_learner_can_be_asked_but_not_changed(change):
    def call(cycle):
        x = torch.ones(3, 2)
        assert torch.equal(cycle.learner.predict(x)["logits"], cycle.learner.head(x))
        change(cycle.learner)

    with pytest.raises(PluginError, match=r"plugin 'using' reached for .* of the run's learner: hooks may ask it"):
        play(session(using(call, "learner")))


def test_history_and_metrics_hide_the_test_data():
    seen: list = []

    def call(cycle):
        seen.append([(record.index, record.validation, record.test) for record in cycle.history])
        assert set(cycle.metrics) == {"accuracy", "precision", "recall", "f1"}

    one = play(session(using(call), dataset=load(Blobs(n_validation=8)), budget=10))
    assert seen[1] == [(0, one.history[0].validation, {})]
    assert one.history[0].test


def test_what_a_hook_does_to_what_it_was_given_does_not_reach_the_run():
    def call(cycle):
        cycle.metrics["accuracy"] = 9.0
        for record in cycle.history:
            record.validation["accuracy"] = 9.0
        cycle.history.clear()

    one = play(session(using(call), dataset=load(Blobs(n_validation=8)), budget=10))
    assert max(record.validation["accuracy"] for record in one.history) <= 1
    assert len(one.history) == 3


def test_facts_of_the_cycle():
    def call(cycle):
        assert (cycle.index, cycle.final, cycle.budget, cycle.device, cycle.seed) == (0, False, 5, "cpu", 3)
        assert (cycle.task.name, cycle.task.headline, cycle.n_classes) == ("classification", "accuracy", 4)
        assert cycle.baseline is None
        assert len(cycle.pool) == 80
        assert torch.cat(list(cycle.inputs(batch_size=7))).shape == (72, 2)
        samples = cycle.samples(torch.tensor([9, 70]))
        assert samples.labels is None
        assert torch.equal(
            samples.inputs(torch.tensor([1])), cycle.samples(torch.tensor([70])).inputs(torch.tensor([0]))
        )
        assert list(cycle.progress([1, 2], "loop")) == [1, 2]
        assert cycle.validation.labels.tolist() == [0, 1, 2, 3] * 2

    one = session(using(call, "inputs", "validation"), dataset=load(Blobs(n_validation=8)), budget=5, seed=3)
    play(one)


def test_outputs_are_computed_once_and_together():
    passes: list = []

    class Counting(Softmax):
        def predict(self, inputs):
            passes.append(len(inputs))
            return super().predict(inputs)

    def call(cycle):
        assert torch.equal(cycle.probabilities(), cycle.logits().softmax(1))
        assert torch.equal(cycle.embeddings()[:], cycle.rows("embeddings")[:])
        cycle.probabilities()

    one = session(using(call, "probabilities", "logits", "embeddings"), learner=Counting, report=False, budget=5)
    play(one)
    assert passes == [72]


# -- memory ------------------------------------------------------------------------------------------------------


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_beyond_the_memory_limit_matrices_are_errors_and_rows_work_and_leave_nothing_behind(scratch):
    seen: list = []

    def call(cycle):
        with pytest.raises(
            PoolError, match=r"probabilities of 72 samples take .* more than the memory limit .* read cycle.rows"
        ):
            cycle.probabilities()
        rows = cycle.rows("probabilities")
        assert isinstance(rows, Rows)
        assert rows.shape == (72, 4)
        blocks = list(rows.blocks())
        assert max(block.nbytes for _, block in blocks) <= 200
        seen.append(torch.cat([block for _, block in blocks]))
        picked = cycle.pool.unlabeled[:3]
        assert torch.allclose(cycle.probabilities(picked), seen[-1][:3])
        # What fits into memory stays there.
        assert cycle.rows("probabilities").take(torch.tensor([5]))[:].shape == (1, 4)

    expected: list = []
    small = play(session(using(call, "probabilities"), memory_limit=200, budget=5))
    large = play(session(using(lambda cycle: expected.append(cycle.probabilities()), "probabilities"), budget=5))
    assert torch.equal(seen[0], expected[0])
    assert picks(small) == picks(large)
    assert list(scratch.iterdir()) == []


def test_spilled_files_are_removed_after_an_error_too(scratch):
    def call(cycle):
        cycle.rows("probabilities")
        raise ZeroDivisionError

    with pytest.raises(
        PluginError, match=r"'using' of distribution 'this program' failed in score .cycle 0.: ZeroDivision"
    ):
        play(session(using(call, "probabilities"), memory_limit=200))
    assert list(scratch.iterdir()) == []


def test_a_disk_without_room_for_a_matrix_is_an_error_that_says_where(scratch, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StoreError, match=f"no room for .* of probabilities in {scratch}: No space left"):
        play(session(using(lambda cycle: cycle.rows("probabilities"), "probabilities"), memory_limit=200))


def test_rows_kept_from_update_outlive_the_candidates_of_score(scratch):
    """A file that is written anew under a mapping of it would end the process by SIGBUS."""

    class Keeping:
        needs = frozenset({"probabilities"})

        @hookimpl
        def update(self, cycle):
            self.rows = cycle.rows("probabilities")
            self.copy = self.rows[:].clone()

        @hookimpl
        def score(self, cycle):
            assert cycle.rows("probabilities").shape == (40, 4)
            assert torch.equal(self.rows[:], self.copy)
            return torch.zeros(40)

    play(session(Keeping, dataset=load(Blobs(n=2000)), candidates=40, memory_limit=200, budget=5))


def test_features_are_rows_of_the_unlabeled():
    def call(cycle):
        rows = cycle.rows("features")
        assert rows.shape == (len(cycle.pool.unlabeled), 2)
        assert np.allclose(rows[:], 10 * next(cycle.inputs(batch_size=1000)))

    play(session(using(call, "features", "inputs"), dataset=load(Blobs(features=True)), budget=5))
