"""Metrics against scikit-learn and values by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from poolwright import ConfigError, LearnerError
from poolwright.dataset import whole
from poolwright.metrics import aubc, classification, confusion, evaluate, final, segmentation, task_named
from poolwright.results import Result, RunResult

from .helpers.build import EMPTY, experiment
from .helpers.toys import Blobs, Lowest, Masks, Random, Signs, load


def labels(n: int, n_classes: int, seed: int) -> torch.Tensor:
    return torch.randint(0, n_classes, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "n_classes"), [(500, 10), (50, 3), (7, 5), (1, 2)])
def test_classification_agrees_with_scikit_learn(n, n_classes):
    true, predicted = labels(n, n_classes, 1), labels(n, n_classes, 2)
    predicted = torch.where(torch.rand(n) < 0.5, true, predicted)
    matrix = confusion(predicted, true, n_classes)
    assert np.array_equal(matrix.numpy(), reference.confusion_matrix(true, predicted, labels=range(n_classes)))
    found = classification(matrix)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        true, predicted, average="weighted", zero_division=0
    )
    assert found == pytest.approx(
        {"accuracy": reference.accuracy_score(true, predicted), "precision": precision, "recall": recall, "f1": f1}
    )


def test_a_class_that_is_never_predicted_has_precision_zero():
    true, predicted = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 1])
    found = classification(confusion(predicted, true, 3))
    # Precision 1, 1/3, 0; recall 1/2, 1, 0; F1 2/3, 1/2, 0; weights 1/2, 1/4, 1/4.
    assert found == pytest.approx({"accuracy": 0.5, "precision": 0.5 + 1 / 12, "recall": 0.5, "f1": 1 / 3 + 1 / 8})


def test_mean_iou_by_hand_leaves_out_ignored_pixels_and_absent_classes():
    true = torch.tensor([[0, 0, 1], [1, 255, -1]])
    predicted = torch.tensor([[0, 1, 1], [1, 2, 3]])
    matrix = confusion(predicted, true, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    # Class 0: 1 / 2; class 1: 2 / 3; classes 2 and 3 neither occur nor are predicted where it counts.
    assert segmentation(matrix) == pytest.approx({"miou": (1 / 2 + 2 / 3) / 2, "pixel_accuracy": 3 / 4})


def test_mean_iou_counts_a_class_that_is_only_predicted():
    matrix = confusion(torch.tensor([0, 2]), torch.tensor([0, 0]), 3)
    assert segmentation(matrix)["miou"] == pytest.approx((1 / 2 + 0) / 2)


def test_mean_iou_agrees_with_scikit_learn():
    true, predicted = labels(900, 6, 3).reshape(9, 10, 10), labels(900, 6, 4).reshape(9, 10, 10)
    expected = reference.jaccard_score(true.flatten(), predicted.flatten(), average="macro")
    assert segmentation(confusion(predicted, true, 6))["miou"] == pytest.approx(expected)


class Fixed:
    """Predicts what it is told, in batches of 7."""

    provides = frozenset({"probabilities"})
    predict_batch_size = 7

    def __init__(self, key: str) -> None:
        self.key = key
        self.batches: list = []

    def predict(self, inputs):
        self.batches.append(len(inputs))
        scores = torch.stack([inputs[:, 0], inputs[:, 1], -inputs[:, 0], -inputs[:, 1]], 1)
        outputs = {"logits": scores, "probabilities": scores.softmax(1), "predictions": scores.argmax(1).int()}
        return {self.key: outputs[self.key]} if self.key in outputs else {}


@pytest.mark.parametrize("key", ["logits", "probabilities", "predictions"])
def test_a_learner_is_evaluated_on_all_samples_in_batches_by_whatever_it_returns(key):
    dataset = load(Blobs())
    learner = Fixed(key)
    x = dataset.test.data
    scores = torch.stack([x[:, 0], x[:, 1], -x[:, 0], -x[:, 1]], 1)
    expected = reference.accuracy_score(torch.arange(40) % 4, scores.argmax(1))
    assert evaluate(learner, whole(dataset, dataset.test))["accuracy"] == pytest.approx(expected)
    assert learner.batches == [7, 7, 7, 7, 7, 5]


def test_a_learner_that_predicts_nothing_cannot_be_evaluated():
    dataset = load(Blobs())
    with pytest.raises(LearnerError, match="neither logits, nor probabilities, nor predictions"):
        evaluate(Fixed("nothing"), whole(dataset, dataset.test))


def test_segmentation_is_evaluated_by_the_pixel():
    dataset = load(Masks())
    assert evaluate(Signs(), whole(dataset, dataset.test)) == {"miou": 1.0, "pixel_accuracy": 1.0}


def test_tasks_have_their_headline_and_unknown_ones_are_refused():
    assert (task_named("classification").headline, task_named("segmentation").headline) == ("accuracy", "miou")
    with pytest.raises(ConfigError, match=r"unknown task 'regression': .* classification, segmentation"):
        task_named("regression")


# -- curves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "values", "area"),
    [
        ([10, 20, 50], [0.4, 0.4, 0.4], 0.4),
        ([0, 10, 20], [0.0, 0.5, 1.0], 0.5),
        ([0, 10, 20, 30], [0.2, 0.4, 0.6, 0.6], (0.3 + 0.5 + 0.6) / 3),
        ([10, 20, 50], [0.2, 0.6, 0.8], (10 * 0.4 + 30 * 0.7) / 40),
        ([10], [0.7], 0.7),
        ([10, 10, 20], [0.2, 0.4, 0.8], 0.6),
        ([10, 10], [0.2, 0.4], 0.4),
    ],
)
def test_area_under_the_budget_curve(counts, values, area):
    assert aubc(counts, values) == pytest.approx(area)


def test_a_curve_needs_points():
    with pytest.raises(ValueError, match="at least one"):
        aubc([], [])
    with pytest.raises(ValueError, match="as many values as label counts"):
        aubc([1, 2], [0.5])
    with pytest.raises(ValueError, match="no final value"):
        final([])
    assert final([0.1, 0.3]) == 0.3


def test_a_result_gives_curves_over_what_was_paid_and_runs_by_strategy():
    from poolwright import run

    result = run(experiment(Random, Lowest, seeds=2), catalog=EMPTY)
    assert isinstance(result, Result)
    assert result.strategies == ["random", "lowest"]
    assert [one.seed for one in result.of("lowest")] == [0, 1]
    assert result.failures == []
    one = result.runs[0]
    assert isinstance(one, RunResult)
    paid, values = one.curve()
    assert paid == [8, 13, 18, 23, 28]
    assert values == [record.test["accuracy"] for record in one.records]
    assert one.curve("f1", "validation")[1] == [record.validation["f1"] for record in one.records]
    assert one.aubc == pytest.approx(aubc(paid, values))
    assert one.final == values[-1]
    assert one.query_seconds == pytest.approx(np.mean([record.query_seconds for record in one.records[:-1]]))
