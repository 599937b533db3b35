"""Learners, each with the fault that its name tells."""

from __future__ import annotations

import torch
from poolwright.testing import MadeLearner, general, learners
from poolwright.testing.made import PROVIDES


class Plain(MadeLearner):
    """The made learner under another name.

    Parameters
    ----------
    provides : set of str
    width, steps : int
    """


class Full(Plain):
    """Provide all there is."""

    def __init__(self, *, provides=PROVIDES | {"dropout", "members", "loss"}):
        super().__init__(provides=provides)


class OnlyPredictions(Plain):
    """Give classes, and no state."""

    provides = frozenset()

    def __init__(self):
        super().__init__(provides=frozenset())

    state_dict = load_state_dict = property()


class ForPixels(Full):
    """Work for segmentation only."""

    tasks = frozenset({"segmentation"})


# -- faults: each class is Plain but for one thing ----------------------------------------------------------------


class LosesRate(Plain):
    """Lose the rate."""

    def __init__(self, *, rate=0.1):
        super().__init__()


class CannotFit(Plain):
    """Fail in fit."""

    def fit(self, labeled, *, unlabeled, start, generator):
        raise ZeroDivisionError("no data")


class OneTooFew(Plain):
    """Leave out a prediction."""

    def predict(self, inputs):
        return {name: values[:-1] for name, values in super().predict(inputs).items()}


class Changed(Plain):
    """Base of those that change an output."""

    def predict(self, inputs):
        outputs = super().predict(inputs)
        outputs[self.output] = self.change(outputs[self.output], inputs)
        return outputs


class NotSummed(Changed):
    """Give probabilities that do not sum to 1."""

    output = "probabilities"

    def change(self, values, inputs):
        return values * 0.9


class NotFinite(Changed):
    """Give infinite logits."""

    output = "logits"

    def change(self, values, inputs):
        return torch.where(values < values.amax(1, keepdim=True), -torch.inf, values)


class FlatEmbeddings(Changed):
    """Give embeddings of the wrong shape."""

    output = "embeddings"

    def change(self, values, inputs):
        return values.sum(1)


class UnknownAbility(Plain):
    """Provide what nobody knows."""

    def __init__(self):
        super().__init__(provides=PROVIDES | {"probability"})


class AbsentLoss(Plain):
    """Say that it predicts losses, and do not."""

    def __init__(self):
        super().__init__(provides=PROVIDES | {"loss"})

    def predict(self, inputs):
        outputs = super().predict(inputs)
        del outputs["loss"]
        return outputs


class OtherHead(Plain):
    """Show a head that does not give the logits."""

    @property
    def head(self):
        head = torch.nn.Linear(self.width, 3)
        head.weight.data.zero_()
        return head


class FixedDropout(Full):
    """Sample the same whatever the generator."""

    def sample(self, inputs, generator):
        return self.predict(inputs)


class NoMembers(Full):
    """Say that it is an ensemble, and be none."""

    members = ()


class Headless(Changed):
    """Change the embeddings, and show no head that would have to fit them."""

    def __init__(self):
        super().__init__(provides=PROVIDES - {"head"})


class BatchStatistics(Headless):
    """Center embeddings by their batch."""

    output = "embeddings"

    def change(self, values, inputs):
        return values - values.mean(0)


class Positions(Headless):
    """Let the place in the batch count."""

    output = "embeddings"

    def change(self, values, inputs):
        return values + torch.arange(len(values))[:, None]


class Unseeded(Plain):
    """Begin with weights that nobody can repeat."""

    def fit(self, labeled, *, unlabeled, start, generator):
        generator = torch.Generator()
        generator.seed()
        super().fit(labeled, unlabeled=unlabeled, start=start, generator=generator)

    state_dict = load_state_dict = property()


class WantsTwoClasses(Plain):
    """Refuse to learn one class."""

    def fit(self, labeled, *, unlabeled, start, generator):
        if len(labeled) > 1 and len(labeled.labels.unique()) < 2:
            raise ValueError("need two classes")
        super().fit(labeled, unlabeled=unlabeled, start=start, generator=generator)


class SeenClassesOnly(Plain):
    """Give probabilities of the classes seen so far."""

    def __init__(self):
        super().__init__(provides=frozenset({"probabilities"}))

    def fit(self, labeled, *, unlabeled, start, generator):
        super().fit(labeled, unlabeled=unlabeled, start=start, generator=generator)
        self._seen = labeled.labels.unique()

    def predict(self, inputs):
        p = super().predict(inputs)["probabilities"][:, self._seen]
        return {"probabilities": p / p.sum(1, keepdim=True)}

    state_dict = load_state_dict = property()


