"""Learners: the protocol of the models that are trained on what has been labeled.

A learner is a plugin of the group ``poolwright.learners``: a class whose constructor stores keyword parameters. What
it can do stands in ``provides``:

``probabilities``, ``embeddings``, ``logits``, ``loss``
    keys of what :meth:`Learner.predict` returns: float tensors ``(n, classes)``, ``(n, d)``, ``(n, classes)`` and
    ``(n,)`` (a predicted loss); for segmentation, ``probabilities`` and ``logits`` are ``(n, classes, height, width)``.
``head``
    an attribute ``head``: the last linear layer (``torch.nn.Linear``), embeddings in, logits out.
``dropout``
    a method ``sample(inputs, generator) -> dict``: like ``predict``, one stochastic pass, batch norm in eval mode.
``members``
    an attribute ``members``: the learners of an ensemble, each with its own ``predict``.

A learner without logits or probabilities returns ``predictions`` (class indices) so that it can be evaluated.
Optional members: ``state_dict()`` and ``load_state_dict(state)`` (needed for ``start = "warm"`` and
``refit_every``), ``load_pretrained(samples)`` (take pretrained weights without fitting, for initial pools), a
parameter ``device`` (the run passes its own), ``predict_batch_size`` (1024 by default).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from .dataset import Samples
from .errors import LearnerError

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

    Attributes of the learner are passed through; ``fit`` and ``load_state_dict`` are refused, because a strategy that
    refits the learner would change the run it is meant to observe. Train a learner of your own with
    ``cycle.simulate``.
    """

    def __init__(self, learner: Learner, plugin: str) -> None:
        self._learner = learner
        self._plugin = plugin

    def predict(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Return the learner's outputs for a batch of prepared inputs."""
        return self._learner.predict(inputs)

    def fit(self, *args: object, **kwargs: object) -> None:
        """Refuse."""
        self._refuse("fit")

    def load_state_dict(self, *args: object, **kwargs: object) -> None:
        """Refuse."""
        self._refuse("load_state_dict")

    def _refuse(self, name: str) -> None:
        raise LearnerError(
            f"plugin {self._plugin!r} called {name}() on the run's learner: hooks may only read it; "
            f"use cycle.simulate(...) for a fresh learner"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._learner, name)

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            self._refuse(f"__setattr__({name!r})")
        super().__setattr__(name, value)


def predict(
    learner: Learner, samples: Samples, outputs: Collection[str], *, device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """Return ``outputs`` of ``learner`` for all ``samples``, float32, computed in one pass over them.

    Raises
    ------
    LearnerError
        An output is missing, has the wrong length, or holds NaN.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in outputs}
    for inputs, _ in samples.batches(getattr(learner, "predict_batch_size", 1024), device=device):
        with torch.no_grad():
            result = learner.predict(inputs)
        for name in outputs:
            parts[name].append(checked_output(learner, result, name, len(inputs)))
    return {name: torch.cat(blocks) if blocks else torch.empty(0) for name, blocks in parts.items()}


def checked_output(learner: Learner, result: Mapping[str, Tensor], name: str, n: int) -> Tensor:
    """Return one output of a batch of ``n`` as float32, or raise LearnerError naming learner and output."""
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
    return values


def predicted_classes(result: Mapping[str, Tensor]) -> Tensor:
    """Return the predicted class of each sample (or pixel) from whatever the learner returned, int64."""
    if "predictions" in result:
        return result["predictions"].long()
    for name in ("logits", "probabilities"):
        if name in result:
            return result[name].argmax(1)
    raise LearnerError("predict() returned neither logits, nor probabilities, nor predictions: it cannot be evaluated")
