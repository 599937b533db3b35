"""How a policy is trained: warm start, then epochs of episodes, on labels that are paid for."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from poolwright import Cycle, Episodes, streams

from ..rewards import PrecisionPerLabel
from ..uncertainty import Margin
from .agent import BatchAgent
from .rules import Stop, Targets, fell_twice, largest_batch, returns

WARM_SEEDS = 10**6
"""Seeds of the warm start's episodes begin here, those of the epochs at 0."""


@dataclass(frozen=True)
class Part:
    """Where the episodes of one kind take their samples from.

    Attributes
    ----------
    ids : Tensor
        int64: samples with known labels.
    start : int
        How many of them are labeled at the start.
    """

    ids: Tensor
    start: int


@dataclass(frozen=True)
class Plan:
    """The parameters of a training; see the strategy."""

    epochs: int
    episodes: int
    updates: int
    warm_episodes: int
    steps: int
    share: float
    stop: Stop
    gamma: float
    epsilon: float
    epsilon_decay: float


class Episode(Protocol):
    """What a training needs of an episode.

    Attributes
    ----------
    state : Tensor
        float32 ``(n_state,)``.
    largest : int
        The most samples that may be asked for.
    point : (float, float)
        Precision of the learner, and the share of the samples that it was fitted on.
    over : bool
        The pool is empty.
    """

    state: Tensor
    largest: int
    point: tuple[float, float]
    over: bool

    def step(self, k: int) -> float:
        """Ask for ``k`` samples; return the reward."""
        ...


class Episodic(Protocol):
    """What a training needs of the world that it goes on in."""

    def begin(self, seed: int, *, warm: bool) -> Episode:
        """Begin an episode: of the warm start with batches at random, else of the most uncertain samples."""
        ...