class CountsPredictions(Plain):
    """Keep the number of predictions in the state."""

    _asked = 0

    def predict(self, inputs):
        self._asked += 1
        return super().predict(inputs)

    def state_dict(self):
        return super().state_dict() | {"asked": self._asked}


class WritesInputs(Plain):
    """Scale the inputs in place (once: what is scaled already stays)."""

    def predict(self, inputs):
        return super().predict(inputs.clamp_(max=0.5))


class LosesBias(Plain):
    """Leave the bias out of the state."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self._head.bias.zero_()


class OddState(Plain):
    """Keep a function in the state."""

    def state_dict(self):
        return super().state_dict() | {"activation": torch.tanh}


class StartsAnew(Plain):
    """Forget everything, whatever the start."""

    def fit(self, labeled, *, unlabeled, start, generator):
        super().fit(labeled, unlabeled=unlabeled, start="scratch", generator=generator)


class HidesMomentum(Plain):
    """Keep a momentum that is not in the state."""

    _momentum = 0.0

    def fit(self, labeled, *, unlabeled, start, generator):
        super().fit(labeled, unlabeled=unlabeled, start=start, generator=generator)
        bias = self._head.bias
        bias += self._momentum
        self._momentum = float(bias[0]) + 1


class Relabeled(Plain):
    """Base of those that see other masks than they are given."""

    tasks = ("segmentation",)

    def fit(self, labeled, **options):
        labeled.labels = self.seen(labeled.labels[:])
        super().fit(labeled, **options)


class LearnsStrangers(Relabeled):
    """Take all values but 255 for classes."""

    def seen(self, masks):
        return torch.where(masks == 3, 0, masks)


class ReadsNoMask(Relabeled):
    """Learn what it likes."""

    def seen(self, masks):
        return torch.zeros_like(masks)


class DividesByKnown(Relabeled):
    """Divide by the number of pixels that are known."""

    def seen(self, masks):
        self.share = (masks < 3).float().mean()
        return masks

    def predict(self, inputs):
        return {name: values * (self.share / self.share) for name, values in super().predict(inputs).items()}

    def state_dict(self):
        return super().state_dict() | {"share": self.share}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.share = state["share"]


FAULTS = [
    (learners.FITS, "ZeroDivisionError: no data", CannotFit),
    (learners.FITS, "15 predictions for 16 samples", OneTooFew),
    (learners.HONEST, "sum to 0.9", NotSummed),
    (learners.HONEST, "logits hold NaN or infinity", NotFinite),
    (learners.HONEST, "embeddings are torch.float32 (16,)", FlatEmbeddings),
    (learners.HONEST, "did you mean 'probabilities'", UnknownAbility),
    (learners.HONEST, "provides names 'loss'", AbsentLoss),
    (learners.HONEST, "head(embeddings) are not the logits", OtherHead),
    (learners.HONEST, "the same for different generators", FixedDropout),
    (learners.HONEST, "members is empty", NoMembers),
    (learners.BATCHES, "between a batch and single samples", BatchStatistics),
    (learners.BATCHES, "embeddings differ", Positions),
    (learners.SAME, "two fits with the same generator", Unseeded),
    (learners.SMALL, "fitted on one class: ValueError", WantsTwoClasses),
    (learners.SMALL, "fitted on one sample: probabilities are torch.float32 (16, 1)", SeenClassesOnly),
    (learners.UNCHANGED, "changes the learner's state", CountsPredictions),
    (learners.UNCHANGED, "changes its inputs", WritesInputs),
    (learners.ROUND_TRIP, "differ after load_state_dict", LosesBias),
    (learners.ROUND_TRIP, "more than tensors", OddState),
    (learners.WARM, "forgets the weights", StartsAnew),
    (learners.WARM, "the state lacks something", HidesMomentum),
    (learners.IGNORED, "depend on which value outside the classes", LearnsStrangers),
    (learners.IGNORED, "is the mask read at all", ReadsNoMask),
    (learners.IGNORED, "fitted where every pixel is to be ignored: ", DividesByKnown),
    (general.CONSTRUCTOR, "'rate' is not kept as attribute", LosesRate),
]
GOOD = [Plain, Full, OnlyPredictions, ForPixels, MadeLearner]
