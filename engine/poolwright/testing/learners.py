"""Rules for learners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import streams
from ..catalog import parameters
from ..dataset import Samples
from ..errors import close_matches
from ..hookspecs import LEARNER_NEEDS
from ..learner import Learner, predicted_classes
from . import general
from .findings import Broken, Inapplicable, Rule, Subject
from .fingerprints import fingerprint
from .general import CONSTRUCTOR, DOCUMENTED, MADE
from .made import MadeDataset, make_dataset

FITS = "it can be fitted and asked"
HONEST = "it provides what it says, in shape and sound"
BATCHES = "predictions do not depend on the batch"
SAME = "the same generator gives the same weights"
SMALL = "one sample, and one class, are enough to fit"
UNCHANGED = "predicting changes nothing"
ROUND_TRIP = "its state can be kept and loaded"
IGNORED = "pixels to be ignored are not learned from, and do no harm"
WARM = "a warm start goes on from the present weights"

TOLERANCE = 1e-4
OUTPUTS = ("probabilities", "logits", "embeddings", "loss")


def _task(subject: Subject) -> str:
    tasks = getattr(subject.sample, "tasks", ("classification",))
    return "classification" if "classification" in tasks else "segmentation"


def _new(subject: Subject) -> Learner:
    """Return a fresh instance, on the CPU where it takes a device."""
    taken = parameters(subject.load())
    device = {"device": "cpu"} if taken is not None and "device" in taken else {}
    with streams.seeded("conformance", "constructor"):
        learner: Learner = subject.catalog.build(subject.kind, subject.plugin, device | subject.params)[0]
    return learner


def _samples(data: MadeDataset, ids: Tensor) -> Samples:
    return Samples(data, data.pool, ids, data.pool.labels if data.task == "segmentation" else data.pool.labels(ids))


def _fit(
    learner: Learner,
    data: MadeDataset,
    ids: Tensor,
    *,
    start: str = "scratch",
    stream: str = "a",
    labels: Tensor | None = None,
) -> None:
    """Fit as a session does: the generator and the global streams come from one key."""
    labeled = _samples(data, ids) if labels is None else Samples(data, data.pool, ids, labels)
    rest = torch.arange(len(data.pool))
    unlabeled = Samples(data, data.pool, rest[~torch.isin(rest, ids)])
    with streams.seeded("conformance", "fit", stream):
        generator = streams.generator("conformance", "fit", stream)
        learner.fit(labeled, unlabeled=unlabeled, start=start, generator=generator)


def _fitted(subject: Subject, *, stream: str = "a") -> tuple[Learner, MadeDataset, Tensor]:
    """Return a learner fitted on 12 samples of 3 classes, the data, and the inputs of 16 others."""
    data = make_dataset(task=_task(subject))
    learner = _new(subject)
    _fit(learner, data, torch.arange(12), stream=stream)
    return learner, data, _samples(data, torch.arange(20, 36)).inputs(torch.arange(16))


def _predict(learner: Learner, inputs: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        outputs = learner.predict(inputs)
    if not isinstance(outputs, Mapping):
        raise Broken(f"predict returned {type(outputs).__name__}: return a dict of tensors by name")
    return {name: values.detach().clone().cpu() for name, values in outputs.items()}


def _same(first: Mapping[str, Tensor], second: Mapping[str, Tensor], tolerance: float = 0.0) -> str:
    """Return the name of an output that differs, or an empty string."""
    for name, values in first.items():
        if name == "predictions" and tolerance:  # ties fall either way
            continue
        other = second.get(name)
        if other is None or other.shape != values.shape:
            return name
        if not torch.allclose(values.double(), other.double(), rtol=tolerance, atol=tolerance, equal_nan=True):
            return name
    return ""


def fits(subject: Subject) -> None:
    """Fit on a few samples and predict others; the result can be evaluated."""
    learner, _, inputs = _fitted(subject)
    predicted = predicted_classes(_predict(learner, inputs))
    if len(predicted) != len(inputs):
        raise Broken(f"{len(predicted)} predictions for {len(inputs)} samples")


def honest(subject: Subject) -> None:
    """Each ability in ``provides`` is there as :mod:`poolwright.learner` describes it."""
    learner, data, inputs = _fitted(subject)
    outputs = _predict(learner, inputs)
    provides = getattr(learner, "provides", None)
    if provides is None or isinstance(provides, str):
        raise Broken(f"provides must be a set of names such as {{'probabilities'}}, not {provides!r}")
    for name in sorted(provides):
        if name not in LEARNER_NEEDS:
            raise Broken(f"provides names {name!r}: {close_matches(name, LEARNER_NEEDS)}")
        if name in OUTPUTS:
            _sound(name, outputs, inputs, len(data.classes), data.task)
    if "head" in provides:
        _head(learner, outputs)
    if "dropout" in provides:
        _dropout(learner, outputs, inputs)
    if "members" in provides:
        members = list(getattr(learner, "members", ()))
        if not members or any(_predict(member, inputs).keys().isdisjoint(OUTPUTS) for member in members):
            raise Broken("provides names 'members', but members is empty, or one of them predicts nothing")


def _sound(name: str, outputs: Mapping[str, Tensor], inputs: Tensor, n_classes: int, task: str) -> None:
    if name not in outputs:
        raise Broken(f"provides names {name!r}, but predict returned {', '.join(sorted(outputs)) or 'nothing'}")
    values, n = outputs[name], len(inputs)
    pixels = tuple(inputs.shape[2:]) if task == "segmentation" else ()
    shape = {"loss": (n,), "embeddings": (n, -1)}.get(name, (n, n_classes, *pixels))
    fits = values.ndim == len(shape) and all(want in (-1, has) for want, has in zip(shape, values.shape, strict=True))
    if not fits or not values.is_floating_point():
        wanted = str(shape).replace("-1", "d")
        raise Broken(f"{name} are {values.dtype} {tuple(values.shape)}; they must be floating point {wanted}")
    if not torch.isfinite(values).all():
        raise Broken(f"{name} hold NaN or infinity")
    if name == "probabilities" and (values.min() < 0 or (values.sum(1) - 1).abs().max() > TOLERANCE):
        total = values.sum(1)
        raise Broken(f"probabilities must be at least 0 and sum to 1; they sum to {total.min():.4g}..{total.max():.4g}")


def _head(learner: Any, outputs: Mapping[str, Tensor]) -> None:
    head = getattr(learner, "head", None)
    if not isinstance(head, nn.Linear):
        raise Broken(f"provides names 'head', but head is {type(head).__name__}, not torch.nn.Linear")
    if {"embeddings", "logits"} <= outputs.keys() and outputs["logits"].ndim == 2:
        with torch.no_grad():
            logits = head(outputs["embeddings"].to(head.weight.device)).cpu()
        if _same({"logits": outputs["logits"]}, {"logits": logits}, 1e-3):
            raise Broken("head(embeddings) are not the logits")


def _dropout(learner: Any, outputs: Mapping[str, Tensor], inputs: Tensor) -> None:
    if not callable(getattr(learner, "sample", None)):
        raise Broken("provides names 'dropout', but there is no method sample(inputs, generator)")
    first, again, other = (learner.sample(inputs, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    named = [name for name in OUTPUTS if name in outputs]
    if not set(named) <= set(first):
        raise Broken(f"sample returned {', '.join(sorted(first)) or 'nothing'}, predict {', '.join(sorted(outputs))}")
    if _same({name: first[name] for name in named}, again):
        raise Broken("sample depends on more than its generator")
    if not _same({name: first[name] for name in named}, other):
        raise Broken("sample is the same for different generators")


def batches(subject: Subject) -> None:
    """Sample by sample, and in the other order, the predictions are the same."""
    learner, _, inputs = _fitted(subject)
    together = _predict(learner, inputs)
    single = [_predict(learner, x) for x in inputs.split(1)]
    flipped = _predict(learner, inputs.flip(0))
    name = _same(together, {name: torch.cat([part[name] for part in single]) for name in together}, TOLERANCE)
    if name:
        raise Broken(f"{name} differ between a batch and single samples (is something left in training mode?)")
    name = _same(together, {name: values.flip(0) for name, values in flipped.items()}, TOLERANCE)
    if name:
        raise Broken(f"{name} depend on the order of the batch")


def same(subject: Subject) -> None:
    """Two instances, fitted with the same generator, predict the same."""
    (first, _, inputs), (second, _, _) = _fitted(subject), _fitted(subject)
    name = _same(_predict(first, inputs), _predict(second, inputs))
    if name:
        raise Broken(f"{name} differ after two fits with the same generator: draw from it, or from the global streams")


def small(subject: Subject) -> None:
    """Labels may come one at a time, and from one class only."""
    data = make_dataset(task=_task(subject))
    inputs = _samples(data, torch.arange(20, 36)).inputs(torch.arange(16))
    for ids, what in ((torch.tensor([0]), "one sample"), (torch.tensor([0, 3, 6, 9]), "one class")):
        learner = _new(subject)
        try:
            _fit(learner, data, ids)
            outputs = _predict(learner, inputs)
        except Exception as error:  # a stranger's learner may raise anything
            raise Broken(f"fitted on {what}: {subject.brief(error)}") from error
        for name in sorted(set(learner.provides) & set(OUTPUTS)):
            try:
                _sound(name, outputs, inputs, len(data.classes), data.task)
            except Broken as error:
                raise Broken(f"fitted on {what}: {error}") from None


def unchanged(subject: Subject) -> None:
    """State and predictions are the same before and after predicting."""
    learner, _, inputs = _fitted(subject)
    given = fingerprint(inputs)
    outputs = _predict(learner, inputs)
    before = fingerprint(learner)
    again = _predict(learner, inputs)
    if "dropout" in learner.provides:
        learner.sample(inputs, torch.Generator().manual_seed(0))  # type: ignore[attr-defined]
    if fingerprint(learner) != before:
        raise Broken("predict or sample changes the learner's state")
    if fingerprint(inputs) != given:
        raise Broken("predict changes its inputs: work on a copy")
    name = _same(outputs, again) or _same(outputs, _predict(learner, inputs))
    if name:
        raise Broken(f"{name} differ from one call of predict to the next")


def round_trip(subject: Subject) -> None:
    """A fresh instance that loads the state predicts the same."""
    learner, _, inputs = _fitted(subject)
    state = general.plain_state(learner)
    fresh: Any = _new(subject)
    fresh.load_state_dict(state)
    name = _same(_predict(learner, inputs), _predict(fresh, inputs))
    if name:
        raise Broken(f"{name} differ after load_state_dict(state_dict())")


def ignored(subject: Subject) -> None:
    """What lies under the pixels to be ignored leaves the fit as it is, whichever value marks them; all may be."""
    if _task(subject) != "segmentation":
        raise Inapplicable("it is not for segmentation")
    data, ids = make_dataset(task="segmentation"), torch.arange(12)
    inputs = _samples(data, torch.arange(20, 36)).inputs(torch.arange(16))
    masks = data.pool.labels(ids)
    fits = []
    for mark in (data.ignore_index, len(data.classes)):
        some, learner = masks.clone(), _new(subject)
        some[:, ::2] = mark
        some[0] = mark
        _fit(learner, data, ids, labels=some)
        fits.append(_predict(learner, inputs))
    name = _same(fits[0], fits[1], TOLERANCE)
    if name:
        raise Broken(f"{name} depend on which value outside the classes marks a pixel to be ignored")
    if set(fits[0]) & set(OUTPUTS) and not _same(fits[0], _predict(_fitted(subject)[0], inputs)):
        raise Broken("a fit with half of the pixels ignored is that with all of them: is the mask read at all?")
    learner = _new(subject)
    _fit(learner, data, ids, labels=torch.full_like(masks, data.ignore_index))
    outputs = _predict(learner, inputs)
    for name in sorted(set(learner.provides) & set(OUTPUTS)):
        try:
            _sound(name, outputs, inputs, len(data.classes), data.task)
        except Broken as error:
            raise Broken(f"fitted where every pixel is to be ignored: {error}") from None


def warm(subject: Subject) -> None:
    """After other first weights a warm fit ends elsewhere: what was learned before still counts."""
    first, data, inputs = _fitted(subject, stream="a")
    second, _, _ = _fitted(subject, stream="b")
    if not hasattr(first, "state_dict"):
        raise Inapplicable("it keeps no state, so it is always fitted from scratch")
    if not _same(_predict(first, inputs), _predict(second, inputs)):
        raise Inapplicable("the fit does not depend on where it begins")
    more = torch.arange(16)
    copy: Any = _new(subject)
    copy.load_state_dict(general.reloaded(first.state_dict))
    for learner in (first, second, copy):
        _fit(learner, data, more, start="warm", stream="c")
    if not _same(_predict(first, inputs), _predict(second, inputs)):
        raise Broken("a fit with start = 'warm' forgets the weights that were there")
    name = _same(_predict(first, inputs), _predict(copy, inputs), TOLERANCE)
    if name:
        raise Broken(f"{name} differ between a warm fit and one after load_state_dict: the state lacks something")


LEARNER_RULES = (
    Rule(MADE, general.made),
    Rule(DOCUMENTED, general.documented, (MADE,)),
    Rule(CONSTRUCTOR, general.constructor, (MADE,)),
    Rule(FITS, fits, (MADE,)),
    Rule(HONEST, honest, (FITS,)),
    Rule(SAME, same, (FITS,)),
    Rule(UNCHANGED, unchanged, (FITS,)),
    Rule(BATCHES, batches, (FITS, UNCHANGED)),
    Rule(SMALL, small, (FITS, HONEST)),
    Rule(ROUND_TRIP, round_trip, (FITS, UNCHANGED)),
    Rule(WARM, warm, (SAME, ROUND_TRIP)),
    Rule(IGNORED, ignored, (SAME,)),
)
