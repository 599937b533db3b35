"""The initial pool: classes held out, what is kept of its selection, and one batch size a strategy."""

from __future__ import annotations

import json
from collections import Counter
from typing import ClassVar

import pytest
import torch

from poolwright import ConfigError, LearnerError, hookimpl, load_result, run
from poolwright.composition import Part, Roles
from poolwright.initial import draw_initial, held_out_classes

from .helpers.build import EMPTY, experiment, session
from .helpers.toys import Blobs, Lowest, Masks, Random, Signs, load


class Logging:
    """Takes the first candidates; logs its draws, counts how often it is asked in this program."""

    calls: ClassVar[Counter] = Counter()

    @hookimpl
    def update(self, cycle):
        for step in cycle.progress(range(3), "training"):
            cycle.log("loss", 3 - step)

    @hookimpl
    def score(self, cycle):
        self.calls[cycle.seed] += 1
        return torch.rand(len(cycle.pool.unlabeled), generator=cycle.generator)


@pytest.fixture(autouse=True)
def no_calls():
    Logging.calls.clear()


def drawn(hold_out, *, seed: int = 0, size: int = 8, dataset=None, strategy=Random):
    dataset = dataset or load(Blobs())
    return draw_initial(dataset, Roles(name=Part(strategy)), size, seed, reserved={}, catalog=EMPTY, hold_out=hold_out)


# -- classes held out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [Random, Lowest])
@pytest.mark.parametrize("hold_out", [1, 3, [0, "class 2"], ["class 3"]])
def test_no_sample_of_a_class_that_is_held_out_is_in_the_initial_pool(hold_out, strategy):
    data = load(Blobs())
    pool = drawn(hold_out, dataset=data, strategy=strategy, size=15)
    named = {data.classes[c] for c in data.pool.labels(pool.ids).tolist()}
    assert len(pool.selected) == 15
    assert named == set(data.classes) - set(pool.held_out)
    assert len(pool.held_out) == (hold_out if isinstance(hold_out, int) else len(hold_out))


def test_the_classes_that_are_held_out_differ_by_seed_and_are_those_of_the_seed_again():
    sets = [tuple(drawn(2, seed=seed).held_out) for seed in range(8)]
    assert sets == [tuple(drawn(2, seed=seed).held_out) for seed in range(8)]
    assert len(set(sets)) > 1


def test_without_classes_held_out_all_classes_are_there():
    data = load(Blobs())
    pool = drawn(None, dataset=data, size=40)
    assert pool.held_out == []
    assert set(data.pool.labels(pool.ids).tolist()) == {0, 1, 2, 3}


def test_held_out_classes_can_be_bought_later():
    config = experiment(Random, initial={"strategy": Random, "size": 8, "hold_out": 3}, budget=60, batch=30)
    result = run(config, catalog=EMPTY)
    labels = {i % 4 for i in result.runs[0].records[0].selected}
    assert len({i % 4 for i in result.initial[0].selected}) == 1
    assert labels == {0, 1, 2, 3}
    assert not result.runs[0].truth


@pytest.mark.parametrize(
    ("hold_out", "message"),
    [
        (4, r"initial.hold_out leaves none of the 4 classes"),
        (9, r"initial.hold_out leaves none of the 4 classes"),
        ([0, 1, 2, 3], r"leaves none"),
        ([4], r"names 4, which is no class: they are 0\.\.3"),
        ([-1], r"names -1, which is no class"),
        (["clas 1"], r"names 'clas 1', which is no class: did you mean 'class 1'"),
        (0, r"initial.hold_out.* = 0: say how many"),
        ([], r"initial.hold_out.*: say how many"),
    ],
)
def test_classes_that_cannot_be_held_out_are_refused_with_the_key(hold_out, message):
    with pytest.raises(ConfigError, match=message) as caught:
        run(experiment(Random, initial={"strategy": Random, "size": 8, "hold_out": hold_out}), catalog=EMPTY)
    assert caught.value.key[:2] == ("initial", "hold_out")


def test_too_few_samples_outside_of_the_classes_held_out_are_an_error():
    with pytest.raises(ConfigError, match=r"initial.size = 21, but the pool has 20 samples outside of the classes"):
        drawn(3, size=21)


def test_masks_have_no_class_to_hold_out():
    with pytest.raises(ConfigError, match=r"hold_out needs one class a sample; segmentation has none"):
        held_out_classes(load(Masks()), 1, 0)


# -- what is kept ------------------------------------------------------------------------------------------------


def config(**settings):
    return experiment(Random, initial={"strategy": Logging, "size": 8, "hold_out": 1}, seeds=2, **settings)


def test_logs_seconds_and_progress_of_the_selection_are_kept_and_told():
    events: list = []
    result = run(config(), catalog=EMPTY, listener=events.append)
    for pool in result.initial:
        assert pool.logs == {"logging.update.loss": [3.0, 2.0, 1.0]}
        assert set(pool.seconds) == {"update", "score", "select"}
        assert all(seconds > 0 for seconds in pool.seconds.values())
    assert [pool.seed for pool in result.initial] == [0, 1]
    told = [event for event in events if event.strategy == "initial pool"]
    assert {event.cycle for event in told} == {-1}
    assert [event.text for event in told if event.kind == "phase"] == ["update", "score", "select"] * 2
    assert [event.done for event in told if event.text == "training" and event.done] == [1, 2, 3] * 2


