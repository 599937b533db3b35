"""Segmentation through the engine: masks are compact, checked, read by rows; outputs are one vector a sample."""

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
    TensorSplit,
    hookimpl,
)
from poolwright.dataset import Episode, whole
from poolwright.learner import checked_output
from poolwright.masks import LabelRows, compact, first_stray
from poolwright.metrics import confusion, evaluate, segmentation
from poolwright.oracle import DatasetOracle
from poolwright.preparation import load_dataset
from poolwright.resample import resample
from poolwright.testing import make_dataset, make_learner

from .helpers.build import EMPTY, picks, play, session
from .helpers.toys import Lowest, Masks, Random, Signs, load


class Scenes(Masks):
    """Masks of 2 x 3 pixels in uint8, some to be ignored."""

    def __init__(self, ignored: int = 255) -> None:
        self.ignored = ignored

    def load(self) -> None:
        super().load()
        for name in ("pool", "test"):
            split = getattr(self, name)
            masks = split.masks.to(torch.uint8)
            masks[:, 0, 0] = self.ignored
            setattr(self, name, TensorSplit(split.data, masks))


class Lazy:
    """A split whose samples are made when they are read; counts what is asked of it."""

    def __init__(self, masks: torch.Tensor, height: int | None = None) -> None:
        self.masks = masks
        self.height = height or masks.shape[1]
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.masks)

    def inputs(self, ids):
        return torch.zeros(len(ids), 1, self.height, self.masks.shape[2])

    def labels(self, ids):
        self.read += ids.tolist()
        return self.masks[ids].long()


def lazy_dataset(masks, **options):
    class Own(Masks):
        def load(self):
            super().load()
            self.pool = Lazy(masks, **options)

    return Own


# -- what is loaded ----------------------------------------------------------------------------------------------


def test_a_split_in_memory_keeps_masks_as_they_are_and_gives_int64():
    masks = torch.randint(0, 19, (5, 2, 3), dtype=torch.uint8)
    split = TensorSplit(torch.zeros(5, 1, 2, 3), masks)
    assert split.masks is masks
    assert split.labels(torch.tensor([4, 0])).dtype == torch.int64
    assert split.labels(torch.tensor([4, 0])).tolist() == masks[[4, 0]].tolist()
    assert TensorSplit(torch.zeros(5, 2), torch.zeros(5)).masks is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_masks_that_are_no_integers_are_refused(dtype):
    with pytest.raises(DatasetError, match=f"masks must be integers, one class a pixel, not {dtype}"):
        TensorSplit(torch.zeros(5, 1, 2, 3), torch.zeros(5, 2, 3, dtype=dtype))


def test_a_data_set_with_ignored_pixels_is_taken():
    assert len(load_dataset(Scenes, EMPTY).pool) == 12


@pytest.mark.parametrize("part", ["pool", "test"])
@pytest.mark.parametrize("value", [2, 254])
def test_a_value_that_is_neither_a_class_nor_ignored_is_named_with_its_id(part, value):
    class Own(Scenes):
        def load(self):
            super().load()
            getattr(self, part).masks[5, 1, 2] = value

    expected = rf"mask of id 5 of its {part} holds {value}, which is no class: there are 0\.\.1, and 255"
    with pytest.raises(DatasetError, match=expected):
        load_dataset(Own, EMPTY)


def test_the_ignore_index_of_the_data_set_counts():
    class Own(Scenes):
        ignore_index = 7

    assert len(load_dataset(Own, EMPTY, ignored=7).pool) == 12
    with pytest.raises(DatasetError, match="holds 255, which is no class"):
        load_dataset(Own, EMPTY, ignored=255)


def test_a_negative_ignore_index_is_not_taken_for_255():
    class Own(Scenes):
        ignore_index = -1

    with pytest.raises(DatasetError, match=r"holds 255, which is no class: there are .*, and -1 for pixels"):
        load_dataset(Own, EMPTY)


def test_an_ignore_index_that_is_a_class_is_refused():
    class Own(Scenes):
        ignore_index = 1

    with pytest.raises(DatasetError, match="ignore_index = 1 is the class 'positive'"):
        load_dataset(Own, EMPTY)


@pytest.mark.parametrize(
    ("masks", "options"),
    [
        (torch.zeros(6, 2, 3, dtype=torch.uint8), {"height": 4}),
        (torch.zeros(6, 2, 3, 3, dtype=torch.uint8), {"height": 2}),
    ],
)
def test_masks_of_another_shape_than_their_images_are_refused(masks, options):
    with pytest.raises(DatasetError, match=r"pool have prepared inputs of shape .* and masks of shape"):
        load_dataset(lazy_dataset(masks, **options), EMPTY)


def test_a_large_split_on_disk_is_looked_at_and_not_read_whole():
    masks = torch.zeros(5000, 2, 3, dtype=torch.uint8)
    data = load_dataset(lazy_dataset(masks), EMPTY, subset=4000, validation=0.2)
    assert 0 < len(data.pool.base.read) < 50
    assert {0, 4999} <= set(data.pool.base.read)


def test_what_was_not_looked_at_is_checked_when_it_is_read():
    masks = torch.zeros(5000, 2, 3, dtype=torch.uint8)
    masks[3] = 9
    data = load_dataset(lazy_dataset(masks), EMPTY)
    samples = whole(data, data.pool)
    samples.labels[:3]
    with pytest.raises(DatasetError, match="the mask of id 3 holds 9, which is no class"):
        samples.labels[torch.tensor([4, 3])]


