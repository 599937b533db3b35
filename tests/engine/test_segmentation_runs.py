"""Runs on segmentation: answers, the journal, outputs of one vector a sample, metrics."""

from __future__ import annotations

import sqlite3

import pytest
import torch

from poolwright import (
    ConfigError,
    DatasetError,
    LearnerError,
    PoolError,
    Samples,
    Store,
    StoreError,
    hookimpl,
)
from poolwright.dataset import whole
from poolwright.learner import checked_output
from poolwright.masks import compact
from poolwright.metrics import confusion, evaluate, segmentation
from poolwright.testing import make_dataset, make_learner

from .helpers.build import picks, play, session
from .helpers.toys import Lowest, Masks, Random, Scenes, Signs, load

# -- answers -----------------------------------------------------------------------------------------------------


def waiting():
    run = session(Lowest, learner=Signs, dataset=load(Scenes()), initial=torch.arange(3), budget=4, batch=2)
    run.answer()
    run.advance()
    return run


GOOD = torch.tensor([[0, 1, 255], [1, 1, 0]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_masks_are_told_as_they_are(dtype):
    run = waiting()
    masks = torch.where(torch.stack([GOOD, GOOD]) == 255, 255, torch.stack([GOOD, GOOD])).to(dtype)
    run.tell([3, 4], masks)
    assert run.pool.labels(torch.tensor([3])).tolist() == [GOOD.tolist()]


def edited(place, value):
    mask = GOOD.clone()
    mask[place] = value
    return mask


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (GOOD[:, :2], r"the mask of id 4 has the shape \(2, 2\), its image \(2, 3\)"),
        (GOOD[0], r"the mask of id 4 has the shape \(3,\)"),
        (GOOD[None], r"the mask of id 4 has the shape \(1, 2, 3\)"),
        (
            edited((1, 2), 2),
            r"the mask of id 4 holds at row 1, column 2 the value 2, which is no class: there are 0\.\.1, and 255",
        ),
        (edited((0, 1), -1), r"at row 0, column 1 the value -1, which is no class"),
        (edited((0, 1), 256), r"at row 0, column 1 the value 256, which is no class"),
    ],
)
def test_masks_that_do_not_fit_are_refused_and_nothing_is_taken(mask, message):
    run = waiting()
    with pytest.raises(PoolError, match=message):
        run.tell([3, 4], [GOOD, mask])
    assert run.outstanding.tolist() == [3, 4]


@pytest.mark.parametrize("bad", [GOOD.float(), GOOD.numpy().astype("float64"), GOOD > 0])
def test_masks_of_other_types_are_refused(bad):
    with pytest.raises(PoolError, match="labels must be integers"):
        waiting().tell([3], [bad])


def test_a_mask_may_be_ignored_whole():
    run = waiting()
    run.tell([3], torch.full((1, 2, 3), 255))
    assert (run.pool.labels(torch.tensor([3])) == 255).all()


# -- the journal -------------------------------------------------------------------------------------------------


def test_masks_lie_compressed_in_the_journal(tmp_path):
    mask = torch.zeros(200, 300, dtype=torch.int64)
    mask[50:90, 20:200] = 18
    store = Store(tmp_path / "run")
    store.append([1], [compact(mask)])
    (answer,) = store.answers()
    assert torch.equal(answer.label.long(), mask)
    assert answer.label.dtype == torch.uint8
    store.close()
    with sqlite3.connect(tmp_path / "run" / "journal.sqlite") as db:
        assert db.execute("SELECT LENGTH(label) FROM answers").fetchone()[0] < 200 * 300 // 50


def test_a_damaged_mask_in_the_journal_is_an_error_that_names_it(tmp_path):
    store = Store(tmp_path / "run")
    store.append([1], [compact(GOOD)])
    with sqlite3.connect(tmp_path / "run" / "journal.sqlite") as db:
        db.execute("UPDATE answers SET label = ?", (b"x\x9cnothing",))
    with pytest.raises(StoreError, match=r"journal .*journal.sqlite is damaged: answer 1 cannot be read"):
        store.answers()
    store.close()


