"""A planted world for learned policies: what each label is worth is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from poolwright import Dataset, DatasetOracle, LabelLeakError, Samples, Session, TensorSplit

STEPS = 4000
"""Validation samples: one label changes the accuracy by at most 1 / STEPS."""
BASE = 0.5


class Worths(Dataset):
    """Samples whose first feature says what their label is worth: +1 helps, -1 harms, each half of the time.

    Validation and test samples are numbers from 0 to 1; the learner gets those right that lie below its accuracy.
    """

    task = "classification"
    classes = ("right", "wrong")

    def __init__(self, *, n: int = 400, d: int = 4, seed: int = 0) -> None:
        self.n = n
        self.d = d
        self.seed = seed

    def load(self) -> None:
        stream = torch.Generator().manual_seed(self.seed)
        x = torch.randn(self.n, self.d, generator=stream) / 2
        x[:, 0] = torch.randint(2, (self.n,), generator=stream) * 2.0 - 1
        self.pool = TensorSplit(x, torch.zeros(self.n))
        ruler = torch.zeros(STEPS, self.d)
        ruler[:, 0] = (torch.arange(STEPS) + 0.5) / STEPS
        self.validation = TensorSplit(ruler, torch.zeros(STEPS))
        self.test = TensorSplit(ruler[::10], torch.zeros(len(ruler[::10])))


class Tally:
    """A learner whose accuracy is the base and what all its labels are worth together."""

    provides = frozenset({"probabilities", "embeddings"})

    def __init__(self) -> None:
        self.accuracy = BASE

    def fit(self, labeled: Samples, *, unlabeled: Samples, start: str, generator: torch.Generator) -> None:
        self.accuracy = BASE + labeled.inputs(torch.arange(len(labeled)))[:, 0].sum().item() / STEPS

    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        right = (inputs[:, 0] < self.accuracy).float()
        return {"probabilities": torch.stack([right, 1 - right], 1), "embeddings": inputs}

    def state_dict(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.accuracy = state["accuracy"]


class SealedSplit(TensorSplit):
    """A split whose labels nobody may read."""

    def labels(self, ids: Tensor) -> Tensor:
        raise LabelLeakError("somebody read labels of test data")


def sealed(dataset: Dataset) -> Dataset:
    """Return the loaded data set with its test labels behind a seal."""
    test = dataset.test
    assert isinstance(test, TensorSplit)
    dataset.test = SealedSplit(test.data, torch.zeros(len(test)))
    return dataset


def planted(strategy: Any, *, budget: int, seed: int = 0, sealed_test: bool = False, **kwargs: Any) -> Session:
    """Return a session in the planted world with two initial labels, answered."""
    dataset = kwargs.pop("dataset", None) or Worths(n=budget + 200, seed=seed)
    dataset.load()
    if sealed_test:
        dataset = sealed(dataset)
    settings: dict[str, Any] = {"learner": Tally, "initial": torch.arange(2), "report": False, "seed": seed}
    session = Session(
        dataset, strategy=strategy, budget=budget, oracle=DatasetOracle(dataset.pool), **(settings | kwargs)
    )
    if session.index == 0:
        session.answer()
    return session


def play(session: Session) -> Session:
    """Answer until the end and return the session."""
    while session.advance() is not None:
        session.answer()
    return session
