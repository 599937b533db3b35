"""Experiments: strategies x seeds, failures, beginnings and settings."""

from __future__ import annotations

import pytest
import torch

from poolwright import ConfigError, PluginError, hookimpl, load_result, run

from .helpers.build import EMPTY, experiment
from .helpers.toys import Blobs, LeastConfident, Lowest, Random, Softmax, load


class Failing(Random):
    @hookimpl
    def score(self, cycle):
        if cycle.index == 1 and cycle.seed == 0:
            raise ValueError("out of luck")
        return torch.zeros(len(cycle.pool.unlabeled))


def test_runs_come_by_strategy_and_seed_whatever_the_order_of_work():
    order: list = []

    def listen(event):
        if event.kind == "run":
            order.append((event.strategy, event.seed))

    result = run(experiment(Random, Lowest, seeds=[4, 2]), catalog=EMPTY, listener=listen)
    assert [(one.strategy, one.seed) for one in result.runs] == [
        ("random", 2),
        ("random", 4),
        ("lowest", 2),
        ("lowest", 4),
    ]
    assert order == [("random", 4), ("lowest", 4), ("random", 2), ("lowest", 2)]


def test_a_failure_ends_all_and_what_was_done_is_kept(tmp_path):
    with pytest.raises(PluginError, match=r"'failing'.* failed in score .cycle 1.: ValueError: out of luck"):
        run(experiment(Random, Failing, Lowest), tmp_path / "x", catalog=EMPTY)
    kept = {one.strategy: one for one in load_result(tmp_path / "x").runs}
    assert kept["random"].complete
    assert not kept["failing"].complete
    assert "out of luck" in kept["failing"].error
    assert len(kept["failing"].records) == 1


def test_with_keep_going_a_failure_is_noted_and_the_others_run(tmp_path):
    events: list = []
    result = run(
        experiment(Failing, Lowest, seeds=2), tmp_path / "x", catalog=EMPTY, keep_going=True, listener=events.append
    )
    assert [one.complete for one in result.runs] == [False, True, True, True]
    (failed,) = result.failures
    assert (failed.strategy, failed.seed) == ("failing", 0)
    assert "out of luck" in failed.error
    assert [e.text for e in events if e.kind == "failed"] == [failed.error]
    assert load_result(tmp_path / "x").runs == result.runs


def test_a_failed_run_goes_on_once_its_plugin_is_mended(tmp_path):
    class Mended(Random):
        broken = True

        @hookimpl
        def score(self, cycle):
            if cycle.index == 2 and self.broken:
                raise ValueError("not yet")
            return torch.rand(len(cycle.pool.unlabeled), generator=cycle.generator)

    run(experiment(Mended), tmp_path / "x", catalog=EMPTY, keep_going=True)
    Mended.broken = False
    result = run(experiment(Mended), tmp_path / "x", resume=True, catalog=EMPTY)
    reference = run(experiment(Mended), catalog=EMPTY)
    assert result.failures == []
    assert [r.selected for r in result.runs[0].records] == [r.selected for r in reference.runs[0].records]
    assert load_result(tmp_path / "x").runs[0].error == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial": {"strategy": Random, "size": 81}}, "initial.size = 81, but the pool has 80 samples"),
        (
            {"initial": {"strategy": LeastConfident, "size": 8}},
            "the initial pool: .*'least-confident'.* needs 'probabilities'",
        ),
        ({"initial": {"strategy": Random, "size": 8, "learner": Softmax}}, "Softmax has no pretrained weights to load"),
        ({"budget": 73}, "budget = 73, but only 72 samples are left"),
        ({"device": "gpu"}, "device = 'gpu': write auto, cpu, cuda"),
    ],
)
def test_beginnings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        run(experiment(Random, **settings), catalog=EMPTY)