def test_a_stopped_segmentation_run_goes_on_with_the_same_masks_and_picks(tmp_path):
    def begin(store=None):
        return session(
            Random, learner=Signs, dataset=load(Scenes()), initial=torch.arange(3), budget=6, batch=2, store=store
        )

    undisturbed = play(begin())
    store = Store(tmp_path / "run")
    first = begin(store)
    first.advance()
    first.answer()
    first.advance()
    first.tell(first.outstanding[:1], first.dataset.pool.labels(first.outstanding[:1]))
    store.close()
    store = Store(tmp_path / "run")
    second = begin(store)
    second.advance()
    second.answer()
    play(second)
    labeled = second.pool.ids(2)
    assert picks(second)[:1] == picks(undisturbed)[:1]
    assert torch.equal(second.pool.labels(labeled), second.dataset.pool.labels(labeled))
    store.close()


# -- outputs -----------------------------------------------------------------------------------------------------


def test_what_a_learner_gives_for_each_pixel_becomes_the_mean_over_the_pixels():
    seen: dict = {}

    class Reading:
        needs = frozenset({"probabilities", "logits", "embeddings", "loss"})

        @hookimpl
        def score(self, cycle):
            seen.update(
                probabilities=cycle.probabilities().clone(),
                logits=cycle.logits().clone(),
                embeddings=cycle.embeddings().clone(),
                loss=cycle.losses().clone(),
                rows=cycle.rows("probabilities", cycle.pool.unlabeled)[:].clone(),
            )
            return seen["loss"]

    data = make_dataset(task="segmentation")
    learner = make_learner({"probabilities", "logits", "embeddings", "loss"})
    run = session(Reading, learner=lambda: learner, dataset=data, initial=torch.arange(6), budget=4, batch=2)
    run.answer()
    run.advance()
    left = torch.arange(6, 48)
    outputs = learner.predict(data.prepare(data.pool.inputs(left)))
    for name in ("probabilities", "logits"):
        assert outputs[name].shape == (42, 3, 8, 8)
        assert torch.allclose(seen[name], outputs[name].flatten(2).mean(2), atol=1e-6)
    for name in ("embeddings", "loss"):
        assert torch.allclose(seen[name], outputs[name], atol=1e-6)
    assert torch.equal(seen["rows"], seen["probabilities"])
    assert torch.allclose(seen["probabilities"].sum(1), torch.ones(42))


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("embeddings", (4, 5, 2, 3), r"not \(n, d\)"),
        ("loss", (4, 2, 3), r"not \(n,\)"),
        ("loss", (4, 1), r"not \(n,\)"),
        ("probabilities", (4, 6, 3), r"not \(n, classes\), or one such for each pixel"),
    ],
)
def test_outputs_of_another_shape_are_an_error_that_names_learner_and_output(name, shape, wanted):
    with pytest.raises(LearnerError, match=rf"learner Signs gave '{name}' of shape .* for a batch of 4, {wanted}"):
        checked_output(Signs(), {name: torch.zeros(shape)}, name, 4)


@pytest.mark.parametrize("strategy", ["entropy", "margin", "least-confidence", "coreset", "kmeans", "random"])
def test_built_in_strategies_run_on_segmentation(strategy):
    from poolwright.catalog import Catalog

    run = play(
        session(
            {"name": strategy},
            learner=lambda: make_learner(),
            dataset=make_dataset(task="segmentation"),
            initial=torch.arange(6),
            budget=6,
            batch=3,
            catalog=Catalog(),
        )
    )
    assert [record.paid for record in run.history] == [6, 9, 12]
    assert set(run.history[-1].test) == {"miou", "pixel_accuracy"}


def test_a_strategy_for_classification_alone_is_refused_before_anything_is_fitted():
    from poolwright.catalog import Catalog

    with pytest.raises(ConfigError, match=r"'badge'.* works for classification, not for .* task 'segmentation'"):
        session({"name": "badge"}, learner=make_learner, dataset=make_dataset(task="segmentation"), catalog=Catalog())


