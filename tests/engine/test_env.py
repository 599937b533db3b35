"""Selection as a Gymnasium environment."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
import torch

from poolwright import ConfigError, LabelLeakError, PluginError, Session, hookimpl

from .helpers.build import EMPTY, play, session
from .helpers.toys import Blobs, LeastConfident, Random, load

gymnasium = pytest.importorskip("gymnasium")
env_checker = pytest.importorskip("gymnasium.utils.env_checker")

from poolwright.env import PoolEnv  # noqa: E402 - it needs gymnasium

BUDGET = 12


def by_hand(seed: int = 0, **kwargs: Any) -> Session:
    """Return a session, without a strategy if none is named, with 20 validation samples."""
    settings: dict[str, Any] = {"dataset": load(Blobs(n_validation=20)), "budget": BUDGET, "batch": 5, "seed": seed}
    settings |= {"initial": 8}
    return session(kwargs.pop("strategy", None), **(settings | kwargs))


def observe(cycle: Any, scores: Any) -> list[float]:
    return [cycle.budget / BUDGET, cycle.metrics["accuracy"]]


def decode(cycle: Any, scores: Any, budget: int, action: Any) -> torch.Tensor:
    """Take the lowest ids, one more than the action says."""
    return cycle.pool.unlabeled[: min(budget, int(action) + 1)]


def env(**kwargs: Any) -> PoolEnv:
    settings: dict[str, Any] = {
        "session": by_hand,
        "observe": observe,
        "decode": decode,
        "observation_space": gymnasium.spaces.Box(0, 1, (2,)),
        "action_space": gymnasium.spaces.Discrete(4),
        "catalog": EMPTY,
    }
    return PoolEnv(**(settings | kwargs))


def episode(environment: PoolEnv, actions: list[int], seed: int = 0) -> list[Any]:
    """Play until the end; return observation, reward, terminated and info of each step."""
    observation, info = environment.reset(seed=seed)
    steps: list[Any] = [(observation.tolist(), None, False, info)]
    for action in actions:
        observation, reward, terminated, truncated, info = environment.step(action)
        assert not truncated
        steps.append((observation.tolist(), reward, terminated, info))
        if terminated:
            break
    return steps


@pytest.mark.filterwarnings("error")
def test_gymnasium_accepts_it():
    checked = env(score=LeastConfident, needs={"probabilities"})
    checked.spec = gymnasium.envs.registration.EnvSpec("PoolEnv-v0", entry_point=env)  # what a registered one has
    env_checker.check_env(checked, skip_render_check=True)


def test_an_episode_ends_when_the_budget_is_spent_and_never_charges_more():
    steps = episode(env(), [3] * 10)

    assert [info["paid"] for *_, info in steps] == [8, 12, 16, 20]
    assert [terminated for _, _, terminated, _ in steps] == [False, False, False, True]


def test_rewards_are_the_change_of_accuracy_that_a_run_with_the_same_picks_records():
    class FourLowest:
        @hookimpl
        def select(self, cycle, budget):
            return cycle.pool.unlabeled[: min(budget, 4)]

    steps = episode(env(), [3] * 10, seed=5)
    environment = env()
    environment.reset(seed=5)
    run = play(by_hand(environment._episodes.session.seed, strategy=FourLowest))

    assert [reward for _, reward, *_ in steps] == [record.reward for record in run.history]
    assert [info["metrics"] for *_, info in steps] == [record.validation for record in run.history]
    accuracies = [info["metrics"]["accuracy"] for *_, info in steps]
    assert sum(reward for _, reward, *_ in steps[1:]) == pytest.approx(accuracies[-1] - accuracies[0])


def test_one_seed_gives_one_episode_and_the_next_reset_another():
    first, second = episode(env(), [1, 2, 3, 0], seed=1), episode(env(), [1, 2, 3, 0], seed=1)
    other = episode(env(), [1, 2, 3, 0], seed=2)
    environment = env()
    seeds = []
    for seed in (3, None, None, 3):
        environment.reset(seed=seed)
        seeds.append(environment._episodes.session.seed)

    assert first == second
    assert first != other
    assert seeds[0] == seeds[3]
    assert len(set(seeds)) == 3


def test_scores_and_rewards_come_from_the_plugins_that_are_named():
    class Counting:
        """Rewards what was bought in all, and hears every update."""

        def __init__(self) -> None:
            self.heard = 0

        @hookimpl
        def update(self, reward):
            self.heard += 1

        @hookimpl
        def reward(self, cycle, batch):
            return float(len(batch) + 100 * self.heard)

    seen = []

    def most_wanted(cycle: Any, scores: torch.Tensor, budget: int, action: Any) -> torch.Tensor:
        best = scores.argmax()
        seen.append((scores, 1 - cycle.probabilities().amax(1)))
        return cycle.pool.unlabeled[best : best + 1]

    environment = env(score=LeastConfident, reward=Counting, decode=most_wanted, needs={"probabilities"})
    steps = episode(environment, [0, 0])

    assert [reward for _, reward, *_ in steps[1:]] == [101, 201]
    assert all(torch.equal(scores, expected) for scores, expected in seen)
    assert len(seen) == 2


def test_an_action_that_selects_nothing_ends_the_episode():
    environment = env(decode=lambda cycle, scores, budget, action: cycle.pool.unlabeled[:action])
    steps = episode(environment, [2, 0])

    assert steps[-1][1:3] == (0.0, True)
    assert steps[-1][3]["paid"] == 10
    with pytest.raises(ConfigError, match=r"no episode is running: call reset\(\)"):
        environment.step(1)


def test_the_last_observation_may_be_of_an_empty_pool():
    dataset = load(Blobs(n=10, n_validation=20))
    environment = env(session=lambda seed: by_hand(seed, dataset=dataset, budget=2), score=LeastConfident)

    assert episode(environment, [3])[-1][2]


def test_an_episode_may_be_simulated_on_labels_that_are_paid_for():
    made = []

    class Trains:
        """Plays an episode in its update, on the labels it has."""

        @hookimpl
        def update(self, cycle):
            inner = env(session=lambda seed: cycle.simulate(cycle.pool.labeled, 4, 3, seed))
            made.append((episode(inner, [0, 0, 0]), cycle.pool.labeled.tolist(), inner._episodes.session))

        @hookimpl
        def score(self, cycle):
            return torch.zeros(len(cycle.pool.unlabeled))

    play(by_hand(strategy=Trains, budget=5))
    for steps, labeled, inner in made:
        assert steps[-1][2]
        assert [info["paid"] for *_, info in steps] == [4, 5, 6, 7]
        assert {i for record in inner.history for i in record.selected} <= set(labeled)
    assert len(made) == 2


def test_hidden_labels_cannot_be_read():
    def leaking(cycle: Any, scores: Any, budget: int, action: Any) -> torch.Tensor:
        return cycle.pool.unlabeled[cycle.labels(cycle.pool.unlabeled) == 0][:1]

    environment = env(decode=leaking, needs={"labels"})
    environment.reset(seed=0)
    with pytest.raises(LabelLeakError, match="'policy' asked in select for the labels of 72 samples"):
        environment.step(0)


# -- refusals ----------------------------------------------------------------------------------------------------


def test_a_step_before_a_reset_is_refused():
    with pytest.raises(ConfigError, match="no episode is running"):
        env().step(0)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: None,
        lambda seed: by_hand(seed, oracle=None),
        lambda seed: by_hand(seed, strategy=Random),
        lambda seed: play(by_hand(seed, strategy=Random)),
    ],
)
def test_what_is_no_fresh_session_is_refused(make):
    with pytest.raises(ConfigError, match="session must make a fresh Session with an oracle and without a strategy"):
        env(session=make).reset(seed=0)


def test_a_session_without_a_budget_is_refused():
    with pytest.raises(ConfigError, match="over before its first batch"):
        env(session=lambda seed: by_hand(seed, budget=0)).reset(seed=0)


def test_an_action_outside_its_space_is_refused_and_nothing_bought():
    environment = env()
    environment.reset(seed=0)
    with pytest.raises(ConfigError, match="action 4 is not in the action space"):
        environment.step(4)
    assert environment._episodes.session.pool.spent == 0


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        ([0.5, 2.0], r"observe gave float32 \(2,\) between 0.5 and 2 in cycle 0"),
        ([0.5], r"observe gave float32 \(1,\)"),
        ([0.5, float("nan")], "not in the observation space"),
    ],
)
def test_an_observation_outside_its_space_is_refused(seen, message):
    with pytest.raises(ConfigError, match=message):
        env(observe=lambda cycle, scores: torch.tensor(seen)).reset(seed=0)


def test_an_observation_that_fails_is_named():
    with pytest.raises(PluginError, match=r"observe failed \(cycle 0\): ZeroDivisionError"):
        env(observe=lambda cycle, scores: 1 / 0).reset(seed=0)


def test_a_selection_is_checked_as_any_plugin_s_is():
    environment = env(decode=lambda cycle, scores, budget, action: cycle.pool.labeled[:1])
    environment.reset(seed=0)
    with pytest.raises(PluginError, match=r"'policy' .* selected 1 ids in cycle 0 that are not unlabeled"):
        environment.step(0)


def test_what_needs_hidden_labels_is_refused_even_where_the_initial_pool_was_chosen_by_them():
    environment = env(session=lambda seed: by_hand(seed, marked=True), needs={"truth"})
    with pytest.raises(ConfigError, match="reads hidden labels"):
        environment.reset(seed=0)


def test_a_plugin_that_needs_validation_data_is_refused_before_anything_is_bought():
    class Gain:
        needs = frozenset({"validation"})

        @hookimpl
        def reward(self, cycle):
            return cycle.metrics["accuracy"]

    made = []

    def unvalidated(seed: int) -> Session:
        made.append(by_hand(seed, dataset=load(Blobs())))
        return made[-1]

    with pytest.raises(ConfigError, match="needs validation data"):
        env(session=unvalidated, reward=Gain).reset(seed=0)
    assert made[0].pool.spent == 0
    assert made[0].index == 0


def test_undeclared_needs_are_refused():
    environment = env(decode=lambda cycle, scores, budget, action: cycle.probabilities())
    environment.reset(seed=0)
    with pytest.raises(PluginError, match="without declaring it: add 'probabilities'"):
        environment.step(0)


def test_without_validation_data_there_is_nothing_to_reward_with():
    environment = env(
        session=lambda seed: by_hand(seed, dataset=load(Blobs())), observe=lambda cycle, scores: [0.0, 0.0]
    )
    environment.reset(seed=0)
    with pytest.raises(ConfigError, match="give the data set validation data"):
        environment.step(0)


def test_a_plugin_that_releases_samples_is_refused():
    class Releasing(LeastConfident):
        @hookimpl
        def update(self, cycle, reward):
            if reward is not None:
                cycle.pool.release(cycle.pool.batch)

    environment = env(score=Releasing)
    environment.reset(seed=0)
    with pytest.raises(PluginError, match="released samples"):
        environment.step(0)


def test_without_gymnasium_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "poolwright.env")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'poolwright\[rl\]'"):
        importlib.import_module("poolwright.env")
