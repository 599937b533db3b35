"""K-means selection: one real pool id a cluster."""

from __future__ import annotations

import pytest
import torch

from poolwright import ConfigError
from poolwright_plugins.strategies.kmeans import KMeans, nearest_to_centroids

from .conftest import LargestTensor, cycle_of, points


def test_the_member_nearest_to_each_centroid_is_returned_by_cluster() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0], [10.0], [12.0], [13.0]])
    assignment = torch.tensor([1, 1, 1, 0, 0, 0])
    rows = nearest_to_centroids(x, torch.tensor([[11.7], [1.2]]), assignment)
    assert rows.tolist() == [4, 1]


def test_only_members_count_and_empty_clusters_give_no_row() -> None:
    x = torch.tensor([[0.0], [4.0], [5.0], [9.0]])
    assignment = torch.tensor([0, 2, 2, 0])
    # Row 1 is the nearest to centroid 0 but belongs to cluster 2.
    assert nearest_to_centroids(x, torch.tensor([[4.2], [0.0], [4.5]]), assignment).tolist() == [0, 1]


def test_rows_do_not_depend_on_the_size_of_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, assignment = points(60, 3), torch.arange(60) % 4
    whole = nearest_to_centroids(x, x[:4], assignment)
    monkeypatch.setattr("poolwright_plugins.strategies.kmeans.BLOCK_BYTES", 7 * 3 * 8)
    assert torch.equal(nearest_to_centroids(x, x[:4], assignment), whole)


def test_picks_pool_ids_one_from_each_group_and_the_most_central() -> None:
    centers = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    around = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    groups = (centers[None] + around[:, None]).flatten(0, 1)  # rows 6, 7 and 8 are the centers
    x = torch.cat([points(30, 2), groups])
    picks = KMeans().select(cycle_of(labeled=30, embeddings=x), 3)
    assert sorted(picks.tolist()) == [36, 37, 38]


def test_exactly_budget_different_samples_where_points_coincide() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(20, 1)
    picks = KMeans().select(cycle_of(labeled=4, embeddings=x), 9)
    assert len(picks.unique()) == 9
    assert picks.min() >= 4
    assert set((picks % 2).tolist()) == {0, 1}


def test_the_rest_of_a_batch_of_coinciding_points_is_drawn_at_random() -> None:
    draws = {tuple(KMeans().select(cycle_of(seed=s, embeddings=torch.ones(30, 2)), 5).tolist()) for s in range(6)}
    assert len(draws) > 3


def test_a_budget_of_the_whole_pool_takes_everything() -> None:
    assert sorted(KMeans().select(cycle_of(labeled=5, embeddings=points(12, 3)), 50).tolist()) == list(range(5, 12))


def test_seeding_comes_from_the_plugins_stream() -> None:
    x = points(200, 2)
    first, again, other = (KMeans().select(cycle_of(seed=seed, embeddings=x), 15) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert set(first.tolist()) != set(other.tolist())


def test_makes_no_matrix_of_all_pairs() -> None:
    cycle = cycle_of(embeddings=points(300, 4))
    with LargestTensor() as largest:
        KMeans().select(cycle, 10)
    assert largest.numel <= 300 * 4


def test_max_iter_reaches_lloyd() -> None:
    x = points(400, 2)
    few = KMeans(max_iter=1).select(cycle_of(embeddings=x), 20)
    many = KMeans(max_iter=100).select(cycle_of(embeddings=x), 20)
    assert set(few.tolist()) != set(many.tolist())


def test_a_max_iter_below_one_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="max_iter must be an integer of at least 1, not 0"):
        KMeans(max_iter=0).select(cycle_of(embeddings=points(9, 2)), 3)