@pytest.mark.parametrize("role", ["learner", "report_learner"])
def test_a_learner_for_another_task_is_refused_before_anything_is_fitted(role):
    class ForMasks(Signs):
        tasks = ("segmentation",)

    with pytest.raises(ConfigError, match=r"learner ForMasks works for segmentation, not for .* 'classification'"):
        session(**{role: ForMasks})


# -- metrics -----------------------------------------------------------------------------------------------------


def test_miou_by_hand():
    """Two images, three classes, the third neither there nor predicted, two pixels ignored."""
    true = torch.tensor([[[0, 0, 1], [1, 255, 0]], [[1, 1, 1], [0, 0, 255]]])
    predicted = torch.tensor([[[0, 1, 1], [1, 0, 0]], [[1, 0, 1], [0, 0, 1]]])
    matrix = confusion(predicted, true, 3)
    assert matrix.tolist() == [[4, 1, 0], [1, 4, 0], [0, 0, 0]]
    assert segmentation(matrix) == pytest.approx({"miou": 4 / 6, "pixel_accuracy": 8 / 10})


def test_a_class_that_is_only_predicted_counts_with_zero():
    matrix = confusion(torch.tensor([0, 2]), torch.tensor([0, 0]), 3)
    assert segmentation(matrix)["miou"] == pytest.approx((1 / 2 + 0) / 2)


@pytest.mark.parametrize("predicted", [3, -1])
def test_a_prediction_that_is_no_class_is_an_error_and_no_other_class(predicted):
    with pytest.raises(ValueError, match=r"1 predictions are no class: there are 0\.\.2"):
        confusion(torch.tensor([0, predicted]), torch.tensor([0, 1]), 3)

    class Strange(Signs):
        def predict(self, inputs):
            return {"predictions": torch.full((len(inputs), 2, 3), 2)}

    data = load(Masks())
    with pytest.raises(LearnerError, match=r"learner Strange: 48 predictions are no class: there are 0\.\.1"):
        evaluate(Strange(), whole(data, data.test))


def test_where_no_pixel_is_known_there_is_an_error_and_no_nan():
    class Unknown(Scenes):
        def load(self):
            super().load()
            self.test.masks.fill_(255)

    data = load(Unknown())
    with pytest.raises(DatasetError, match="none of the 8 samples to evaluate has a known label"):
        evaluate(Signs(), whole(data, data.test))
    with pytest.raises(ValueError, match="no label is known"):
        segmentation(torch.zeros(3, 3, dtype=torch.int64))


def test_the_confusion_matrix_is_that_of_all_pixels_whatever_the_batches():
    data = make_dataset(task="segmentation")
    learner = make_learner()
    labeled = Samples(data, data.pool, torch.arange(12), data.pool.labels)
    learner.fit(labeled, unlabeled=labeled, start="scratch", generator=torch.Generator().manual_seed(0))
    results = []
    for size in (1, 5, 1024):
        learner.predict_batch_size = size
        results.append(evaluate(learner, whole(data, data.test)))
    assert results[0] == results[1] == results[2]


# -- simulation --------------------------------------------------------------------------------------------------


def test_an_episode_on_masks_is_fitted_and_evaluated_on_what_is_labeled():
    seen: list = []

    class Simulating(Lowest):
        needs = frozenset({"labels"})

        @hookimpl
        def update(self, cycle):
            episode = cycle.simulate(cycle.pool.labeled, start=2, budget=2, seed=1)
            episode.advance()
            episode.ask(episode.pool.ids(0)[:2])
            episode.answer()
            episode.advance()
            ids = episode.pool.ids(2)
            seen.append([len(ids), torch.equal(episode.pool.labels(ids), cycle.labels(ids))])

    play(session(Simulating, learner=Signs, dataset=load(Scenes()), initial=torch.arange(4), budget=4, batch=2))
    assert seen == [[4, True]] * 3
