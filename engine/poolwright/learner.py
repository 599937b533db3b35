"""Learners: the protocol of the models that are trained on what has been labeled.

A learner is a plugin of the group ``poolwright.learners``: a class whose constructor stores keyword parameters. What
it can do stands in ``provides``:

``probabilities``, ``embeddings``, ``logits``, ``loss``
    keys of what :meth:`Learner.predict` returns: float tensors ``(n, classes)``, ``(n, d)``, ``(n, classes)`` and
    ``(n,)`` (a predicted loss). For segmentation, ``probabilities`` and ``logits`` are
    ``(n, classes, height, width)``, as high and wide as the mask; hooks see their mean over the pixels, one vector a
    sample (Zhang et al., SRAAL, CVPR 2020). ``embeddings`` and ``loss`` are one vector and one number a sample there
    too: a learner pools its own features. The mean of the logits is what a linear head makes of mean embeddings;
    its softmax is not the mean of the probabilities.
``head``
    an attribute ``head``: the last linear layer (``torch.nn.Linear``), embeddings in, logits out.
``dropout``
    a method ``sample(inputs, generator) -> dict``: like ``predict``, one stochastic pass, batch norm in eval mode.
    What it returns reaches a hook as it is: for segmentation with one value a pixel.
``members``
    an attribute ``members``: the learners of an ensemble, each with its own ``predict``.

A learner that is not for every task says so: ``tasks = ("segmentation",)``. Masks hold the class of each pixel; a
value outside the classes (the data set's ``ignore_index``) is neither trained on nor evaluated.

A learner without logits or probabilities returns ``predictions`` (class indices) so that it can be evaluated.
Optional members: ``state_dict()`` and ``load_state_dict(state)`` (needed for ``start = "warm"`` and
``refit_every``), ``load_pretrained(samples)`` (take pretrained weights without fitting, for initial pools), a
parameter ``device`` (the run passes its own), ``predict_batch_size`` (1024 by default).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from .catalog import one_line
from .dataset import Samples
from .errors import LearnerError, PluginError, PoolwrightError

STARTS = ("scratch", "warm", "pretrained")


class Learner(Protocol):
    """A model that can be fitted and asked."""

    provides: Collection[str]

    def fit(self, labeled: Samples, *, unlabeled: Samples, start: str, generator: torch.Generator) -> None:
        """Train on ``labeled``.

        Parameters
        ----------
        labeled : Samples
            At least one sample, perhaps of one class only, with labels.
        unlabeled : Samples
            The rest of the pool without labels, for semi-supervised learners.
        start : {"scratch", "warm", "pretrained"}
            Forget everything, go on from the present weights, or begin from the learner's own pretrained weights.
        generator : torch.Generator
            The stream to draw from (CPU); the global generators are seeded as well.
        """
        ...

    def predict(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Return all that the learner provides for one batch of prepared inputs, in one pass, in eval mode."""
        ...


LearnerFactory = Callable[[], Learner]