def test_the_selection_is_kept_in_the_folder_and_not_repeated_on_resume(tmp_path):
    first = run(config(), tmp_path / "x", catalog=EMPTY)
    assert Logging.calls == {0: 1, 1: 1}
    again = run(config(), tmp_path / "x", catalog=EMPTY, resume=True)
    assert Logging.calls == {0: 1, 1: 1}
    loaded = load_result(tmp_path / "x")
    assert first.initial == again.initial == loaded.initial
    assert [len(pool.held_out) for pool in loaded.initial] == [1, 1]


def test_a_seed_that_was_added_is_selected_and_the_others_are_not(tmp_path):
    run(config(), tmp_path / "x", catalog=EMPTY)
    more = experiment(Random, initial={"strategy": Logging, "size": 8, "hold_out": 1}, seeds=3)
    assert len(run(more, tmp_path / "x", catalog=EMPTY, resume=True).initial) == 3
    assert Logging.calls == {0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize("damage", ["{", '{"seed": 0}', '{"seed": 1, "selected": [1]}', '{"seed": 0, "selected": "x"}'])
def test_a_damaged_file_is_named_and_the_same_pool_is_selected_again(tmp_path, damage, caplog):
    first = run(config(), tmp_path / "x", catalog=EMPTY)
    path = tmp_path / "x" / "initial" / "seed-0.json"
    path.write_text(damage)
    again = run(config(), tmp_path / "x", catalog=EMPTY, resume=True)
    assert str(path) in caplog.text
    assert [pool.selected for pool in again.initial] == [pool.selected for pool in first.initial]
    assert Logging.calls == {0: 2, 1: 1}
    assert json.loads(path.read_text())["selected"] == first.initial[0].selected


# -- batch sizes -------------------------------------------------------------------------------------------------


def test_each_strategy_may_have_a_batch_of_its_own():
    result = run(
        experiment(
            Random, {"label": "by 10", "name": Random, "batch": 10}, {"label": "by 7", "name": Random, "batch": 7}
        ),
        catalog=EMPTY,
    )
    sizes = {r.strategy: [len(record.selected) for record in r.records] for r in result.runs}
    assert sizes == {"random": [5, 5, 5, 5, 0], "by 10": [10, 10, 0], "by 7": [7, 7, 6, 0]}
    assert [spec.get("batch") for spec in result.info["config"]["strategy"]] == [None, 10, 7]


@pytest.mark.parametrize("key", ["batch", "candidates"])
def test_a_session_takes_its_batch_itself_and_not_from_the_table_of_its_strategy(key):
    with pytest.raises(ConfigError, match=f"give {key} to the session itself"):
        session({"name": Random, key: 3})


@pytest.mark.parametrize("batch", [0, -1, "many"])
def test_a_batch_that_is_none_is_refused_with_its_key(batch):
    with pytest.raises(ConfigError, match="batch") as caught:
        experiment({"name": Random, "batch": batch})
    assert caught.value.key == ("strategies", 0, "batch")


def test_candidates_fewer_than_a_strategys_own_batch_are_refused():
    with pytest.raises(ConfigError, match="candidates = 8 is fewer than a batch of 9"):
        run(experiment({"name": Random, "batch": 9}, candidates=8), catalog=EMPTY)


def test_a_folder_refuses_the_same_label_with_another_batch(tmp_path):
    run(experiment({"name": Random, "batch": 10}), tmp_path / "x", catalog=EMPTY)
    with pytest.raises(ConfigError, match="holds another strategy labeled 'random'"):
        run(experiment({"name": Random, "batch": 4}), tmp_path / "x", catalog=EMPTY, resume=True)


def test_segmentation_starts_from_an_initial_strategy_too():
    config = experiment(
        Random,
        dataset={"name": Masks},
        learner=Signs,
        initial={"strategy": Logging, "size": 3},
        budget=4,
        batch=2,
    )
    result = run(config, catalog=EMPTY)
    assert [record.paid for record in result.runs[0].records] == [3, 5, 7]


# -- a learner's own weights -------------------------------------------------------------------------------------


class Fresh:
    """A learner whose file of weights lacks a layer."""

    provides = frozenset({"probabilities"})

    def load_pretrained(self, samples):
        self.weight = torch.randn(samples.shape[0], samples.n_classes)

    def fit(self, labeled, *, unlabeled, start, generator): ...

    def predict(self, inputs):
        return {"probabilities": (inputs @ self.weight).softmax(1)}


class Doubtful:
    """Selects by the first probability."""

    needs = frozenset({"probabilities"})

    @hookimpl
    def score(self, cycle):
        return cycle.probabilities()[:, 0]


class Torn(Fresh):
    def load_pretrained(self, samples):
        raise ValueError("torn file")


def test_layers_that_the_weights_lack_are_those_of_the_seed():
    def pool(seed, learner=Fresh):
        roles = Roles(name=Part(Doubtful))
        return draw_initial(load(Blobs()), roles, 8, seed, reserved={}, catalog=EMPTY, learner=learner).selected

    first = pool(0)
    torch.rand(5)
    assert pool(0) == first
    assert pool(1) != first
    with pytest.raises(LearnerError, match=r"learner Torn failed in load_pretrained: .*torn file"):
        pool(0, Torn)