def test_options_that_need_one_class_a_sample_say_so_without_reading_masks():
    data = load(lazy_dataset(torch.zeros(50, 2, 3, dtype=torch.uint8))())
    for options in ({"imbalance": "1:2"}, {"long_tail": 10}):
        with pytest.raises(ConfigError, match="need one class a sample; segmentation has none"):
            resample(data, **options)
    assert data.pool.read == []


# -- samples -----------------------------------------------------------------------------------------------------


def test_masks_of_samples_are_read_batch_by_batch():
    split = Lazy(torch.randint(0, 2, (40, 2, 3), dtype=torch.uint8))
    data = load(Masks())
    samples = Samples(data, split, torch.arange(10, 40), split.labels)
    assert isinstance(samples.labels, LabelRows)
    batches = samples.batches(8, generator=torch.Generator().manual_seed(0))
    next(batches)
    assert len(split.read) == 8
    got = [y for _, y in samples.batches(8)]
    assert torch.equal(torch.cat(got), split.masks[10:].long())
    assert samples.labels.shape == (30, 2, 3)
    assert torch.equal(samples.labels[torch.tensor([29, 0])], split.masks[[39, 10]].long())


def test_a_session_hands_masks_to_the_learner_by_rows():
    seen: list = []

    class Looking(Signs):
        def fit(self, labeled, **options):
            seen.append(labeled.labels)
            super().fit(labeled, **options)

    run = play(session(Lowest, learner=Looking, dataset=load(Masks()), initial=torch.arange(3), budget=4, batch=2))
    assert all(isinstance(labels, LabelRows) for labels in seen)
    assert torch.equal(seen[-1][:], run.dataset.pool.labels(torch.arange(7)))


@pytest.mark.parametrize("where", ["pool", "test"])
def test_a_run_never_holds_all_masks_as_int64(where):
    """Peak of numpy and Python memory says nothing of torch's, so count what is widened at a time."""
    widened: list[int] = []

    class Counting(TensorSplit):
        def labels(self, ids):
            widened.append(len(ids))
            return super().labels(ids)

    class Own(Masks):
        def load(self):
            super().load()
            for name in ("pool", "test"):
                x = torch.randn(200, 1, 2, 3)
                setattr(self, name, (Counting if name == where else TensorSplit)(x, (x[:, 0] > 0).to(torch.uint8)))

    class Small(Signs):
        predict_batch_size = 20

    data = load(Own())
    play(
        session(
            Random,
            learner=Small,
            dataset=data,
            initial=60,
            reserve={"state": torch.arange(100, 150)},
            budget=80,
            batch=40,
            oracle=DatasetOracle(data.pool),
        )
    )
    assert widened
    assert max(widened) <= 20


def test_augmentation_changes_images_and_masks_together_or_is_refused():
    data = make_dataset(task="segmentation")
    samples = Samples(data, data.pool, torch.arange(6), data.pool.labels)
    assert not samples.can_augment
    with pytest.raises(ConfigError, match="cannot augment images together with their masks"):
        next(samples.batches(3, generator=torch.Generator(), augment=True))

    class Mirrored(type(data)):
        def augment_pair(self, inputs, masks, generator):
            return inputs.flip(3), masks.flip(2)

    data = load(Mirrored(task="segmentation"))
    for dataset in (data, resample(data, subset=20), Episode(data, torch.arange(6), data.pool.labels)):
        samples = Samples(dataset, dataset.pool, torch.arange(6), data.pool.labels)
        assert samples.can_augment
        ((plain_x, plain_y),) = Samples(data, data.pool, samples._base_ids, samples.labels[:]).batches(6)
        ((x, y),) = Samples(data, data.pool, samples._base_ids, samples.labels[:]).batches(
            6, generator=torch.Generator().manual_seed(0), augment=True
        )
        order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
        assert torch.equal(x, plain_x[order].flip(3))
        assert torch.equal(y, plain_y[order].flip(2))


class Resident(TensorSplit):
    """A split that claims to be resident on the CPU, and counts copies from the host."""

    copies = 0

    def resident(self, device):
        return self.data

    def inputs(self, ids):
        self.copies += 1
        return super().inputs(ids)


def test_resident_data_are_read_on_the_device_without_a_copy_from_the_host():
    data = make_dataset(n=20)
    split = Resident(data.pool.data, data.pool.labels(torch.arange(20)))
    subset = resample(data, subset=10)
    subset.pool.base = split
    samples = Samples(subset, subset.pool, torch.arange(3, 10), subset.pool.labels(torch.arange(3, 10)))
    got = torch.cat([x for x, _ in samples.batches(4)])
    assert split.copies == 0
    assert torch.equal(got, data.prepare(data.pool.data[subset.pool.ids[3:]]))


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


def test_the_first_stray_pixel_is_found_across_blocks(monkeypatch):
    monkeypatch.setattr("poolwright.masks.BLOCK_VALUES", 12)
    masks = torch.zeros(9, 2, 3, dtype=torch.uint8)
    masks[7, 1, 0] = 200
    assert first_stray(masks, 3, 255) == (7, 1, 0, 200)
    masks[7, 1, 0] = 255
    assert first_stray(masks, 3, 255) is None
