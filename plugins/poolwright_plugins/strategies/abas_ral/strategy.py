"""The strategy ABAS-RAL."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor

from poolwright import ConfigError, Cycle, hookimpl, read_policy

from ..rewards import PrecisionPerLabel
from ..uncertainty import blockwise, margin
from .agent import BatchAgent
from .rules import Stop, largest_batch, sorted_margins
from .training import Part, Plan, PolicyTraining, World, most_uncertain

log = logging.getLogger(__name__)

STATE, WARM, TRAINING = "state", "warm-start", "policy"
"""Names of the reserves that the paper's split is made of."""


class AbasRal:
    """Adaptive BAtch Size using Reinforced Active Learning: a deep Q-network decides how many samples to label next.

    A state is the margins (largest minus second largest probability) of held-out state data, sorted. An action is a
    batch size k, from 1 to a tenth of the unlabeled samples; the batch is the k most uncertain ones, by margin or by
    whoever else scores. The reward is the change of precision per label (equation 1). Two rules decide: the network how
    large a batch is (equation 2), and two targets when there are labels enough.

    The policy is trained in episodes on labels that are paid for. In the warm start, batches of random sizes and random
    samples are played until the reward decreased twice in a row; the highest precision on the way is the target
    precision, the fewest labels that reached it (in percent of the samples) the target budget. Then epochs of episodes
    follow, in which the network acts (by chance with probability ``epsilon``), and after each episode ``updates`` steps
    of double DQN from a prioritised replay buffer.

    Train it ahead, with the paper's split of the pool, and use it as often as you like::

        reserve_seed = 0
        [reserve]
        state = 0.1
        warm-start = 0.1
        policy = 0.6

        $ poolwright train-policy CONFIG.toml --out POLICY
        $ poolwright run CONFIG.toml --set abas-ral.policy=POLICY

    Without ``policy`` one is trained in the first cycle of the run: on the reserves where there are some, else on the
    labels that the run begins with; a warning says so. That training is short: ``run_epochs`` of episodes of at most
    ``run_steps``.
    Leave ``batch`` out of the configuration, which would cap what the network asks for.

    Where the paper is silent or cannot be followed:

    - Precision, for rewards and targets, is that on the data set's validation data (``[dataset] validation``, a share
      of the training data), never on test data; the paper does not say. Where no ids are reserved as ``state``, the
      validation data are the state data.
    - A batch size enters the network as its share of the largest possible one, moved to (-1, 1]: raw sizes saturate the
      sigmoid, and k / |U| would move between 0 and 0.1 alone.
    - Rewards enter in units of the standard deviation of the warm start's returns.
    - The learning rate is 5e-3, five times that of LAL-RL's code, with which the value of a batch in the middle is not
      learned in the paper's number of steps (the planted environment of the tests).
    - "Sigmoid activations in the final layer" (section 3.10) is read as in the hidden layers, before the linear output.
    - An episode of the epochs ends when the target precision is reached or the target budget spent (section 3.8); with
      ``stop = "both"`` when the precision is reached within the budget (Algorithm 2). It is cut after ``steps`` steps.
    - The ``updates`` steps follow each episode (section 4.1 can also be read as so many an epoch; Algorithm 2 learns in
      every step).
    - The run ends by the same rule, since a policy that is to reach a target has reached it; ``finish = false`` goes on
      until the budget is spent. It does not learn any more: the network stays as it was trained. Targets of a policy
      that was trained on the labels which the run begins with are reached from the start, so they end nothing.
    - An episode of the warm start that ends by two decreases is over for the network too (no value follows). Its first
      labels count as a point of the targets. With ``stop = "both"`` a budget that is exceeded ends nothing.
    - Open: how many episodes the warm start has, how many labels an episode starts with, gamma, epsilon.

    At gamma = 1 the rewards of an episode telescope to P_T / B_T - P_0 / B_0, and P / B falls as B grows, so the
    optimum labels very little: the targets, not the reward, are what makes it label at all.

    Memory: the buffer takes 4 bytes x state data a transition. Time: one fit of the learner a step of an episode.

    Source: *ABAS-RAL: Adaptive Batch Size using Reinforced Active Learning*, anonymous submission, 2024. The network is
    that of LAL-RL (Konyushkova, Sznitman and Fua, *Discovering General-Purpose Active Learning Strategies*, 2018).

    Parameters
    ----------
    policy : str, optional
        File that ``poolwright train-policy`` wrote.
    stop : {"either", "both"}
        When an episode is over, and the run.
    finish : bool
        End the run when ``stop`` says so.
    epochs : int
        Of a training ahead.
    run_epochs, run_steps : int
        `epochs` and `steps` of a training in the run.
    episodes : int
        In an epoch.
    updates : int
        Steps of the network after an episode.
    warm_episodes : int
        Episodes of the warm start.
    start : int, optional
        Labels that an episode starts with; by default as many as the run, but at most a tenth of the episode's pool.
    steps : int
        An episode is cut after so many batches.
    share : float
        The largest batch is this share of the unlabeled samples.
    lr : float
        Learning rate of Adam.
    gamma : float
        Discount.
    rate : float
        Of the target network's soft update.
    epsilon, epsilon_decay : float
        Probability of a batch size by chance in the first epoch, and the factor on it with each epoch.
    capacity : int
        Transitions in the replay buffer.
    exponent : float
        Of the priorities.
    minibatch : int
        Transitions a step.
    """

    tasks = frozenset({"classification"})
    needs = frozenset({"probabilities", "validation", "learner"})

    def __init__(
        self,
        *,
        policy: str | None = None,
        stop: Stop = "either",
        finish: bool = True,
        epochs: int = 50,
        run_epochs: int = 2,
        run_steps: int = 20,
        episodes: int = 5,
        updates: int = 100,
        warm_episodes: int = 5,
        start: int | None = None,
        steps: int = 100,
        share: float = 0.1,
        lr: float = 5e-3,
        gamma: float = 0.99,
        rate: float = 0.01,
        epsilon: float = 0.1,
        epsilon_decay: float = 0.95,
        capacity: int = 50_000,
        exponent: float = 3.0,
        minibatch: int = 32,
    ) -> None:
        self.policy = policy
        self.stop = stop
        self.finish = finish
        self.epochs = epochs
        self.run_epochs = run_epochs
        self.run_steps = run_steps
        self.episodes = episodes
        self.updates = updates
        self.warm_episodes = warm_episodes
        self.start = start
        self.steps = steps
        self.share = share
        self.lr = lr
        self.gamma = gamma
        self.rate = rate
        self.epsilon = epsilon
        self.epsilon_decay = epsilon_decay
        self.capacity = capacity
        self.exponent = exponent
        self.minibatch = minibatch
        self._training: PolicyTraining | None = None
        self._trained_on: Tensor = torch.empty(0, dtype=torch.int64)
        self._pool = 0
        self._binding = False

    # -- training ------------------------------------------------------------------------------------------------

    def train_policy(self, cycle: Cycle) -> Iterator[float]:
        """Train a policy ahead: on the reserves, or on what is labeled. See ``poolwright train-policy``."""
        self._check()
        yield from self._pieces(cycle, self.epochs, self.steps)

    def _pieces(self, cycle: Cycle, epochs: int, steps: int) -> Iterator[float]:
        world = self._world(cycle)
        if self._training is None:
            seed = int(torch.randint(2**31, (), generator=cycle.generator))
            self._training = PolicyTraining(self._plan(epochs, steps), seed, self._agent)
        yield from self._training.run(world)

    def _world(self, cycle: Cycle) -> World:
        """Return what makes the episodes; notes which samples the policy is trained on."""
        reserves = set(cycle.pool.reserves)
        if len(reserves & {WARM, TRAINING}) == 1:
            raise ConfigError(
                f"abas-ral: reserve both {WARM!r} and {TRAINING!r}, or neither: add the other to [reserve]"
            )
        if WARM in reserves:
            warm, policy = cycle.pool.reserved(WARM), cycle.pool.reserved(TRAINING)
        else:
            warm = policy = cycle.pool.labeled
        self._binding = WARM in reserves
        held = [cycle.pool.reserved(STATE)] if STATE in reserves else []
        self._trained_on, self._pool = torch.cat([warm, policy, *held]).unique(), len(cycle.pool)
        return World(
            cycle,
            self._part(cycle, warm),
            self._part(cycle, policy),
            share=self.share,
            observe=self._state,
            needs=self.needs,
            reserve=(STATE,) if held else (),
        )

    def _part(self, cycle: Cycle, ids: Tensor) -> Part:
        default = min(len(cycle.pool.labeled), max(2, len(ids) // 10))
        start = default if self.start is None else self.start
        if not 0 < start < len(ids):
            raise ConfigError(
                f"abas-ral: episodes on {len(ids)} samples cannot start with {start} labels: reserve more "
                f"({WARM!r}, {TRAINING!r}), raise [initial] size, or lower abas-ral.start"
            )
        return Part(ids, start)

    def _plan(self, epochs: int, steps: int) -> Plan:
        return Plan(
            epochs=epochs,
            episodes=self.episodes,
            updates=self.updates,
            warm_episodes=self.warm_episodes,
            steps=steps,
            share=self.share,
            stop=self.stop,
            gamma=self.gamma,
            epsilon=self.epsilon,
            epsilon_decay=self.epsilon_decay,
        )

    def _agent(self, n_state: int, bias: float, unit: float) -> BatchAgent:
        return BatchAgent(
            n_state,
            bias=bias,
            unit=unit,
            lr=self.lr,
            gamma=self.gamma,
            rate=self.rate,
            capacity=self.capacity,
            exponent=self.exponent,
            minibatch=self.minibatch,
        )

    @staticmethod
    def _state(cycle: Cycle) -> Tensor:
        """Return the sorted margins of the state data: what is reserved for it, else the validation data."""
        if STATE in cycle.pool.reserves:
            return sorted_margins(cycle.rows("probabilities", cycle.pool.reserved(STATE))[:])
        learner = cycle.learner
        batches = cycle.validation.batches(learner.predict_batch_size, device=cycle.device)
        return sorted_margins(torch.cat([learner.predict(x)["probabilities"].cpu() for x, _ in batches]))

    # -- the hooks -----------------------------------------------------------------------------------------------

    @hookimpl
    def reward(self, cycle: Cycle) -> float:
        """Return the change of validation precision per label (equation 1)."""
        return PrecisionPerLabel().reward(cycle)

    @hookimpl
    def update(self, cycle: Cycle) -> None:
        """In the first cycle, read the policy or train one; nothing after it."""
        self._check()
        if self._training is not None or cycle.final:
            return
        if self.policy is not None:
            self.load_state_dict(read_policy(self.policy, "abas-ral"))
            with self._all_or_nothing():
                self._check_policy(cycle)
            return
        with self._all_or_nothing():
            self._train_in_run(cycle)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Forget a policy that was refused, or whose training was left: no later call may take it for one."""
        try:
            yield
        except BaseException:
            self.load_state_dict({})
            raise

    def _train_in_run(self, cycle: Cycle) -> None:
        pieces = self._pieces(cycle, self.run_epochs, self.run_steps)
        n = len(cycle.pool.reserved(TRAINING)) if TRAINING in cycle.pool.reserves else len(cycle.pool.labeled)
        log.warning("abas-ral was given no policy: it trains one on the %d labels that it has", n)
        for _ in cycle.progress(range(1 + self.run_epochs), f"training a policy on {n} labels (none was given)"):
            next(pieces)
        for _ in pieces:  # ends the generator
            continue
        training = self._trained
        for name, values in training.log.items():
            for value in values:
                cycle.log(name, value)
        assert training.targets is not None
        cycle.log("target_precision", training.targets.precision)
        cycle.log("target_budget", training.targets.budget)

    @hookimpl
    def score(self, cycle: Cycle) -> Tensor:
        """Return negative margins, float32 ``(n_unlabeled,)``."""
        return -blockwise(margin, cycle)

    @hookimpl
    def select(self, cycle: Cycle, scores: Tensor, budget: int) -> Tensor:
        """Return as many of the samples with the highest scores as the network finds best; none at the targets."""
        self._check()
        training = self._trained
        assert training.agent is not None
        assert training.targets is not None
        unlabeled = cycle.pool.unlabeled
        labeled = len(cycle.pool.labeled)
        spent = labeled / (labeled + len(cycle.pool.all_unlabeled))
        reached = self._binding and training.targets.reached(_precision(cycle), spent, self.stop)
        if self.finish and reached and not cycle.history:
            log.warning(
                "abas-ral asks for nothing: its targets (precision %.3f, or %.0f %% labeled) are reached from the "
                "start; finish = false goes on",
                training.targets.precision,
                100 * training.targets.budget,
            )
        if budget <= 0 or not len(unlabeled) or (self.finish and reached):
            return unlabeled[:0]
        largest = min(largest_batch(len(cycle.pool.all_unlabeled), self.share), len(unlabeled))
        values = training.agent.values(self._state(cycle), largest)
        k = int(values.argmax()) + 1
        cycle.log("batch", k)
        cycle.log("value", float(values[k - 1]))
        return most_uncertain(unlabeled, scores, min(k, budget))

    @property
    def _trained(self) -> PolicyTraining:
        if self._training is None or self._training.agent is None:
            raise ConfigError("abas-ral has no policy yet: its update has to run before")
        return self._training

    def _check_policy(self, cycle: Cycle) -> None:
        """Refuse a policy that does not fit the run, or was trained on what the run is to choose from."""
        agent = self._trained.agent
        assert agent is not None
        n_state = len(self._state(cycle))
        if agent.n_state != n_state:
            raise ConfigError(
                f"abas-ral: policy {self.policy} was trained with {agent.n_state} state data, here there are "
                f"{n_state}: use the [dataset] and [reserve] that it was trained with, or train another"
            )
        if self._pool != len(cycle.pool):
            return  # another pool: ids mean other samples
        unlabeled = cycle.pool.all_unlabeled
        known = int(torch.isin(unlabeled, self._trained_on).sum())
        if known:
            raise ConfigError(
                f"abas-ral: policy {self.policy} was trained on {known} of the {len(unlabeled)} samples that this run "
                f"is to choose from: use the [reserve] and reserve_seed that it was trained with (a policy "
                f"that was trained on the initial pool fits no run of another seed)"
            )

    # -- options and state ---------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        if self.stop not in get_args(Stop):
            raise ConfigError(f"abas-ral: stop is one of {', '.join(get_args(Stop))}, not {self.stop!r}")
        if not isinstance(self.finish, bool):
            raise ConfigError(f"abas-ral: finish must be true or false, not {self.finish!r}")
        counts = (
            "epochs",
            "run_epochs",
            "run_steps",
            "episodes",
            "updates",
            "warm_episodes",
            "steps",
            "capacity",
            "minibatch",
        )
        for name in (*counts, *(() if self.start is None else ("start",))):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"abas-ral: {name} must be an integer of at least 1, not {value!r}")
        for name, fits, range_ in (
            ("share", 0 < self.share <= 1, "above 0 and at most 1"),
            ("lr", 0 < self.lr < math.inf, "above 0"),
            ("gamma", 0 <= self.gamma <= 1, "between 0 and 1"),
            ("rate", 0 < self.rate <= 1, "above 0 and at most 1"),
            ("epsilon", 0 <= self.epsilon <= 1, "between 0 and 1"),
            ("epsilon_decay", 0 < self.epsilon_decay <= 1, "above 0 and at most 1"),
            ("exponent", 0 <= self.exponent < math.inf, "0 or more"),
        ):
            if not fits:
                raise ConfigError(f"abas-ral: {name} must be {range_}, not {getattr(self, name)!r}")

    def state_dict(self) -> dict[str, Any]:
        """Return the policy, how far its training is, and which samples it was trained on."""
        if self._training is None:
            return {}
        return {
            "training": self._training.state_dict(),
            "trained_on": self._trained_on.clone(),
            "pool": self._pool,
            "binding": self._binding,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave to a strategy with the same parameters."""
        self._training, self._pool, self._trained_on = None, 0, torch.empty(0, dtype=torch.int64)
        self._binding = False
        if state:
            self._training = PolicyTraining(self._plan(self.epochs, self.steps), 0, self._agent)
            self._training.load_state_dict(state["training"])
            self._trained_on, self._pool = state["trained_on"].clone(), int(state["pool"])
            self._binding = bool(state["binding"])


def _precision(cycle: Cycle) -> float:
    if "precision" not in cycle.metrics:
        raise ConfigError("abas-ral: there is no learner whose validation precision could be measured: name one")
    return cycle.metrics["precision"]
