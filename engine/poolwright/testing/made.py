"""Made parts for unit tests: a small data set, a fast learner, and a cycle as a hook sees it."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..catalog import Catalog
from ..cycle import Cycle
from ..dataset import Dataset, Samples, Split, TensorSplit
from ..hookspecs import NEEDS
from ..learner import Learner, LearnerFactory
from ..pool import UNLABELED
from ..rows import Rows
from ..session import Session
from ..state import CycleState

PROVIDES = frozenset({"probabilities", "embeddings", "logits", "head"})
"""What :func:`make_learner` gives unless asked for more."""
BATCH = 4
NO_PLUGINS = Catalog(points=())


class MadeDataset(Dataset):
    """Noisy images around one random image a class; for segmentation, the brightness of a pixel is its class.

    Classes take turns (sample i is of class i modulo ``n_classes``), so any few consecutive ids hold all of them. The
    images are stored as uint8 and prepared to [0, 1].

    Parameters
    ----------
    n : int
        Samples in the pool.
    n_classes : int
    shape : tuple of int
        Of one sample; ``(channels, height, width)`` for segmentation.
    task : {"classification", "segmentation"}
    identical : bool
        All samples are the same, whatever their class.
    seed : int
        Of the noise.
    """

    def __init__(
        self,
        *,
        n: int = 48,
        n_classes: int = 3,
        shape: tuple[int, ...] = (1, 8, 8),
        task: str = "classification",
        identical: bool = False,
        seed: int = 0,
    ) -> None:
        self.n = n
        self.n_classes = n_classes
        self.shape = shape
        self.task = task
        self.identical = identical
        self.seed = seed

    def load(self) -> None:
        """Make the samples."""
        generator = torch.Generator().manual_seed(self.seed)
        self._means = torch.rand(self.n_classes, *self.shape, generator=generator)
        self.classes = tuple(f"class {c}" for c in range(self.n_classes))
        self.pool: Split = self._split(self.n, generator)
        self.validation: Split | None = self._split(6 * self.n_classes, generator)
        self.test: Split = self._split(6 * self.n_classes, generator)
        x = self.prepare(self.pool.inputs(torch.arange(self.n)))
        self.features: Rows | None = Rows(x.flatten(1))

    def _split(self, n: int, generator: torch.Generator) -> TensorSplit:
        labels = torch.arange(n) % self.n_classes
        x = self._means[labels] + 0.3 * torch.randn(n, *self.shape, generator=generator)
        x = (255 * x.clamp(0, 1)).to(torch.uint8)
        if self.identical:
            x = x[:1].expand_as(x).clone()
        if self.task == "segmentation":
            labels = (x.long().sum(1) * self.n_classes // (256 * self.shape[0])).to(torch.uint8)
        return TensorSplit(x, labels)

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return brightness in [0, 1]."""
        return inputs.float() / 255

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images a little brighter or darker."""
        gain = 0.9 + 0.2 * torch.rand(len(inputs), generator=generator)
        return inputs * gain.to(inputs.device).reshape(-1, *[1] * (inputs.ndim - 1))


class MadeLearner:
    """Softmax regression on fixed random features: a fit takes a few milliseconds.

    Embeddings are tanh(x W) with a W that depends on the size of x alone; the head is trained by gradient descent from
    small weights out of the run's stream. It does classification and, pixel by pixel, segmentation.

    Parameters
    ----------
    provides : set of str
        Which of the abilities in :mod:`poolwright.learner` it has; what is not named is not there. ``loss`` is the
        entropy of its prediction, ``members`` are three learners fitted from different weights, ``dropout`` drops half
        of the embedding.
    width : int
        Length of the embeddings.
    steps : int
        Of gradient descent.
    """

    def __init__(self, *, provides: Collection[str] = PROVIDES, width: int = 16, steps: int = 15) -> None:
        self.provides = provides
        self.width = width
        self.steps = steps
        self._head: nn.Linear | None = None
        self._projection = torch.empty(0, 0)
        self._per_pixel = False
        self._members: list[MadeLearner] = []

    def __getattr__(self, name: str) -> Any:
        """Return an ability that ``provides`` names."""
        need = {"head": "head", "members": "members", "sample": "dropout"}.get(name)
        if need is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        if need not in self.provides:
            raise AttributeError(f"{type(self).__name__} has no {name!r}; it provides {sorted(self.provides)}")
        return {"head": self._head, "members": self._members, "sample": self._sample}[name]

    def fit(self, labeled: Samples, *, unlabeled: Samples, start: str, generator: torch.Generator) -> None:
        """Train the head."""
        rows = torch.arange(len(labeled))
        x = labeled.inputs(rows)
        self._per_pixel = labeled.task == "segmentation"
        size = x.shape[1] if self._per_pixel else x[0].numel()
        self._projection = _projection(size, self.width)
        if self._head is None or start == "scratch":
            self._head = _linear(self.width, labeled.n_classes)
            self._head.weight.data = 0.5 * torch.randn(self._head.weight.shape, generator=generator)
            self._head.bias.data.zero_()
        assert labeled.labels is not None
        labels = labeled.labels[rows].reshape(-1)
        known = (labels >= 0) & (labels < labeled.n_classes)
        self._descend(self._head, self._features(x).flatten(0, 1)[known], labels[known])
        if "members" in self.provides:
            self._members = self._members or [MadeLearner(width=self.width, steps=self.steps) for _ in range(3)]
            for member in self._members:
                member.fit(labeled, unlabeled=unlabeled, start=start, generator=generator)

    def _descend(self, head: nn.Linear, features: Tensor, labels: Tensor) -> None:
        target = nn.functional.one_hot(labels, head.out_features).float()
        with torch.no_grad():
            for _ in range(self.steps if len(labels) else 0):
                error = (head(features).softmax(1) - target) / len(features)
                head.weight.sub_(4 * error.T @ features)
                head.bias.sub_(4 * error.sum(0))

    def _features(self, inputs: Tensor) -> Tensor:
        """Return embeddings of each sample's units, ``(n, units, width)``: its pixels, or itself."""
        units = inputs.flatten(2).transpose(1, 2) if self._per_pixel else inputs.flatten(1)[:, None]
        return (units @ self._projection).tanh()

    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs named in ``provides``, and the predicted classes."""
        return self._outputs(inputs, self._features(inputs))

    def _sample(self, inputs: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return what ``predict`` does, from one pass with half of the embedding dropped."""
        features = self._features(inputs)
        kept = torch.rand(features.shape, generator=generator) < 0.5
        return self._outputs(inputs, 2 * features * kept)

    def _outputs(self, inputs: Tensor, features: Tensor) -> dict[str, Tensor]:
        assert self._head is not None, "predict before fit"
        with torch.no_grad():
            units = self._head(features).transpose(1, 2)
        logits = units.reshape(len(inputs), -1, *inputs.shape[2:]) if self._per_pixel else units.squeeze(2)
        probabilities = logits.softmax(1)
        outputs = {
            "probabilities": probabilities,
            "logits": logits,
            "embeddings": features.mean(1),
            "loss": torch.special.entr(probabilities).sum(1).reshape(len(inputs), -1).mean(1),
        }
        named = {name: value for name, value in outputs.items() if name in self.provides}
        return named | {"predictions": logits.argmax(1)}

    def state_dict(self) -> dict[str, Any]:
        """Return the weights."""
        head = None if self._head is None else {"weight": self._head.weight.data.clone(), "bias": self._head.bias.data}
        return {
            "head": head,
            "inputs": len(self._projection),
            "per_pixel": self._per_pixel,
            "members": [member.state_dict() for member in self._members],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self._head, self._per_pixel = None, state["per_pixel"]
        self._projection = _projection(state["inputs"], self.width)
        if state["head"] is not None:
            weight = state["head"]["weight"]
            self._head = _linear(weight.shape[1], weight.shape[0])
            self._head.load_state_dict(state["head"])
        self._members = [MadeLearner(width=self.width, steps=self.steps) for _ in state["members"]]
        for member, kept in zip(self._members, state["members"], strict=True):
            member.load_state_dict(kept)


def _linear(width: int, n_classes: int) -> nn.Linear:
    """Return a linear layer without drawing its weights."""
    layer: nn.Linear = torch.nn.utils.skip_init(nn.Linear, width, n_classes)
    return layer.requires_grad_(False)


def _projection(size: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    weights = torch.randn(size, width, generator=generator)
    return weights.div_(max(1.0, size) ** 0.5)


def make_dataset(**params: Any) -> MadeDataset:
    """Return a loaded :class:`MadeDataset`, whose parameters these are."""
    dataset = MadeDataset(**params)
    dataset.load()
    return dataset


def make_learner(provides: Collection[str] = PROVIDES, **params: Any) -> MadeLearner:
    """Return a :class:`MadeLearner` that provides what is named; it has to be fitted."""
    return MadeLearner(provides=frozenset(provides), **params)


def make_cycle(
    *,
    plugin: str = "plugin",
    role: str = "score",
    needs: Collection[str] = NEEDS,
    dataset: Dataset | None = None,
    learner: Learner | None = None,
    given: Mapping[str, Tensor] | None = None,
    index: int = 1,
    labeled: int = 9,
    seed: int = 0,
) -> Cycle:
    """Return a cycle as a hook sees it, with a fitted learner.

    Ids 0 to ``labeled`` - 1 are the initial pool, and four more were labeled in each cycle before this one.

    Parameters
    ----------
    plugin, role : str
        Whose view it is: the key of ``cycle.generator``; ``release`` wants the role ``"update"``.
    needs : set of str
        What the view allows; everything by default.
    dataset : Dataset, optional
        Loaded; :func:`make_dataset` by default, or one as long as what is ``given``.
    learner : Learner, optional
        Made with the abilities in ``needs`` by default; none is fitted where nothing is labeled.
    given : dict of str to Tensor, optional
        Outputs for every sample of the pool instead of the learner's, such as ``{"probabilities": p}``.
    index : int
        Number of the cycle; 0 (without a batch before it) where nothing is labeled.
    labeled : int
        Size of the initial pool.
    seed : int
        Of the run.
    """
    if dataset is None:
        dataset = make_dataset(n=len(next(iter(given.values())))) if given else make_dataset()
    if learner is None and labeled:
        learner = make_learner(PROVIDES | (frozenset(needs) & {"dropout", "members", "loss"}))
    state = make_state(dataset, learner, given=given, index=index if labeled else 0, labeled=labeled, seed=seed)
    # All outputs are computed in one pass: only those may be asked for that somebody gives.
    state.needs = frozenset(needs) & (set(given or ()) | set(learner.provides if learner else ()))
    return Cycle(state, plugin, role, needs)


def _first(learner: Learner) -> LearnerFactory:
    """Return a factory that gives the learner itself, and then copies of what it was (for ``cycle.simulate``)."""
    given, copies = iter((learner,)), copy.deepcopy(learner)
    return lambda: next(given, None) or copy.deepcopy(copies)


def make_state(
    dataset: Dataset,
    learner: Learner | None,
    *,
    given: Mapping[str, Tensor] | None = None,
    index: int = 1,
    labeled: int = 9,
    seed: int = 0,
    reserve: int = 0,
) -> CycleState:
    """Return the engine's state of a cycle that has been fitted and evaluated, before any hook.

    ``reserve`` ids, the last ones, are set aside under the name ``state``.
    """
    n = len(dataset.pool)
    session = Session(
        dataset,
        learner=None if learner is None else _first(learner),
        given=given,
        budget=n - labeled - reserve,
        batch=BATCH,
        initial=torch.arange(labeled),
        reserve={"state": torch.arange(n - reserve, n)} if reserve else None,
        report=False,
        oracle=dataset.pool.labels,
        seed=seed,
        catalog=NO_PLUGINS,
    )
    session.answer()
    for _ in range(index):
        session.advance()
        ids = session.ask(session.pool.ids(UNLABELED)[:BATCH])
        session.history[-1].selected.extend(ids.tolist())
        session.answer()
    state = session._begin()
    if learner is not None:
        session.training.fit_and_evaluate(state, lambda phase: None)
    state.truth = True
    return state
