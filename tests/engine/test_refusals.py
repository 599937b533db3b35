"""What a user gets wrong is said at once, in one error, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from poolwright import (
    ConfigError,
    Dataset,
    DatasetError,
    LabelLeakError,
    PluginError,
    SubsetSplit,
    TensorSplit,
    hookimpl,
    load_result,
    run,
)
from poolwright.preparation import load_dataset

from .helpers.build import EMPTY, compose, experiment, roles, session
from .helpers.toys import Blobs, Flat, LeastConfident, Lowest, Masks, Random, Signs, Softmax


class WantsDropout(Random):
    needs = frozenset({"dropout"})


class WantsFeatures(Random):
    needs = frozenset({"features"})


class WantsTruth(Random):
    needs = frozenset({"truth"})

    @hookimpl
    def score(self, cycle):
        return -cycle.truth(cycle.pool.unlabeled).float()


class ForMasks(Random):
    tasks = frozenset({"segmentation"})


class WithoutProvides:
    def fit(self, labeled, *, unlabeled, start, generator):
        pass

    def predict(self, inputs):
        return {"probabilities": torch.full((len(inputs), 4), 0.25)}


# -- before anything is written ----------------------------------------------------------------------------------

MISTAKES = {
    "budget": ({"budget": 73}, "budget = 73, but only 72 samples are left"),
    "initial size": ({"initial": {"strategy": Random, "size": 81}}, "initial.size = 81, but the pool has 80 samples"),
    "needs of the learner": ({"strategies": [Lowest, WantsDropout]}, "'wants-dropout'.* needs 'dropout'"),
    "needs of the data set": ({"strategies": [Lowest, WantsFeatures]}, "'wants-features'.* needs the data set's own"),
    "hidden labels": ({"strategies": [Lowest, WantsTruth]}, "'wants-truth'.* set allow_truth = true"),
    "task": ({"strategies": [Lowest, ForMasks]}, "'for-masks'.* works for segmentation"),
    "role": ({"strategies": [Lowest, {"name": Flat, "select": Random}]}, "'random'.* has no select hook"),
    "useless role": ({"strategies": [Lowest, {"score": Random, "select": Lowest}]}, "score = 'random' has no use"),
    "no role": ({"strategies": [Lowest, {"label": "none", "update": [Lowest]}]}, "update names 'lowest'"),
    "parameter": ({"strategies": [Lowest, {"name": Random, "b": 1}]}, "'random' has no parameter 'b'"),
    "reserve": ({"reserve": {"state": 0.001}}, "reserve.*state.* 0.001"),
    "candidates": ({"candidates": 3}, "candidates = 3 is fewer than a batch of 5"),
    "start": ({"learner": {"name": Signs, "start": "warm"}}, "Signs keeps no state"),
    "superclasses": ({"oracle": {"rate": 0.1, "superclass": True}}, "superclass = true, but this data set names none"),
    "initial needs": (
        {"initial": {"strategy": LeastConfident, "size": 8}},
        "the initial pool: .*'least-confident'.* needs 'probabilities'",
    ),
    "initial truth": ({"initial": {"strategy": WantsTruth, "size": 8}}, "allow_truth = true"),
    "resampling": ({"dataset": {"name": Blobs, "subset": 81}}, "subset = 81, but there are 80 samples"),
    "device": ({"device": "gpu"}, "device = 'gpu': write auto, cpu, cuda"),
}


def written(out: Path) -> list[str]:
    """Return the names of what a run wrote; the empty file that locks the folder is nothing of the run."""
    return [path.name for path in out.iterdir() if path.name != ".lock"] if out.exists() else []


@pytest.mark.parametrize("keep_going", [False, True])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_begin_is_refused_once_before_anything_is_written(mistake, keep_going, tmp_path):
    settings, message = MISTAKES[mistake]
    out, events = tmp_path / "out", []
    with pytest.raises(ConfigError, match=message):
        run(
            experiment(**({"strategies": [Lowest, Random], "seeds": 2} | settings)),
            out,
            catalog=EMPTY,
            keep_going=keep_going,
            listener=events.append,
        )
    assert not [event for event in events if event.kind in ("failed", "cycle", "run")]
    assert written(out) == []
    corrected = run(experiment(Lowest, Random), out, catalog=EMPTY)
    assert [one.complete for one in corrected.runs] == [True, True]
    assert load_result(out).runs == corrected.runs


def test_a_refused_run_leaves_no_file_at_all(tmp_path):
    with pytest.raises(ConfigError, match="budget = 73"):
        run(experiment(Lowest, budget=73), tmp_path / "out", catalog=EMPTY)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learner": WithoutProvides}, "WithoutProvides has no provides"),
        ({"report_learner": WithoutProvides}, "WithoutProvides has no provides"),
        ({"dataset": type("Nothing", (Blobs,), {"load": lambda self: None})}, "has no .* after load"),
    ],
)
def test_broken_plugins_are_found_before_anything_is_written(settings, message, tmp_path):
    with pytest.raises((PluginError, DatasetError), match=message):
        run(experiment(Lowest, **settings), tmp_path / "out", catalog=EMPTY, keep_going=True)
    assert written(tmp_path / "out") == []
    assert run(experiment(Lowest), tmp_path / "out", catalog=EMPTY).runs[0].complete


def test_a_refused_addition_leaves_the_run_that_is_there_as_it_was(tmp_path):
    first = run(experiment(Lowest), tmp_path / "out", catalog=EMPTY)
    with pytest.raises(ConfigError, match="'for-masks'"):
        run(experiment(Lowest, ForMasks), tmp_path / "out", resume=True, catalog=EMPTY)
    assert load_result(tmp_path / "out").runs == first.runs
    assert load_result(tmp_path / "out").strategies == ["lowest"]
    assert run(experiment(Lowest, Random), tmp_path / "out", resume=True, catalog=EMPTY).failures == []


# -- learners ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["provides", "fit", "predict"])
@pytest.mark.parametrize("role", ["learner", "report_learner"])
def test_a_learner_that_lacks_a_member_is_one_clear_error(role, missing):
    members = {name: getattr(Softmax, name) for name in ("provides", "fit", "predict") if name != missing}
    Partial = type("Partial", (), members)
    with pytest.raises(PluginError, match=f"learner Partial has no {missing}"):
        session(Lowest, **{role: Partial})


# -- data sets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["pool", "test", "classes", "task"])
def test_a_data_set_that_lacks_a_member_after_load_is_one_clear_error(missing):
    given = {
        "task": "classification",
        "classes": ("a", "b"),
        "pool": TensorSplit(torch.rand(9, 2), torch.arange(9) % 2),
        "test": TensorSplit(torch.rand(9, 2), torch.arange(9) % 2),
    }

    class Partial(Dataset):
        def load(self):
            for name, value in given.items():
                if name != missing:
                    setattr(self, name, value)

    with pytest.raises(DatasetError, match=rf"Partial.* has no {missing} after load"):
        load_dataset(Partial, EMPTY)


@pytest.mark.parametrize("missing", ["validation", "features", "superclasses"])
def test_a_data_set_of_ones_own_that_lacks_an_optional_member_is_one_clear_error(missing):
    split = TensorSplit(torch.rand(9, 2), torch.arange(9) % 2)
    given = {"task": "classification", "classes": ("a", "b"), "pool": split, "test": split, "load": lambda self: None}
    given |= {name: None for name in ("validation", "features", "superclasses") if name != missing}

    with pytest.raises(DatasetError, match=rf"Own.* has no {missing} after load.*subclass poolwright.Dataset"):
        load_dataset(type("Own", (), given), EMPTY)


class Computed:
    """A split of a user's own, whose samples are made on demand."""

    def __init__(self, labels):
        self.y = torch.as_tensor(labels)

    def __len__(self):
        return len(self.y)

    def inputs(self, ids):
        return ids[:, None].float()

    def labels(self, ids):
        return self.y[ids]


