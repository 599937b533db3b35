"""Twisted initial sets: how many samples of which half of the classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from poolwright import ConfigError, TensorSplit, run, testing
from poolwright.spec import Experiment
from poolwright_plugins.strategies.twisted import Twisted

SIZES = (40, 5, 30, 8, 60)
"""Classes 1 and 3 are rare."""


def pool() -> Any:
    """Return a data set with a long tail."""
    dataset = testing.make_dataset(n=sum(SIZES), n_classes=len(SIZES))
    labels = torch.repeat_interleave(torch.arange(5), torch.tensor(SIZES))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    dataset.pool = TensorSplit(dataset.pool.inputs(torch.arange(len(labels))), labels)
    return dataset


def counts(budget: int, seed: int = 0, **params: Any) -> list[int]:
    """Return how many samples of each class are drawn."""
    dataset = pool()
    cycle = testing.make_cycle(role="select", needs={"truth"}, dataset=dataset, labeled=0, index=0, seed=seed)
    ids: Tensor = Twisted(**params).select(cycle, budget)
    assert len(ids) == len(ids.unique()) == min(budget, sum(SIZES))
    return torch.bincount(dataset.pool.labels(ids), minlength=5).tolist()


@pytest.mark.parametrize(("favor", "few", "rare"), [("main", 4, 4), ("main", 0, 0), ("rare", 9, 3), ("rare", 0, 12)])
def test_few_samples_come_from_the_other_half(favor: str, few: int, rare: int) -> None:
    drawn = counts(12, favor=favor, few=few)
    assert drawn[1] + drawn[3] == rare


def test_the_samples_of_a_half_are_drawn_at_random() -> None:
    drawn = torch.tensor([counts(30, seed=seed, few=0) for seed in range(40)]).double().mean(0)
    expected = 30 * torch.tensor([40, 0, 30, 0, 60]) / 130
    assert (drawn - expected).abs().max() < 1.5


def test_what_a_half_lacks_comes_from_the_other() -> None:
    assert counts(40, favor="rare", few=2)[1::2] == [5, 8]
    assert counts(143) == list(SIZES)
    assert counts(1000) == list(SIZES)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"favor": "none"}, "twisted: favor is one of main, rare, not 'none'"),
        ({"few": -1}, "twisted: few must be an integer of at least 0, not -1"),
        ({"few": 0.5}, "twisted: few must be an integer"),
    ],
)
def test_unusable_parameters_are_errors_that_name_them(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        counts(5, **params)


def test_as_an_initial_strategy_it_must_be_allowed_and_marks_the_result() -> None:
    setting: dict[str, Any] = {
        "dataset": {"name": "digits"},
        "learner": {"name": "linear", "epochs": 1},
        "initial": {"strategy": "twisted", "few": 5, "size": 30},
        "budget": 5,
        "batch": 5,
        "strategy": ["random"],
    }
    with pytest.raises(ConfigError, match="allow_truth"):
        run(Experiment.model_validate(setting))
    result = run(Experiment.model_validate(setting | {"allow_truth": True}))
    assert all(record.truth for one in result.runs for record in one.records)
