"""Stopping criteria."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from poolwright import ConfigError
from poolwright_plugins.wrappers.stop_when import StopWhen, agreement

from .conftest import cycle_of, through

BATCH = torch.tensor([7, 8])


def one_hot(*classes: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(classes), 3).float()


def select(wrapper: StopWhen, metrics: dict[str, float] | None = None) -> Any:
    cycle = cycle_of(needs={"validation"}, probabilities=one_hot(0, 1, 2))
    cycle.metrics = metrics or {}
    return through(wrapper.select(cycle), BATCH)


def update(wrapper: StopWhen, *classes: int, labeled: int = 0) -> None:
    cycle = cycle_of(role="update", labeled=labeled, probabilities=one_hot(*classes))
    assert through(wrapper.update(cycle), ["inner"]) == ["inner"]


def stops(wrapper: StopWhen, metrics: dict[str, float] | None = None) -> bool:
    ids = select(wrapper, metrics)
    assert ids.dtype == torch.int64
    return len(ids) == 0


def test_the_inner_batch_passes_below_the_threshold_and_none_does_from_it_on() -> None:
    wrapper = StopWhen(metric="f1", threshold=0.9)
    assert torch.equal(select(wrapper, {"accuracy": 0.99, "f1": 0.89}), BATCH)
    assert stops(wrapper, {"accuracy": 0.1, "f1": 0.9})


def test_the_metric_is_the_headline_unless_named() -> None:
    assert stops(StopWhen(threshold=0.5), {"accuracy": 0.6, "f1": 0.1})
    assert not stops(StopWhen(threshold=0.5), {"accuracy": 0.4, "f1": 0.9})


def test_a_threshold_without_validation_data_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"there is none: set \[dataset\] validation"):
        select(StopWhen(threshold=0.5))


def test_an_unknown_metric_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown metric 'acuracy'; there are: accuracy, f1"):
        select(StopWhen(metric="acuracy", threshold=0.5), {"accuracy": 0.6, "f1": 0.6})


def test_stable_counts_cycles_in_a_row_that_agree_with_the_one_before() -> None:
    wrapper = StopWhen(stable=2, agreement=0.75)
    update(wrapper, 0, 1, 2, 0)
    assert not stops(wrapper)
    update(wrapper, 0, 1, 2, 1)  # 3 of 4 agree
    assert not stops(wrapper)
    update(wrapper, 0, 1, 2, 1)
    assert stops(wrapper)


def test_a_cycle_that_disagrees_starts_the_count_again() -> None:
    wrapper = StopWhen(stable=2, agreement=0.75)
    for classes in ([0, 1, 2, 0], [0, 1, 2, 0], [1, 2, 2, 0], [1, 2, 2, 0]):
        update(wrapper, *classes)
        assert not stops(wrapper)
    update(wrapper, 1, 2, 2, 0)
    assert stops(wrapper)


def test_agreement_compares_the_same_ids_among_those_unlabeled_in_both_cycles() -> None:
    wrapper = StopWhen(stable=1, agreement=1.0)
    update(wrapper, 0, 1, 2, 0)
    update(wrapper, 2, 1, 2, 0, labeled=1)  # id 0 changed, but it is labeled now
    assert stops(wrapper)


def test_agreement_is_a_share_and_none_without_a_shared_sample() -> None:
    ids, other = torch.tensor([1, 3, 4, 9]), torch.tensor([0, 3, 4, 9])
    assert agreement(ids, torch.tensor([5, 1, 1, 2]), other, torch.tensor([5, 1, 0, 2])) == pytest.approx(2 / 3)
    assert agreement(ids[:1], torch.tensor([5]), other, torch.tensor([5, 1, 0, 2])) is None


def test_a_cycle_without_shared_samples_does_not_count_as_agreement() -> None:
    wrapper = StopWhen(stable=1)
    update(wrapper, 0, 1, 2)
    update(wrapper, 0, 1, 2, labeled=3)
    assert not stops(wrapper)


def test_either_criterion_ends_the_run() -> None:
    wrapper = StopWhen(threshold=0.9, stable=1)
    update(wrapper, 0, 1)
    assert not stops(wrapper, {"accuracy": 0.5})
    assert stops(wrapper, {"accuracy": 0.95})
    update(wrapper, 0, 1)
    assert stops(wrapper, {"accuracy": 0.5})


def test_select_changes_no_state() -> None:
    wrapper = StopWhen(stable=1)
    update(wrapper, 0, 1)
    before = wrapper.state_dict()
    stops(wrapper)
    stops(wrapper)
    after = wrapper.state_dict()
    assert before.keys() == after.keys()
    assert before["agreed"] == after["agreed"] == 0
    assert torch.equal(before["ids"], after["ids"])
    assert torch.equal(before["classes"], after["classes"])


def test_a_restored_wrapper_goes_on_where_the_saved_one_stood(tmp_path: Any) -> None:
    saved = StopWhen(stable=2)
    update(saved, 0, 1, 2)
    update(saved, 0, 1, 2)
    torch.save(saved.state_dict(), tmp_path / "state.pt")
    restored = StopWhen(stable=2)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert not stops(restored)
    update(restored, 0, 1, 2)
    assert stops(restored)


def test_needs_follow_from_the_criteria() -> None:
    assert StopWhen(threshold=0.5).needs == {"validation"}
    assert StopWhen(stable=2).needs == {"probabilities"}
    assert StopWhen(threshold=0.5, stable=2).needs == {"validation", "probabilities"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "no criterion: set threshold"),
        ({"metric": "accuracy"}, "metric = 'accuracy' needs a threshold"),
        ({"stable": 0}, "stable must be an integer of at least 1, not 0"),
        ({"stable": 2, "agreement": 1.5}, "agreement must be above 0 and at most 1, not 1.5"),
    ],
)
def test_unusable_parameters_are_errors_that_name_them(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select(StopWhen(**params), {"accuracy": 0.6})
    with pytest.raises(ConfigError, match=message):
        update(StopWhen(**params), 0, 1)
