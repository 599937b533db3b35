"""Metrics of a task, and of a whole learning curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .dataset import Samples
from .errors import ConfigError, DatasetError, LearnerError
from .learner import Learner, asked, predict_batch_size, predicted_classes


def confusion(predicted: Tensor, true: Tensor, n_classes: int) -> Tensor:
    """Return the confusion matrix, int64 ``(n_classes, n_classes)``: rows true, columns predicted.

    Elements whose true label lies outside the classes (an ignore index) are left out.

    Raises
    ------
    ValueError
        A prediction is none of the classes.
    """
    return _matrix(_counts(predicted, true, n_classes), n_classes)


def _counts(predicted: Tensor, true: Tensor, n_classes: int) -> Tensor:
    """Return the cells of the confusion matrix, then how many were ignored, then how many predictions are no class.

    It stays on the device of its arguments.
    """
    predicted, true = predicted.reshape(-1).long(), true.reshape(-1).long()
    size = n_classes * n_classes
    cells = torch.where((true >= 0) & (true < n_classes), true * n_classes + predicted, size)
    cells = torch.where((predicted >= 0) & (predicted < n_classes), cells, size + 1)
    return torch.bincount(cells, minlength=size + 2)


def _matrix(counts: Tensor, n_classes: int) -> Tensor:
    strange = int(counts[-1])
    if strange:
        raise ValueError(f"{strange} predictions are no class: there are 0..{n_classes - 1}")
    return counts[:-2].reshape(n_classes, n_classes)


def classification(matrix: Tensor) -> dict[str, float]:
    """Return accuracy and the class-frequency-weighted precision, recall and F1 of a confusion matrix, in [0, 1].

    A class that is never predicted has precision 0, as in scikit-learn with ``zero_division=0``.

    Raises
    ------
    ValueError
        The matrix is empty: no label is known.
    """
    _refuse_empty(matrix)
    counts = matrix.double()
    hits, support, predicted = counts.diag(), counts.sum(1), counts.sum(0)
    weights = support / support.sum()
    precision = hits / predicted.clamp(min=1)
    recall = hits / support.clamp(min=1)
    f1 = 2 * hits / (predicted + support).clamp(min=1)
    return {
        "accuracy": float(hits.sum() / support.sum()),
        "precision": float((weights * precision).sum()),
        "recall": float((weights * recall).sum()),
        "f1": float((weights * f1).sum()),
    }


def segmentation(matrix: Tensor) -> dict[str, float]:
    """Return mean intersection over union and pixel accuracy of a confusion matrix of pixels, in [0, 1].

    IoU of a class is hits / (true + predicted - hits), counted over all pixels of all images (Everingham et al., *The
    PASCAL Visual Object Classes Challenge*, IJCV 2010). Classes that neither occur nor are predicted are left out of
    the mean.

    Raises
    ------
    ValueError
        The matrix is empty: no label is known.
    """
    _refuse_empty(matrix)
    counts = matrix.double()
    hits = counts.diag()
    union = counts.sum(0) + counts.sum(1) - hits
    present = union > 0
    return {
        "miou": float((hits[present] / union[present]).mean()),
        "pixel_accuracy": float(hits.sum() / counts.sum()),
    }


def _refuse_empty(matrix: Tensor) -> None:
    if not matrix.any():
        raise ValueError("there is nothing to measure: no label is known (all may be ignored)")


@dataclass(frozen=True)
class Task:
    """How a kind of task is judged.

    Attributes
    ----------
    name : str
        What a data set's ``task`` holds.
    headline : str
        The metric of curves, AUBC and default rewards.
    metrics : callable
        Confusion matrix to named metrics.
    """

    name: str
    headline: str
    metrics: Callable[[Tensor], dict[str, float]]


TASKS = {
    "classification": Task("classification", "accuracy", classification),
    "segmentation": Task("segmentation", "miou", segmentation),
}


def task_named(name: str) -> Task:
    """Return the task, or raise ConfigError naming those that there are."""
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}: a data set's task is one of {', '.join(TASKS)}")
    return TASKS[name]


def evaluate(learner: Learner, samples: Samples, *, device: str | torch.device = "cpu") -> dict[str, float]:
    """Return the task's metrics of a fitted learner on labeled samples.

    Raises
    ------
    LearnerError
        It predicts other shapes than the labels have, or what is no class.
    DatasetError
        No label is known: there is no sample, or every pixel is to be ignored.
    """
    counts: Tensor | None = None  # on the device, moved once at the end
    for inputs, labels in samples.batches(predict_batch_size(learner), device=device):
        if labels is None:
            raise ValueError("evaluate() needs labeled samples")
        predicted = predicted_classes(asked(learner, inputs))
        if predicted.shape != labels.shape:
            raise LearnerError(
                f"learner {type(learner).__name__} predicted classes of shape {tuple(predicted.shape)} "
                f"for labels of shape {tuple(labels.shape)}"
            )
        of_batch = _counts(predicted, labels.to(predicted.device, non_blocking=True), samples.n_classes)
        counts = of_batch if counts is None else counts + of_batch
    counts = torch.zeros(samples.n_classes**2 + 2, dtype=torch.int64) if counts is None else counts.cpu()
    try:
        matrix = _matrix(counts, samples.n_classes)
    except ValueError as error:
        raise LearnerError(f"learner {type(learner).__name__}: {error}") from None
    if not matrix.any():
        raise DatasetError(f"none of the {len(samples)} samples to evaluate has a known label: all are to be ignored")
    return task_named(samples.task).metrics(matrix)


def aubc(labels: Sequence[float], values: Sequence[float]) -> float:
    """Return the area under the budget curve: trapezoids over the label counts, divided by their span.

    A constant curve gives its value, whatever the batches; for equal batches this is the survey's trapezoid sum
    divided by their number (Zhan et al. 2022). A curve of one point gives that point.

    Parameters
    ----------
    labels : sequence of float
        Labels paid for at each point, never falling.
    values : sequence of float
        The metric at each point.
    """
    if len(labels) != len(values) or not labels:
        raise ValueError(
            f"a curve needs as many values as label counts, and at least one: {len(labels)}, {len(values)}"
        )
    span = labels[-1] - labels[0]
    if span == 0:
        return values[-1]
    area = sum(
        (right - left) * (low + high) / 2
        for left, right, low, high in zip(labels, labels[1:], values, values[1:], strict=False)
    )
    return area / span


def final(values: Sequence[float]) -> float:
    """Return the last value of a curve (F-acc when the metric is accuracy)."""
    if not values:
        raise ValueError("an empty curve has no final value")
    return values[-1]
