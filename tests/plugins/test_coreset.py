"""Core-set selection against greedy k-center done by hand and by brute force."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from poolwright import ConfigError
from poolwright_plugins.strategies.coreset import CoreSet

from .conftest import LargestTensor, cycle_of, points


def line(*positions: float) -> Tensor:
    return torch.tensor(positions, dtype=torch.float32)[:, None]


def greedy(x: Tensor, centers: list[int], k: int) -> list[int]:
    distance = torch.cdist(x.double(), x.double())
    picked: list[int] = []
    for _ in range(k):
        nearest = distance[:, centers + picked].amin(1)
        nearest[centers + picked] = -1
        picked.append(int(nearest.argmax()))
    return picked


def test_picks_the_farthest_from_labeled_and_picked_each_time() -> None:
    cycle = cycle_of(labeled=1, embeddings=line(0, 1, 2, 10, 11))
    assert CoreSet().select(cycle, 3).tolist() == [4, 2, 1]


def test_is_greedy_k_center_on_labeled_and_unlabeled_embeddings() -> None:
    x = points(80, 5)
    assert CoreSet().select(cycle_of(labeled=10, embeddings=x), 25).tolist() == greedy(x, list(range(10)), 25)


def test_labeled_samples_are_centers_and_are_never_picked() -> None:
    x = line(0, 100, 100.5, 3)
    assert CoreSet().select(cycle_of(labeled=2, embeddings=x), 2).tolist() == [3, 2]


def test_asked_samples_are_centers_too() -> None:
    cycle = cycle_of(labeled=1, embeddings=line(0, 10, 10.5, 4, 3))
    cycle._state.pool.ask(torch.tensor([1]))
    assert CoreSet().select(cycle, 1).tolist() == [3]


def test_cosine_looks_at_directions_only() -> None:
    x = torch.tensor([[1.0, 0.0], [50.0, 1.0], [0.0, 0.1]])
    assert CoreSet().select(cycle_of(labeled=1, embeddings=x), 1).tolist() == [1]
    assert CoreSet(metric="cosine").select(cycle_of(labeled=1, embeddings=x), 1).tolist() == [2]


def test_without_a_center_the_first_pick_is_drawn_from_the_plugins_stream() -> None:
    x = points(30, 3)
    firsts = {int(CoreSet().select(cycle_of(seed=seed, embeddings=x), 4)[0]) for seed in range(12)}
    assert len(firsts) > 5
    again = [CoreSet().select(cycle_of(seed=3, embeddings=x), 4).tolist() for _ in range(2)]
    assert again[0] == again[1] == [again[0][0], *greedy(x, [again[0][0]], 3)]


def test_picks_are_different_samples_where_all_embeddings_are_equal() -> None:
    picks = CoreSet().select(cycle_of(labeled=3, embeddings=torch.ones(10, 2)), 7)
    assert sorted(picks.tolist()) == list(range(3, 10))


def test_makes_no_matrix_of_all_pairs() -> None:
    cycle = cycle_of(labeled=20, embeddings=points(400, 4))
    with LargestTensor() as largest:
        CoreSet().select(cycle, 10)
    assert largest.numel <= 400 * 4


def test_an_unknown_metric_is_an_error_that_names_the_parameter() -> None:
    with pytest.raises(ConfigError, match="metric is one of euclidean, cosine, not 'manhattan'"):
        CoreSet(metric="manhattan").select(cycle_of(embeddings=points(5, 2)), 1)  # type: ignore[arg-type]