@pytest.mark.parametrize("part", ["pool", "validation", "test"])
@pytest.mark.parametrize(("label", "count"), [(4, 1), (7, 2), (-1, 3)])
@pytest.mark.parametrize("nested", [False, True])
def test_labels_of_a_split_of_ones_own_are_checked_when_it_is_loaded(nested, label, count, part):
    labels = torch.arange(40) % 4
    labels[5 : 5 + count] = label

    class Own(Blobs):
        def load(self):
            super().load()
            wrong = Computed(labels)
            setattr(self, part, SubsetSplit(wrong, torch.arange(40)) if nested else wrong)

    expected = rf"{count} labels of its {part} lie outside 0\.\.3, the first is {label} at id 5"
    with pytest.raises(DatasetError, match=expected):
        load_dataset(Own, EMPTY)


def test_a_split_of_ones_own_with_labels_in_range_and_one_with_masks_are_taken():
    class Own(Blobs):
        def load(self):
            super().load()
            self.pool = Computed(torch.arange(40) % 4)

    assert len(load_dataset(Own, EMPTY).pool) == 40
    assert len(load_dataset(Masks, EMPTY).pool) == 12


# -- strategies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["tryfirst", "trylast"])
def test_the_order_of_calls_is_not_a_plugins_to_choose(order):
    class Pushing:
        @hookimpl(**{order: True})
        def score(self, cycle):
            return torch.zeros(len(cycle.pool.unlabeled))

    class Wrapping:
        @hookimpl(wrapper=True, **{order: True})
        def score(self, cycle):
            return (yield)

    with pytest.raises(PluginError, match=f"plugin 'pushing'.*score uses {order}"):
        compose(Pushing)
    with pytest.raises(PluginError, match=f"plugin 'wrapping'.*score uses {order}"):
        compose(roles(Flat).name, wrappers=[Wrapping])


