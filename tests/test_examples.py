"""The examples run, and show what they say they show."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str) -> ModuleType:
    """Return an example as a module."""
    found = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def policies() -> Any:
    """Return the example that trains a policy with stable-baselines3, with one thread for its small fits."""
    pytest.importorskip("gymnasium")
    pytest.importorskip("stable_baselines3")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield example("train_policy")
    torch.set_num_threads(threads)


def test_stable_baselines3_trains_a_policy_on_digits(policies):
    env = policies.make_env()
    agent = policies.train(env, steps=32, seed=0)
    fresh = type(agent)("MlpPolicy", env, policy_kwargs=agent.policy_kwargs, seed=0, device="cpu")
    gained = policies.returns(env, lambda seen: agent.predict(seen, deterministic=True)[0], range(1))

    session = env.unwrapped._episodes.session
    assert agent.num_timesteps == 32
    assert agent._n_updates > 0
    assert any(not torch.equal(a, b) for a, b in zip(agent.q_net.parameters(), fresh.q_net.parameters(), strict=True))
    assert session.pool.spent == policies.BUDGET
    assert gained[0] == pytest.approx(
        session.history[-1].validation["accuracy"] - session.history[0].validation["accuracy"]
    )


@pytest.mark.slow
def test_the_trained_policy_gains_more_than_a_random_one(policies):
    env = policies.make_env()
    agent = policies.train(env, steps=500, seed=0)
    env.action_space.seed(0)
    seeds = range(10**6, 10**6 + 10)
    trained = policies.returns(env, lambda seen: agent.predict(seen, deterministic=True)[0], seeds)
    drawn = policies.returns(env, lambda seen: env.action_space.sample(), seeds)

    assert mean(trained) > mean(drawn)