class LearnerView:
    """A fitted learner as hooks see it: it can be asked, not changed.

    Only ``provides``, ``predict``, ``sample``, ``head`` (a copy), ``members`` (views) and ``predict_batch_size`` can be
    reached, since a strategy that changes the learner would change the run it is meant to observe. Train a learner of
    your own with ``cycle.simulate``.
    """

    def __init__(self, learner: Learner, plugin: str) -> None:
        object.__setattr__(self, "_learner", learner)
        object.__setattr__(self, "_plugin", plugin)

    @property
    def provides(self) -> frozenset[str]:
        """What the learner can do."""
        return frozenset(self._learner.provides)

    @property
    def predict_batch_size(self) -> int:
        """How many samples to predict at a time."""
        return predict_batch_size(self._learner)

    def predict(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Return the learner's outputs for a batch of prepared inputs."""
        return asked(self._learner, inputs)

    def __getattr__(self, name: str) -> Any:
        if name in ("_learner", "_plugin") or name.startswith("__"):  # not made yet, as while it is copied
            raise AttributeError(name)
        learner = self._learner
        if name not in ("head", "members", "sample"):
            raise AttributeError(self._refusal(name))
        if not hasattr(learner, name):
            raise AttributeError(
                f"plugin {self._plugin!r} wants {name!r}, but learner {type(learner).__name__} has no {name!r} "
                f"(it provides: {', '.join(sorted(learner.provides))})"
            )
        own = getattr(learner, name)
        if name == "head":
            return copy.deepcopy(own).requires_grad_(False)
        return tuple(LearnerView(member, self._plugin) for member in own) if name == "members" else own

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(self._refusal(name))

    def _refusal(self, name: str) -> str:
        return (
            f"plugin {self._plugin!r} reached for {name!r} of the run's learner: hooks may ask it "
            f"(provides, predict, sample, head, members), not change it; use cycle.simulate(...) for a fresh one"
        )


def predict_batch_size(learner: Learner) -> int:
    """Return how many samples the learner predicts at a time."""
    return int(getattr(learner, "predict_batch_size", 1024))


def asked(learner: Learner, inputs: Tensor) -> Mapping[str, Tensor]:
    """Return what ``predict`` gives for a batch, without gradients.

    Raises
    ------
    LearnerError
        It raised an exception; the message names the learner.
    """
    try:
        with torch.no_grad():
            result = learner.predict(inputs)
    except PoolwrightError:
        raise
    except Exception as error:
        raise LearnerError(
            f"learner {type(learner).__name__} failed to predict {len(inputs)} samples: {one_line(error)}"
        ) from error
    if not isinstance(result, Mapping):
        kind = type(result).__name__
        raise LearnerError(f"learner {type(learner).__name__} returned {kind} from predict: return a dict of tensors")
    return result


def check_members(learner: Any) -> None:
    """Refuse an object that lacks what every learner has."""
    for member in ("provides", "fit", "predict"):
        if not hasattr(learner, member):
            raise PluginError(
                f"learner {type(learner).__name__} has no {member}: see poolwright.learner for what it needs"
            )


def checked_output(learner: Learner, result: Mapping[str, Tensor], name: str, n: int) -> Tensor:
    """Return one output of a batch of ``n`` as float32, one row (of ``loss``: one number) a sample.

    What a segmentation learner gives for each pixel becomes the mean over the pixels.

    Raises
    ------
    LearnerError
        It is not there, has another shape, or holds NaN; the message names learner and output.
    """
    who = f"learner {type(learner).__name__}"
    if name not in result:
        raise LearnerError(f"{who} gave no {name!r}; predict() returned: {', '.join(sorted(result)) or 'nothing'}")
    values = result[name].detach().float()
    if len(values) != n:
        raise LearnerError(f"{who} gave {name!r} of shape {tuple(values.shape)} for a batch of {n}")
    if torch.isnan(values).any():
        rows = torch.isnan(values).reshape(n, -1).any(1).sum()
        raise LearnerError(
            f"{who} gave NaN in {name!r} for {int(rows)} of {n} samples of a batch: its training diverged; "
            f"lower the learning rate"
        )
    if name in ("probabilities", "logits") and values.ndim == 4:
        values = values.flatten(2).mean(2)
    if values.ndim != (1 if name == "loss" else 2):
        wanted = {"loss": "(n,)", "embeddings": "(n, d)"}.get(name, "(n, classes), or one such for each pixel")
        raise LearnerError(f"{who} gave {name!r} of shape {tuple(values.shape)} for a batch of {n}, not {wanted}")
    return values


def predicted_classes(result: Mapping[str, Tensor]) -> Tensor:
    """Return the predicted class of each sample (or pixel) from whatever the learner returned, int64."""
    if "predictions" in result:
        return result["predictions"].long()
    for name in ("logits", "probabilities"):
        if name in result:
            return result[name].argmax(1)
    raise LearnerError("predict() returned neither logits, nor probabilities, nor predictions: it cannot be evaluated")
