"""Options of any data set, noisy oracles, and what a damaged data set says."""

from __future__ import annotations

import pytest
import torch

from poolwright import ConfigError, DatasetError, DatasetOracle, NoisyOracle, Rows, TensorSplit, run
from poolwright.checks import check_finite, validate
from poolwright.resample import parse_imbalance, resample

from .helpers.build import EMPTY, experiment
from .helpers.toys import Blobs, Masks, Random, load


def classes(n_classes: int, each: int) -> Blobs:
    """Return classes of ``each`` samples, whose single feature is their id."""
    dataset = Blobs()
    n = n_classes * each
    labels = torch.arange(n) % n_classes
    dataset.classes = tuple(str(c) for c in range(n_classes))
    dataset.pool = TensorSplit(torch.arange(n, dtype=torch.float32)[:, None], labels)
    dataset.test = TensorSplit(torch.zeros(10, 1), torch.zeros(10))
    dataset.features = Rows(torch.arange(n, dtype=torch.float32)[:, None] * 2)
    return dataset


def counts(dataset) -> list[int]:
    labels = dataset.pool.labels(torch.arange(len(dataset.pool)))
    return torch.bincount(labels, minlength=len(dataset.classes)).tolist()


def kept(dataset) -> list[int]:
    """Return the ids of the pool in the data set it was made from."""
    return dataset.pool.inputs(torch.arange(len(dataset.pool)))[:, 0].long().tolist()


@pytest.mark.parametrize(
    "shares", ["1:2:...:10", "1:2:3:4:5:6:7:8:9:10", list(range(1, 11)), [0.1 * c for c in range(1, 11)]]
)
def test_imbalance_keeps_shares_of_the_classes(shares):
    thin = resample(classes(10, 500), imbalance=shares)
    assert counts(thin) == [50 * c for c in range(1, 11)]
    assert len(thin.pool) == 2750


def test_imbalance_of_cifar_size_has_the_count_of_the_papers():
    assert len(resample(classes(10, 5000), imbalance="1:2:...:10").pool) == 27_500


@pytest.mark.parametrize(
    ("n_classes", "each", "factor", "total"),
    [
        (10, 5000, 10, 20_431),
        (10, 5000, 20, 17_023),
        (10, 5000, 50, 13_996),
        (100, 500, 10, 19_573),
        (100, 500, 20, 15_907),
        (100, 500, 50, 12_608),
    ],
)
def test_long_tails_have_the_counts_of_the_papers(n_classes, each, factor, total):
    thin = resample(classes(n_classes, each), long_tail=factor)
    assert len(thin.pool) == total
    assert counts(thin)[0] == each
    assert counts(thin)[-1] == each // factor
    assert counts(thin) == sorted(counts(thin), reverse=True)


def test_a_class_never_vanishes():
    assert counts(resample(classes(3, 4), imbalance="1:50:100")) == [1, 2, 4]


def test_what_is_kept_is_random_ascending_and_the_same_for_a_seed():
    thin = resample(classes(4, 100), imbalance="1:1:2:2", seed=1)
    assert kept(thin) == sorted(set(kept(thin)))
    assert kept(thin) == kept(resample(classes(4, 100), imbalance="1:1:2:2", seed=1))
    assert kept(thin) != kept(resample(classes(4, 100), imbalance="1:1:2:2", seed=2))
    assert kept(thin) != kept(resample(classes(4, 100), imbalance="2:2:1:1", seed=1))


def test_a_subset_is_drawn_after_the_imbalance_and_features_go_along():
    small = resample(classes(4, 100), imbalance="1:1:2:2", subset=60)
    assert len(small.pool) == 60
    assert set(kept(small)) <= set(kept(resample(classes(4, 100), imbalance="1:1:2:2")))
    assert small.features[:][:, 0].tolist() == [2.0 * i for i in kept(small)]
    assert len(small.test) == 10


@pytest.mark.parametrize(("validation", "each"), [(0.1, 10), (80, 20), (0.5, 50)])
def test_validation_is_cut_from_the_pool_in_proportion(validation, each):
    cut = resample(classes(4, 100), validation=validation)
    held = cut.validation.labels(torch.arange(len(cut.validation)))
    assert torch.bincount(held).tolist() == [each] * 4
    assert counts(cut) == [100 - each] * 4
    ids = cut.validation.inputs(torch.arange(len(cut.validation)))[:, 0].long().tolist()
    assert sorted(ids + kept(cut)) == list(range(400))
    assert len(cut.features) == len(cut.pool)


def test_validation_is_stratified_when_classes_are_not_equal():
    cut = resample(classes(4, 100), imbalance="1:2:3:4", validation=0.2)
    held = cut.validation.labels(torch.arange(len(cut.validation)))
    assert torch.bincount(held).tolist() == [5, 10, 15, 20]


def test_masks_can_be_cut_too_but_have_no_classes_to_thin():
    masks = load(Masks())
    assert len(resample(masks, validation=0.25).validation) == 3
    with pytest.raises(ConfigError, match="need one class a sample"):
        resample(masks, imbalance="1:2")