@dataclass
class PolicyTraining:
    """A training that can be left after each piece: the warm start, then one epoch after the other.

    All that is random is keyed by ``seed`` and the number of the piece, so that a training which goes on from a state
    ends as one that was never left.

    Attributes
    ----------
    plan : Plan
    seed : int
    make_agent : callable
        Given the length of a state, the output layer's bias and the unit of rewards, makes a fresh agent.
    done : int
        Pieces done.
    agent : BatchAgent or None
        From the end of the warm start on.
    targets : Targets or None
        Likewise.
    finished : bool
        Nothing is left to do, whatever the plan says: only what acting needs is kept.
    log : dict of str to list of float
        How the pieces went.
    """

    plan: Plan
    seed: int
    make_agent: Callable[[int, float, float], BatchAgent]
    done: int = 0
    agent: BatchAgent | None = None
    targets: Targets | None = None
    finished: bool = False
    log: dict[str, list[float]] = field(default_factory=dict)

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return 1 + self.plan.epochs

    def run(self, world: Episodic) -> Iterator[float]:
        """Train; yield the share that is done after each piece."""
        while not self.finished:
            generator = streams.generator(self.seed, "abas-ral", self.done)
            if self.done == 0:
                self._warm_start(world, generator)
            else:
                self._epoch(world, generator)
            self.done += 1
            self.finished = self.done == self.pieces
            yield self.done / self.pieces

    def _warm_start(self, world: World, generator: torch.Generator) -> None:
        """Play random batches of random sizes (Algorithm 1), then set the targets and make the agent."""
        lived: list[tuple[Any, ...]] = []
        points: list[tuple[float, float]] = []
        followed: list[float] = []
        for number in range(self.plan.warm_episodes):
            rewards: list[float] = []
            begun = len(lived)
            episode = world.begin(WARM_SEEDS + number, warm=True)
            points.append(episode.point)
            while not episode.over:
                state, largest = episode.state, episode.largest
                k = int(torch.randint(1, largest + 1, (), generator=generator))
                reward = episode.step(k)
                rewards.append(reward)
                points.append(episode.point)
                over = episode.over or fell_twice(rewards)
                lived.append((state, k, largest, reward, episode.state, episode.largest, over))
                if over or len(rewards) >= self.plan.steps:
                    break
            followed += returns([transition[3] for transition in lived[begun:]], self.plan.gamma)
        gained = [transition[3] for transition in lived]
        unit = statistics.pstdev(followed) or abs(followed[0]) or 1.0
        self.targets = Targets.of(points)
        with streams.seeded(self.seed, "abas-ral", "networks"):
            self.agent = self.make_agent(len(lived[0][0]), statistics.fmean(gained), unit)
        for state, k, largest, reward, next_state, next_largest, over in lived:
            self.agent.remember(state, k, largest, reward, next_state, next_largest, terminal=over)
        self._note(warm_reward=statistics.fmean(gained), warm_steps=len(lived))

    def _epoch(self, world: World, generator: torch.Generator) -> None:
        """Play episodes by the network, now and then by chance, then learn from what is remembered (Algorithm 2)."""
        assert self.agent is not None
        assert self.targets is not None
        epoch = self.done - 1
        epsilon = self.plan.epsilon * self.plan.epsilon_decay**epoch
        total, error, sizes = 0.0, 0.0, []
        for number in range(self.plan.episodes):
            episode = world.begin(epoch * self.plan.episodes + number, warm=False)
            for _ in range(self.plan.steps):
                if episode.over:
                    break
                state, largest = episode.state, episode.largest
                if float(torch.rand((), generator=generator)) < epsilon:
                    k = int(torch.randint(1, largest + 1, (), generator=generator))
                else:
                    k = self.agent.best(state, largest)
                reward = episode.step(k)
                over = episode.over or self.targets.reached(*episode.point, self.plan.stop)
                self.agent.remember(state, k, largest, reward, episode.state, episode.largest, terminal=over)
                total += reward
                sizes.append(k)
                if over:
                    break
            error += self.agent.learn(self.plan.updates, generator)
        played = self.plan.episodes
        self._note(td_error=error / played, episode_reward=total / played, batch=statistics.fmean(sizes))

    def _note(self, **values: float) -> None:
        for name, value in values.items():
            self.log.setdefault(name, []).append(float(value))

    def state_dict(self) -> dict[str, Any]:
        """Return all that going on needs."""
        return {
            "seed": self.seed,
            "done": self.done,
            "finished": self.finished,
            "agent": None if self.agent is None else self.agent.state_dict(training=not self.finished),
            "targets": None if self.targets is None else [self.targets.precision, self.targets.budget],
            "log": {name: list(values) for name, values in self.log.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave to a training with the same plan."""
        self.seed, self.done, self.finished = int(state["seed"]), int(state["done"]), bool(state["finished"])
        self.log = {name: list(values) for name, values in state["log"].items()}
        self.agent, self.targets = None, None
        if state["targets"] is not None:
            self.targets = Targets(*state["targets"])
        if state["agent"] is not None:
            with streams.seeded("abas-ral", "restore"):  # fresh weights, about to be replaced, must not cost draws
                self.agent = self.make_agent(int(state["agent"]["n_state"]), 0.0, float(state["agent"]["unit"]))
            self.agent.load_state_dict(state["agent"])


class World:
    """Makes the episodes of a training.

    Parameters
    ----------
    cycle : Cycle
        Of a plugin that needs ``probabilities``, ``validation`` and ``learner``.
    warm, policy : Part
        Where the episodes of the warm start and those of the epochs take their samples from.
    share : float
        Of the unlabeled samples that the largest batch has.
    observe : callable
        Cycle -> state.
    needs : set of str
        What ``observe`` reads.
    reserve : tuple of str
        Reserves that ``observe`` reads.
    """

    def __init__(
        self,
        cycle: Cycle,
        warm: Part,
        policy: Part,
        *,
        share: float,
        observe: Callable[[Cycle], Tensor],
        needs: frozenset[str],
        reserve: tuple[str, ...],
    ) -> None:
        self._share = share
        self._warm = self._episodes(cycle, warm, observe, needs, reserve, random=True)
        self._policy = self._episodes(cycle, policy, observe, needs, reserve, random=False)

    def _episodes(
        self,
        cycle: Cycle,
        part: Part,
        observe: Callable[[Cycle], Tensor],
        needs: frozenset[str],
        reserve: tuple[str, ...],
        *,
        random: bool,
    ) -> Episodes:
        def decode(inner: Cycle, scores: Tensor | None, budget: int, k: int) -> Tensor:
            unlabeled = inner.pool.unlabeled
            if scores is None:
                return unlabeled[torch.randperm(len(unlabeled), generator=inner.generator)[: min(k, budget)]]
            return most_uncertain(unlabeled, scores, min(k, budget))

        return Episodes(
            lambda seed: cycle.simulate(part.ids, part.start, len(part.ids) - part.start, seed, reserve=reserve),
            lambda inner, scores: observe(inner),
            decode,
            score=None if random else Margin,
            reward=PrecisionPerLabel,
            needs=needs,
            who="abas-ral",
        )

    def begin(self, seed: int, *, warm: bool) -> PlayedEpisode:
        """Begin an episode: of the warm start with batches at random, else of the most uncertain samples."""
        return PlayedEpisode(self._warm if warm else self._policy, seed, self._share)


class PlayedEpisode:
    """An episode that is played by :class:`poolwright.Episodes`."""

    def __init__(self, episodes: Episodes, seed: int, share: float) -> None:
        self._episodes = episodes
        self._share = share
        self.state = episodes.reset(seed)
        self._look(False)

    def step(self, k: int) -> float:
        """Label a batch of ``k``; return what it changed in precision per label."""
        self.state, reward, over = self._episodes.step(k)
        self._look(over)
        return reward

    def _look(self, over: bool) -> None:
        session = self._episodes.session
        record = session.history[-1]
        self.point = (record.validation["precision"], record.labeled / (record.labeled + session.left))
        self.largest = min(largest_batch(session.left, self._share), max(1, session.batch or session.left))
        self.over = over


def most_uncertain(unlabeled: Tensor, scores: Tensor, k: int) -> Tensor:
    """Return the ``k`` ids with the highest scores; of equal ones the lowest."""
    return unlabeled[scores.sort(descending=True, stable=True).indices[:k]]