def test_an_initial_strategy_must_choose_as_many_as_are_wanted():
    class Few(Lowest):
        @hookimpl
        def select(self, cycle, budget):
            return cycle.pool.unlabeled[: budget - 1]

    with pytest.raises(ConfigError, match="chose 7 of 8 samples"):
        run(experiment(Random, initial={"strategy": Few, "size": 8}), catalog=EMPTY)


def test_a_pretrained_learner_gives_the_embeddings_of_the_initial_pool():
    class Pretrained(Softmax):
        def __init__(self, scale: float = 1.0) -> None:
            super().__init__()
            self.scale = scale
            self.loaded = False

        def load_pretrained(self, samples):
            assert samples.labels is None
            self.loaded = len(samples) == 80

        def predict(self, inputs):
            assert self.loaded
            return {"embeddings": inputs * self.scale}

    seen: list = []

    class Looking:
        needs = frozenset({"embeddings"})

        @hookimpl
        def select(self, cycle, budget):
            seen.append(cycle.embeddings())
            return cycle.pool.unlabeled[:budget]

    initial = {"strategy": Looking, "size": 8, "learner": {"name": Pretrained, "scale": 3.0}}
    run(experiment(Random, initial=initial, budget=5), catalog=EMPTY)
    dataset = Blobs(n_validation=12)
    dataset.load()
    assert torch.allclose(seen[0], dataset.pool.data * 3)


def test_reserves_may_be_the_same_for_all_seeds():
    from poolwright.experiment import Bench

    def drawn(**settings):
        one = experiment(Random, reserve={"a": 0.1}, **settings)
        bench = Bench(one, load(Blobs()), EMPTY, "cpu", lambda event: None)
        return [bench._reserves(seed)["a"].tolist() for seed in (0, 1)]

    (first, second), (fixed, same) = drawn(), drawn(reserve_seed=1)
    assert first != second
    assert second == fixed == same


def test_reserves_are_stratified_apart_and_drawn_by_the_seed():
    from poolwright.preparation import draw_reserves

    dataset = Blobs()
    dataset.load()
    reserved = draw_reserves(dataset, {"a": 0.1, "b": 0.25}, seed=1)
    assert [len(ids) for ids in reserved.values()] == [8, 20]
    assert not set(reserved["a"].tolist()) & set(reserved["b"].tolist())
    assert torch.bincount(reserved["a"] % 4).tolist() == [2, 2, 2, 2]
    assert reserved["a"].tolist() == draw_reserves(dataset, {"a": 0.1}, seed=1)["a"].tolist()
    assert reserved["a"].tolist() != draw_reserves(dataset, {"a": 0.1}, seed=2)["a"].tolist()


def test_threads_are_set_for_the_run_recorded_and_put_back():
    before = torch.get_num_threads()
    seen: list = []

    class Looking(Lowest):
        @hookimpl
        def update(self, cycle):
            seen.append(torch.get_num_threads())

    result = run(experiment(Looking, threads=1, budget=0), catalog=EMPTY)
    assert seen == [1]
    assert result.info["config"]["threads"] == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategies": []}, "at least 1 item"),
        ({"seeds": 0}, "at least one seed"),
        ({"seeds": [1, 1]}, "named twice"),
        ({"budget": -1}, "greater than or equal to 0"),
        ({"batch": 0}, "greater than or equal to 1"),
        ({"reserve": {"a": 0.6, "b": 0.5}}, "less than 1"),
        ({"memory_limit": "much"}, "no memory size"),
        ({"buget": 3}, "unknown key"),
        ({"strategies": [Random, Random]}, "two strategies are labeled 'random'"),
        ({"strategies": [{"scor": "x"}]}, "unknown key 'scor' in a strategy without a name: did you mean 'score'"),
        ({"oracle": {"rate": 2}}, "less than or equal to 1"),
    ],
)
def test_values_that_do_not_fit_are_refused_when_the_experiment_is_made(settings, message):
    with pytest.raises(ConfigError, match=message):
        experiment(**({"strategies": [Random]} | settings))