def test_without_options_the_data_set_is_itself():
    dataset = classes(3, 4)
    assert resample(dataset) is dataset


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imbalance": "1:2", "long_tail": 10}, "exclude each other"),
        ({"imbalance": "1:2"}, "gives 2 shares; 4 positive ones are needed"),
        ({"imbalance": "1:0:1:1"}, "positive"),
        ({"imbalance": "one:two"}, "write shares as 1:2:...:10 or 1:2:5"),
        ({"imbalance": "1:1:...:4"}, "write shares as"),
        ({"long_tail": 0.5}, "0.5 < 1"),
        ({"subset": 401}, "subset = 401, but there are 400 samples"),
        ({"subset": 0}, "subset = 0"),
        ({"validation": 400}, "asks for 400 of 400 samples"),
        ({"validation": 1.0}, "asks for 400 of 400 samples"),
        ({"validation": 0.0001}, "asks for 0 of 400 samples"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        resample(classes(4, 100), **options)


def test_a_data_set_with_a_validation_split_needs_no_other():
    with pytest.raises(ConfigError, match="brings a validation split of its own"):
        resample(load(Blobs(n_validation=8)), validation=0.1)


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("1:2:...:4", [0.25, 0.5, 0.75, 1]),
        ("4:3:...:1", [1, 0.75, 0.5, 0.25]),
        ("1:3:..:7", [1 / 7, 3 / 7, 5 / 7, 1]),
    ],
)
def test_shares_may_be_written_with_dots(text, shares):
    assert parse_imbalance(text, 4) == pytest.approx(shares)


# -- oracles -----------------------------------------------------------------------------------------------------


def test_the_oracle_of_the_data_set_knows():
    assert DatasetOracle(load(Blobs()).pool)(torch.tensor([5, 2])).tolist() == [1, 2]


def test_a_noisy_oracle_is_wrong_at_its_rate_and_as_wrong_when_asked_again():
    dataset = classes(10, 400)
    oracle = NoisyOracle(dataset.pool, 10, rate=0.2, seed=3)
    everything = torch.arange(4000)
    true, told = dataset.pool.labels(everything), oracle(everything)
    wrong = told != true
    assert 0.17 < wrong.float().mean() < 0.23
    assert torch.equal(oracle(everything.flip(0)).flip(0), told)
    assert torch.equal(oracle(torch.tensor([17])), told[17:18])
    spread = torch.bincount((told - true)[wrong] % 10, minlength=10)
    assert spread[0] == 0
    assert spread[1:].min() > 0.5 * wrong.sum() / 9
    assert not torch.equal(NoisyOracle(dataset.pool, 10, rate=0.2, seed=4)(everything), told)


def test_a_noisy_oracle_leaves_the_truth_alone():
    dataset = classes(4, 50)
    before = dataset.pool.labels(torch.arange(200)).clone()
    NoisyOracle(dataset.pool, 4, rate=1.0)(torch.arange(200))
    assert torch.equal(dataset.pool.labels(torch.arange(200)), before)


def test_wrong_labels_stay_within_the_superclass():
    dataset = classes(5, 100)
    oracle = NoisyOracle(dataset.pool, 5, rate=1.0, superclass=[0, 0, 1, 1, 2])
    everything = torch.arange(500)
    true, told = dataset.pool.labels(everything), oracle(everything)
    swapped = torch.tensor([1, 0, 3, 2, 4])
    assert torch.equal(told, swapped[true])


def test_rates_and_superclasses_that_do_not_fit_are_refused():
    dataset = classes(5, 10)
    with pytest.raises(ConfigError, match=r"share between 0 and 1, not 1.5"):
        NoisyOracle(dataset.pool, 5, rate=1.5)
    with pytest.raises(ConfigError, match="names 2 classes, the data set has 5"):
        NoisyOracle(dataset.pool, 5, rate=0.5, superclass=[0, 1])
    with pytest.raises(ConfigError, match="one class a sample"):
        NoisyOracle(load(Masks()).pool, 2, rate=0.5)(torch.tensor([1]))
    with pytest.raises(ConfigError, match="superclass = true, but this data set names none"):
        run(experiment(Random, oracle={"rate": 0.5, "superclass": True}), catalog=EMPTY)


# -- data sets that are wrong ------------------------------------------------------------------------------------


def damaged(**parts):
    dataset = load(Blobs())
    for name, value in parts.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"classes": ("one",)}, "names 1 classes: a task needs at least two"),
        ({"test": TensorSplit(torch.zeros(0, 2), torch.zeros(0))}, "its test is empty"),
        (
            {"pool": TensorSplit(torch.zeros(3, 2), torch.tensor([0, 7, -1]))},
            "2 labels of its pool lie outside 0..3, the first is 7 at id 1",
        ),
        (
            {"pool": TensorSplit(torch.tensor([[0.0], [torch.nan], [torch.inf]]), torch.zeros(3))},
            "2 of 3 rows hold NaN or infinity, the first is id 1",
        ),
    ],
)
def test_a_data_set_that_does_not_fit_its_description_is_refused(parts, message):
    with pytest.raises(DatasetError, match=f"data set 'mine'.*{message}"):
        validate(damaged(**parts), "mine")


def test_lengths_that_differ_are_refused():
    with pytest.raises(DatasetError, match="3 samples but 2 labels"):
        TensorSplit(torch.zeros(3, 2), torch.zeros(2))


def test_integers_are_always_finite():
    check_finite(torch.zeros(3, 2, dtype=torch.uint8), "x")


def test_a_data_set_that_cannot_be_loaded_is_named():
    class Missing(Blobs):
        def load(self):
            raise FileNotFoundError("no such file: x.npy")

    with pytest.raises(DatasetError, match=r"Missing.* cannot be loaded: FileNotFoundError: no such file: x.npy"):
        run(experiment(Random, dataset={"name": Missing}), catalog=EMPTY)
