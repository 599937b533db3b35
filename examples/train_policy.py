"""Train a selection policy with stable-baselines3 on scikit-learn's digits, and compare it with a random one.

The agent is shown how far the run is and how sure the learner is of the pool, and says from which fifth of the margin
ranking the next batch is drawn: 0 are the least certain samples, 4 the most certain. Its reward is the change of
validation accuracy, so an episode is worth what its budget gained.

    pip install 'poolwright[rl]'
    python examples/train_policy.py --steps 500
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import mean
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import DQN
from threadpoolctl import threadpool_limits
from torch import Tensor

import poolwright as pw
from poolwright.env import PoolEnv
from poolwright_plugins.learners.sklearn import Sklearn

INITIAL, BATCH, BUDGET = 20, 10, 60
FIFTHS = 5
QUANTILES = torch.linspace(0, 1, 5)


def make_env() -> PoolEnv:
    """Return the environment; its episodes differ in the initial pool and in the learner's weights."""
    dataset = pw.load_dataset("digits", validation=0.2)

    def session(seed: int) -> pw.Session:
        return pw.Session(
            dataset,
            learner=Sklearn,
            initial=INITIAL,
            batch=BATCH,
            budget=BUDGET,
            seed=seed,
            report=False,
            oracle=pw.DatasetOracle(dataset.pool),
        )

    return PoolEnv(
        session,
        observe,
        decode,
        observation_space=gymnasium.spaces.Box(0, 1, (2 + len(QUANTILES),)),
        action_space=gymnasium.spaces.Discrete(FIFTHS),
        score="margin",
    )


def observe(cycle: pw.Cycle, scores: Tensor | None) -> Tensor:
    """Return the share of the budget that is left, the accuracy, and five quantiles of the pool's margins."""
    assert scores is not None  # the environment was given a score
    facts = torch.tensor([cycle.budget / BUDGET, cycle.metrics["accuracy"]])
    return torch.cat([facts, torch.quantile(-scores.float(), QUANTILES)]).clamp(0, 1)


def decode(cycle: pw.Cycle, scores: Tensor | None, budget: int, action: Any) -> Tensor:
    """Return ids drawn from one fifth of the ranking."""
    assert scores is not None
    ranking = cycle.pool.unlabeled[scores.argsort(descending=True)]
    part = ranking.chunk(FIFTHS)[int(action)]
    return part[torch.randperm(len(part), generator=cycle.generator)[:budget]]


def returns(env: PoolEnv, act: Callable[[np.ndarray], Any], seeds: range) -> list[float]:
    """Return what an episode gained in validation accuracy, for each seed."""
    gained = []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        total, terminated = 0.0, False
        while not terminated:
            observation, reward, terminated, _, _ = env.step(act(observation))
            total += reward
        gained.append(total)
    return gained


def train(env: PoolEnv, steps: int, seed: int) -> DQN:
    """Return a deep Q-network trained for so many steps."""
    agent = DQN(
        "MlpPolicy",
        env,
        learning_rate=1e-3,
        learning_starts=min(150, steps // 4),
        batch_size=64,
        gamma=0.9,
        target_update_interval=100,
        exploration_fraction=0.5,
        policy_kwargs={"net_arch": [32, 32]},
        seed=seed,
        device="cpu",
    )
    return agent.learn(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500, help="steps of training; one labels a batch and fits")
    parser.add_argument("--episodes", type=int, default=10, help="episodes of the comparison, on seeds of their own")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)  # networks and fits are small
    threadpool_limits(1)
    env = make_env()
    agent = train(env, args.steps, args.seed)
    env.action_space.seed(args.seed)
    seeds = range(10**6, 10**6 + args.episodes)
    trained = returns(env, lambda observation: agent.predict(observation, deterministic=True)[0], seeds)
    drawn = returns(env, lambda observation: env.action_space.sample(), seeds)
    print(f"accuracy gained by {BUDGET} labels, mean of {args.episodes} episodes")
    print(f"  trained policy  {mean(trained):.4f}")
    print(f"  random policy   {mean(drawn):.4f}")


if __name__ == "__main__":
    main()