@pytest.mark.parametrize(("share", "counted"), [(0.001, 0), (0.01, 1)])
def test_a_reserve_that_would_hold_nothing_is_refused_by_its_name(share, counted):
    seen: list = []

    class Looking(Random):
        @hookimpl
        def update(self, cycle):
            seen.append(len(cycle.pool.reserved("state")))

    configured = experiment(Looking, reserve={"state": share}, budget=0)
    if counted:
        run(configured, catalog=EMPTY)
        assert seen == [counted]
    else:
        with pytest.raises(ConfigError, match="state") as caught:
            run(configured, catalog=EMPTY)
        assert caught.value.key == ("reserve", "state")


# -- hidden labels for the initial pool --------------------------------------------------------------------------


def test_an_initial_strategy_may_read_hidden_labels_where_that_is_allowed_and_the_records_are_marked(tmp_path):
    started: list = []

    class Looking(Lowest):
        needs = frozenset({"labels"})

        @hookimpl
        def update(self, cycle):
            started.append(cycle.labels(cycle.pool.labeled).tolist())

    initial = {"strategy": WantsTruth, "size": 8}
    with pytest.raises(ConfigError, match="allow_truth = true"):
        run(experiment(Looking, initial=initial), catalog=EMPTY)
    result = run(experiment(Looking, initial=initial, allow_truth=True), tmp_path / "out", catalog=EMPTY)
    assert all(record.truth for record in result.runs[0].records)
    assert all(one.truth for one in load_result(tmp_path / "out").runs)
    assert started[0] == [0] * 8  # the lowest labels were wanted


def test_allowing_hidden_labels_marks_no_run_that_does_not_read_them():
    result = run(experiment(Lowest, WantsTruth, allow_truth=True), catalog=EMPTY)
    assert [one.truth for one in result.runs] == [False, True]


def test_an_undeclared_look_at_the_truth_of_the_initial_pool_is_refused_too():
    class Peeking(Random):
        @hookimpl
        def score(self, cycle):
            return cycle.truth(cycle.pool.unlabeled).float()

    with pytest.raises((PluginError, LabelLeakError), match="'peeking'"):
        run(experiment(Lowest, initial={"strategy": Peeking, "size": 8}, allow_truth=True), catalog=EMPTY)
