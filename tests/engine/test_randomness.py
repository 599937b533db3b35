"""Random streams: keyed, restored, and shifted by nobody."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from poolwright import hookimpl, run, streams
from poolwright.composition import Part

from .helpers.build import EMPTY, experiment, picks, play, roles, session
from .helpers.toys import Blobs, GlobalDraws, LeastConfident, Lowest, Random, Softmax, Tilting, Wandering, load


def global_digest() -> str:
    return streams.digest()


def test_equal_keys_give_equal_streams_and_other_keys_others():
    def draw(*key):
        return torch.rand(4, generator=streams.generator(*key)).tolist()

    assert draw(1, "plugin", "a") == draw(1, "plugin", "a")
    others = [
        draw(*key)
        for key in [(2, "plugin", "a"), (1, "plugin", "b"), ("1", "plugin", "a"), (1, "plugina"), (1, "a", "plugin")]
    ]
    assert all(other != draw(1, "plugin", "a") for other in others)


def test_seeds_are_the_same_in_every_version_and_process():
    assert streams.derive_seed(0, "plugin", "random", "score", 3) == 3702715024429524044
    assert 0 <= streams.derive_seed("x") < 2**63


def test_the_global_generators_are_seeded_inside_and_put_back_after_even_after_an_error():
    def draws():
        return random.random(), np.random.rand(), torch.rand(1).item()

    before = global_digest()
    with streams.seeded(1, "a"):
        first = draws()
    assert global_digest() == before
    with streams.seeded(1, "a"):
        assert draws() == first
    with streams.seeded(2, "a"):
        assert all(mine != other for mine, other in zip(draws(), first, strict=True))
    with pytest.raises(TypeError), streams.seeded(1, "a"):
        sum([*draws(), "x"])
    assert global_digest() == before


@pytest.mark.parametrize("draw", [random.random, np.random.rand, np.random.randn, lambda: torch.rand(1)])
def test_the_digest_sees_a_draw_of_any_generator(draw):
    before = global_digest()
    draw()
    assert global_digest() != before
    own = torch.Generator().manual_seed(1)
    first = streams.digest(own)
    torch.rand(1, generator=own)
    assert streams.digest(own) != first


def test_a_whole_run_leaves_the_global_generators_as_they_were():
    before = global_digest()
    run(experiment(GlobalDraws, Random), catalog=EMPTY)
    assert global_digest() == before


def test_draws_from_global_generators_are_reproducible_whatever_was_drawn_before():
    first = picks(play(session(GlobalDraws)))
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    torch.rand(17)
    assert picks(play(session(GlobalDraws))) == first
    assert picks(play(session(GlobalDraws, seed=1))) != first


def test_a_learner_that_draws_from_global_generators_is_reproducible_too():
    class Careless(Softmax):
        def fit(self, labeled, **options):
            super().fit(labeled, **options)
            self.head.weight += torch.rand(self.head.weight.shape)
            self.head.weight[0, 0] += random.random() + np.random.rand()

    first = play(session(LeastConfident, learner=Careless))
    torch.rand(5)
    again = play(session(LeastConfident, learner=Careless))
    assert [record.test for record in again.history] == [record.test for record in first.history]
    assert [record.streams for record in again.history] == [record.streams for record in first.history]


def test_the_same_configuration_and_seed_give_the_same_run_and_another_seed_another():
    def streams_of(seed):
        strategy = {"name": Wandering, "wrappers": [Part(Tilting)]}
        (one,) = run(experiment(strategy, seeds=[seed]), catalog=EMPTY).runs
        return [
            (record.selected, record.validation, record.test, record.streams, record.logs) for record in one.records
        ]

    assert streams_of(0) == streams_of(0)
    assert streams_of(0) != streams_of(1)


def test_plugins_roles_and_cycles_have_streams_of_their_own():
    draws: list = []

    class A(Lowest):
        @hookimpl
        def update(self, cycle):
            draws.append(torch.rand(1, generator=cycle.generator).item())
            draws.append(torch.rand(1).item())

        @hookimpl
        def select(self, cycle, budget):
            draws.append(torch.rand(1, generator=cycle.generator).item())
            draws.append(torch.rand(1).item())
            return cycle.pool.unlabeled[:budget]

    class B(Lowest):
        @hookimpl
        def update(self, cycle):
            draws.append(torch.rand(1, generator=cycle.generator).item())
            draws.append(torch.rand(1).item())

    play(session(roles(A, update=[B]), budget=10))
    assert len(draws) == 16
    assert len(set(draws)) == 16


def test_a_listener_or_wrapper_added_to_a_run_shifts_no_stream_of_the_others():
    class Drawing(Random):
        @hookimpl
        def update(self, cycle):
            torch.rand(3, generator=cycle.generator)
            torch.rand(3)

    class Around:
        @hookimpl(wrapper=True)
        def score(self, cycle):
            torch.rand(3)
            torch.rand(3, generator=cycle.generator)
            return (yield)

    plain = play(session(Random))
    crowded = play(session(roles(Random, update=[Drawing], wrappers=[Around])))
    assert picks(crowded) == picks(plain)
    for mine, theirs in zip(crowded.history, plain.history, strict=True):
        assert {key: mine.streams[key] for key in theirs.streams} == theirs.streams


def test_adding_or_removing_a_strategy_changes_no_result_of_another():
    def curves(*strategies):
        result = run(experiment(*strategies, seeds=2), catalog=EMPTY)
        return {
            (one.strategy, one.seed): [(r.selected, r.test, r.validation, r.streams) for r in one.records]
            for one in result.runs
        }

    alone = curves(Random)
    more = curves(LeastConfident, Random, GlobalDraws)
    fewer = curves(GlobalDraws, Random)
    for key, value in alone.items():
        assert more[key] == value
        assert fewer[key] == value
    assert fewer["global-draws", 1] == more["global-draws", 1]


def test_all_strategies_of_a_seed_share_the_initial_pool_the_reserve_and_the_first_metrics():
    seen: dict = {}

    def looking(name):
        @hookimpl
        def update(self, cycle):
            if cycle.index == 0:
                seen[name, cycle.seed] = cycle.pool.labeled.tolist(), cycle.pool.reserved("state").tolist()

        return type(name.capitalize(), (Random,), {"update": update})

    a, b = looking("a"), looking("b")
    result = run(experiment(a, b, seeds=[3, 4], reserve={"state": 0.1}), catalog=EMPTY)
    assert seen["a", 3] == seen["b", 3] != seen["a", 4] == seen["b", 4]
    assert all(len(labeled) == 8 and len(reserved) == 8 for labeled, reserved in seen.values())
    first = {(one.strategy, one.seed): (one.records[0].test, one.records[0].streams["learner"]) for one in result.runs}
    assert first["a", 3] == first["b", 3]
    assert first["a", 4] == first["b", 4]
    assert first["a", 3] != first["a", 4]


def test_the_initial_pool_is_the_choice_of_its_strategy_before_anything_is_labeled():
    seen: list = []

    class Initial:
        needs = frozenset({"embeddings"})

        @hookimpl
        def update(self, cycle, reward):
            seen.append((cycle.index, reward, len(cycle.pool.labeled)))

        @hookimpl
        def score(self, cycle):
            assert cycle.embeddings().shape == (80, 2)
            return cycle.embeddings()[:, 0]

    result = run(
        experiment(
            Random, dataset={"name": Blobs, "features": True}, initial={"strategy": Initial, "size": 6}, budget=5
        ),
        catalog=EMPTY,
    )
    assert seen == [(-1, None, 0)]
    assert result.runs[0].records[0].labeled == 6
    data = load(Blobs(features=True)).pool.data
    chosen = data[:, 0].topk(6).indices.tolist()
    assert not set(chosen) & set(result.runs[0].records[0].selected)
