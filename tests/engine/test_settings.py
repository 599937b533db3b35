"""Settings that must have their effect: threads, the oracle's seed, parameters, names, streams of wrappers."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import sklearn.cluster  # noqa: F401 - brings thread pools of its own
import threadpoolctl
import torch

from poolwright import Experiment, hookimpl, run
from poolwright.catalog import Catalog
from poolwright.composition import Part

from .helpers.build import EMPTY, compose, experiment, picks, play, roles, session
from .helpers.toys import Flat, Lowest, Softmax

# -- threads -----------------------------------------------------------------------------------------------------


def pools() -> dict[str, int]:
    """Return how many threads each pool of this process has."""
    return {info["filepath"]: info["num_threads"] for info in threadpoolctl.threadpool_info()}


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_limit_every_pool_and_are_put_back(threads):
    seen: list = []

    class Looking(Softmax):
        def fit(self, labeled, **options):
            seen.append(pools())
            super().fit(labeled, **options)

    torch_before = torch.get_num_threads()
    with threadpoolctl.threadpool_limits(3):
        before = pools()
        run(experiment(Lowest, learner=Looking, threads=threads, budget=5), catalog=EMPTY)
        assert pools() == before
    assert torch.get_num_threads() == torch_before
    assert set(before.values()) == {3}
    assert len(seen) == 2
    for found in seen:
        assert set(found) >= set(before)
        assert set(found.values()) == {threads}


LATE = """
import sys
import torch
from tests.engine.helpers.build import EMPTY, experiment
from tests.engine.helpers.toys import Lowest, Softmax
from poolwright import run

class Late(Softmax):
    def fit(self, labeled, **options):
        import sklearn.cluster, sklearn.neighbors, threadpoolctl
        sklearn.cluster.KMeans(2, n_init=1).fit(torch.rand(50, 2).numpy())
        found = threadpoolctl.threadpool_info()
        assert {"openmp", "blas"} <= {info["user_api"] for info in found}
        assert {info["num_threads"] for info in found} == {2}, found
        print("looked")
        super().fit(labeled, **options)

run(experiment(Lowest, learner=Late, threads=2, budget=0), catalog=EMPTY)
"""


def test_threads_limit_pools_of_libraries_that_a_learner_imports_when_it_is_fitted():
    """Nothing has imported them before, as in a run of the command line."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "3")
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", LATE], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "looked\n"), done.stderr


# -- the noisy oracle --------------------------------------------------------------------------------------------


def told(**oracle) -> list[list[int]]:
    """Return the labels that the runs of three seeds were told for the same samples."""
    labels: dict[int, list[int]] = {}

    class Looking(Lowest):
        needs = frozenset({"labels"})

        @hookimpl
        def update(self, cycle):
            assert cycle.pool.labeled.tolist() == list(range(len(cycle.pool.labeled)))
            labels[cycle.seed] = cycle.labels(cycle.pool.labeled).tolist()

    run(experiment(Looking, initial={"strategy": Lowest, "size": 8}, seeds=3, oracle=oracle), catalog=EMPTY)
    assert [len(found) for found in labels.values()] == [28] * 3
    return [labels[seed] for seed in range(3)]


def test_without_a_seed_of_its_own_the_oracle_errs_otherwise_in_each_run():
    first, second, third = told(rate=0.5)
    assert first != second != third != first
    assert told(rate=0.5) == [first, second, third]


@pytest.mark.parametrize("seed", [0, 7])
def test_with_a_seed_of_its_own_the_oracle_errs_alike_in_all_runs(seed):
    first, second, third = told(rate=0.5, seed=seed)
    assert first == second == third
    truth = [i % 4 for i in range(28)]
    assert first != truth
    assert told(rate=0.5, seed=seed + 1)[0] != first


def test_whether_the_oracle_has_a_seed_is_part_of_the_experiment(tmp_path):
    unset, zero = (Experiment(strategies=["random"], oracle={"rate": 0.1} | extra) for extra in ({}, {"seed": 0}))
    assert "seed" not in unset.as_dict()["oracle"]
    assert zero.as_dict()["oracle"]["seed"] == 0


# -- parameters and names ----------------------------------------------------------------------------------------


class Weighted(Flat):
    def __init__(self, w) -> None:
        self.w = w

    @hookimpl
    def update(self, cycle):
        pass


def unequal(make, change) -> tuple:
    first, second = make(), make()
    change(second)
    return first, second


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: torch.zeros(5000), lambda w: w[2500:2501].fill_(1)),
        (lambda: np.zeros(5000), lambda w: w.__setitem__(2500, 1)),
        (lambda: [torch.zeros(5000)], lambda w: w[0][2500:2501].fill_(1)),
        (lambda: {"a": np.zeros(5000)}, lambda w: w["a"].__setitem__(2500, 1)),
        (lambda: [0, 1], lambda w: w.append(2)),
    ],
    ids=["tensor", "array", "list of tensors", "dict of arrays", "list"],
)
def test_parameters_that_print_alike_but_differ_make_two_instances(make, change):
    first, second = unequal(make, change)
    both = compose(Part(Weighted, {"w": first}), update=[Part(Weighted, {"w": second})])
    assert [id(member.instance.w) for member in both.members] == [id(first), id(second)]
    assert len(compose(Part(Weighted, {"w": first}), update=[Part(Weighted, {"w": first})]).members) == 1


@pytest.mark.parametrize("role", ["learner", "report_learner"])
def test_learners_of_a_session_can_be_named(role):
    catalog = Catalog()
    if "linear" not in catalog.names("learner"):
        pytest.skip("the learner 'linear' is not installed")
    one = play(session(Lowest, catalog=catalog, budget=5, **{role: "linear"}))
    assert [record.labeled for record in one.history] == [8, 13]
    assert all("accuracy" in record.test for record in one.history)
    made = one.training.learner if role == "learner" else one.training._report_learner
    assert type(made).__name__ == "Linear"


# -- streams of wrappers -----------------------------------------------------------------------------------------


def test_a_wrapper_draws_other_global_numbers_after_its_yield_than_before():
    def wrapping(draws: list) -> type:
        class Drawing:
            @hookimpl(wrapper=True)
            def update(self, cycle):
                draws.append([float(torch.rand(1)), float(np.random.rand()), random.random()])
                result = yield
                draws.append([float(torch.rand(1)), float(np.random.rand()), random.random()])
                return result

        return Drawing

    first, second, unwrapped = [], [], play(session(Lowest, budget=10))
    for draws in (first, second):
        assert picks(play(session(roles(Lowest, wrappers=[wrapping(draws)]), budget=10))) == picks(unwrapped)
    assert first == second
    assert len(first) == 6
    for column in zip(*first, strict=True):
        assert len(set(column)) == 6
