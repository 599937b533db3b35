"""The strategy: a ranking, read chunk by chunk by an actor that accepts or refuses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from poolwright import ConfigError, Cycle, hookimpl, streams

from ...rl.replay import ReplayBuffer
from ...rl.updates import DDPG, decayed_gaussian
from ..uncertainty import blockwise, entropy
from .networks import HIDDEN, agent

NO_IDS = torch.empty(0, dtype=torch.int64)
Step = dict[str, Any]
"""A state, the action taken there and the reward: a transition but for the next state."""


@dataclass(kw_only=True, eq=False)
class SRAL:
    """Smart Reinforcement Active Learning: an actor accepts or refuses samples, chunk by chunk in score order.

    The unlabeled samples are ranked by score (entropy, unless another plugin owns ``score``). A state is the feature
    matrix of the next ``n`` samples of the ranking; the actor gives each a number in (-1, 1), and those at 0 or above
    are accepted and labeled. The reward is what that changed in validation accuracy since the last batch that was kept
    (equation 2). Accepted samples stay if it is positive, and go back to the unlabeled if not; their labels are paid
    for, and picking them again is free. Actor and critic learn by DDPG from a replay buffer (equations 3 to 7). Once
    ``b`` samples were kept the rest is ranked anew.

    One cycle of the engine is one chunk with a pick, so ``batch`` is left out or at least ``n``. Between the chunks
    the learner goes on from its weights for an epoch, and it is fitted anew after ``b`` labels, if the configuration
    says so; test data, and the paper's second learner for the figures, are due every so many labels only::

        report_every = 250

        [learner]
        name = "cnn"
        refit_every = 300
        warm_epochs = 1
        warm_lr = 1e-4

    With ``score = "random", select = "sral"`` this is the paper's ablation SRAL+Random.

    Where the paper is silent or cannot be followed:

    - Rejected samples count against the budget, since somebody labeled them. The paper counts training samples:
      ``charge_rejected = false``, where more labels are asked for than the budget says.
    - A chunk of which nothing is accepted changes nothing: its transition is stored with reward 0, and the next chunk
      follows at once. Of the last chunk of the ranking, or of ``patience`` chunks, the sample that was refused least is
      taken if nothing else is: a policy that refuses everything would never spend its budget.
    - S' of a transition is the next chunk that was looked at, with the features it had then, so a transition is stored
      one cycle later; the last of a run never is.
    - The weights of the learner, where it goes on from them, have seen rejected samples too, and the reward of the
      chunk at which it is fitted anew holds what that gained.
    - Equation 7 as printed is an identity; the soft update is theta' = rate * theta + (1 - rate) * theta'. In
      equations 3 and 4 theta_a stands where theta_c is meant.
    - Last layers start close to zero, as in the DDPG paper; the widths of the hidden layers are ours.
    - The features are the learner's penultimate layer, or the data set's own (the paper: a pretrained ResNet-18).

    Source: Jiu, Wu, Song, Li and Xu, *Image classification method based on uncertainty-driven smart reinforcement
    active learning*, Journal of Graphics 47(1), 2026. DDPG: Lillicrap et al., ICLR 2016.

    Parameters
    ----------
    n : int
        Samples of a chunk.
    b : int
        The small budget: so many kept samples, and the ranking is made anew.
    action : {"sample", "chunk"}
        Accept each sample by itself, or a chunk as a whole.
    features : {"embeddings", "features"}
        What a state consists of: the learner's penultimate layer, or the data set's own features.
    net : {"mlp", "conv"}
        Fully connected layers (section 4.1), or two convolutions and a pooling before them (section 2.2).
    hidden : sequence of int, optional
        Sizes of the hidden fully connected layers; 256, 128, 64, 32 for ``mlp`` and 128, 64 for ``conv`` by default.
    lr : float
        Learning rate of both Adams.
    gamma : float
        Discount.
    rate : float
        Of the targets' soft update (the paper's lambda).
    capacity : int
        Transitions in the replay buffer. One takes 4 n d bytes: its two states are kept in bfloat16.
    learning_starts : int
        Learn once the buffer holds more than so many.
    minibatch : int
        Transitions of a learning step.
    updates : int
        Learning steps a cycle.
    noise : float
        Standard deviation of the Gaussian noise on the first action.
    noise_decay : float
        Factor on the noise with each chunk.
    patience : int
        Chunks looked at in a cycle; of the last one, the least refused sample is taken if nothing was accepted.
    charge_rejected : bool
        Rejected samples count against the budget; else they are refunded until they are picked again.
    """

    n: int = 10
    b: int = 300
    action: str = "sample"
    features: str = "embeddings"
    net: str = "mlp"
    hidden: Sequence[int] | None = None
    lr: float = 1e-4
    gamma: float = 0.99
    rate: float = 0.01
    capacity: int = 3000
    learning_starts: int = 128
    minibatch: int = 64
    updates: int = 1
    noise: float = 0.1
    noise_decay: float = 0.999
    patience: int = 100
    charge_rejected: bool = True
    _agent: DDPG | None = field(default=None, init=False, repr=False)
    _replay: ReplayBuffer | None = field(default=None, init=False, repr=False)
    _d: int = field(default=0, init=False, repr=False)
    _queue: Tensor = field(default_factory=NO_IDS.clone, init=False, repr=False)
    _kept: int = field(default=0, init=False, repr=False)
    _chunks: int = field(default=0, init=False, repr=False)
    _picked: Tensor = field(default_factory=NO_IDS.clone, init=False, repr=False)
    _trail: list[Step] = field(default_factory=list, init=False, repr=False)
    _open: Step | None = field(default=None, init=False, repr=False)

    tasks = frozenset({"classification"})

    @property
    def needs(self) -> frozenset[str]:
        """Probabilities for the ranking, validation data for the reward, and what the states consist of."""
        return frozenset({"probabilities", "validation", self.features})

    # -- the hooks -----------------------------------------------------------------------------------------------

    @hookimpl
    def reward(self, cycle: Cycle) -> float:
        """Return the change of the validation metric since the last batch that was kept (equation 2)."""
        if not cycle.metrics or not cycle.baseline:
            raise ConfigError("sral: there is no learner whose validation accuracy could reward a batch: name one")
        return cycle.metrics[cycle.task.headline] - cycle.baseline[cycle.task.headline]

    @hookimpl
    def update(self, cycle: Cycle, reward: float | None) -> None:
        """Release the last picks if they did not help, store what the last selection did, and learn."""
        self._check()
        if self._agent is None or self._replay is None:
            self._prepare(cycle)
        batch = cycle.pool.batch
        picked = batch[torch.isin(batch, self._picked)]
        if reward is not None and reward > 0:
            self._kept += len(picked)
        elif reward is not None:
            cycle.pool.release(picked, charged=self.charge_rejected)
        if self._kept >= self.b:
            self._queue, self._kept = NO_IDS.clone(), 0
        self._remember(reward)
        self._learn(cycle)

    @hookimpl
    def score(self, cycle: Cycle) -> Tensor:
        """Return entropies in nats, float32 ``(n_unlabeled,)``; zeros while the ranking that was made still holds."""
        return torch.zeros(len(cycle.pool.unlabeled)) if len(self._ranked(cycle)) else blockwise(entropy, cycle)

    @hookimpl
    def select(self, cycle: Cycle, scores: Tensor, budget: int) -> Tensor:
        """Return the samples accepted in the first chunk of which any is; notes the ranking and what was decided."""
        self._check()
        self._trail, self._picked = [], NO_IDS.clone()
        ranked = self._ranked(cycle)
        if not len(ranked):
            ranked = self._queue = cycle.pool.unlabeled[scores.argsort(descending=True, stable=True)]
        chunks = ranked[: self.n * self.patience].split(self.n) if budget > 0 and len(ranked) else ()
        for number, chunk in enumerate(chunks, start=1):
            self._picked = self._look(cycle, chunk, budget, force=number == len(chunks))
            self._queue = self._queue[~torch.isin(self._queue, chunk)]
            if len(self._picked):
                break
        cycle.log("chunks", len(self._trail))
        return self._picked.clone()

    # -- acting --------------------------------------------------------------------------------------------------

    def _ranked(self, cycle: Cycle) -> Tensor:
        """Return what is left of the ranking and can be picked; empty where a new one is due."""
        return self._queue[torch.isin(self._queue, cycle.pool.unlabeled)]

    def _look(self, cycle: Cycle, chunk: Tensor, budget: int, *, force: bool) -> Tensor:
        """Let the actor decide on one chunk, note state and action, and return the ids that it accepted."""
        assert self._agent is not None
        state = self._state(cycle, chunk)
        noise = decayed_gaussian(
            (self._n_actions,),
            self._chunks + len(self._trail),
            sigma=self.noise,
            decay=self.noise_decay,
            generator=cycle.generator,
        )
        wanted = (self._agent.act(state[None])[0] + noise).clamp(-1, 1)
        each = wanted[: len(chunk)] if self.action == "sample" else wanted.expand(len(chunk))
        accepted = (each >= 0).nonzero().squeeze(1)
        if force and not len(accepted):
            accepted = each.argmax(keepdim=True) if self.action == "sample" else torch.arange(len(chunk))
        accepted = accepted[:budget]
        self._trail.append({"state": state, "action": carried_out(wanted, accepted), "reward": 0.0})
        return chunk[accepted]

    def _state(self, cycle: Cycle, chunk: Tensor) -> Tensor:
        """Return the features of a chunk, float32 ``(n, d)``; rows that the last chunk lacks are zeros."""
        features = cycle.rows(self.features, chunk)[:].float().cpu()
        state = torch.zeros(self.n, self._d)
        state[: len(chunk)] = features
        return state

    # -- learning ------------------------------------------------------------------------------------------------

    @property
    def _n_actions(self) -> int:
        return self.n if self.action == "sample" else 1

    def _prepare(self, cycle: Cycle) -> None:
        """Make networks and buffer for features as long as those of this pool."""
        some = torch.cat([cycle.pool.labeled[:1], cycle.pool.all_unlabeled[:1]])[:1]
        self._make(cycle.rows(self.features, some).shape[1])

    def _make(self, d: int) -> None:
        self._d = d
        shape = (self.n, d)
        self._agent = agent(shape, self._n_actions, self.net, self.hidden, lr=self.lr, gamma=self.gamma, rate=self.rate)
        fields = {
            "state": (shape, torch.bfloat16),
            "action": ((self._n_actions,), torch.float32),
            "reward": ((), torch.float32),
            "next_state": (shape, torch.bfloat16),
        }
        self._replay = ReplayBuffer(self.capacity, fields)

    def _remember(self, reward: float | None) -> None:
        """Store the transitions whose next state is known by now; that of the last chunk waits for it.

        Without a reward (nothing was answered) it is not known what the last chunk was worth, so it is forgotten.
        """
        assert self._replay is not None
        if not self._trail:
            return
        steps = [*([] if self._open is None else [self._open]), *self._trail]
        for step, following in itertools.pairwise(steps):
            self._replay.add(**step, next_state=following["state"])
        self._open = None if reward is None else {**self._trail[-1], "reward": reward}
        self._chunks += len(self._trail)
        self._trail, self._picked = [], NO_IDS.clone()

    def _learn(self, cycle: Cycle) -> None:
        assert self._agent is not None
        assert self._replay is not None
        if len(self._replay) <= self.learning_starts:
            return
        for _ in range(self.updates):
            _, drawn = self._replay.sample(self.minibatch, cycle.generator)
            error, value = self._agent.update(drawn["state"], drawn["action"], drawn["reward"], drawn["next_state"])
            if not math.isfinite(error + value):
                raise ConfigError(f"sral: actor and critic diverged (NaN or infinity): lower lr, now {self.lr:g}")
        cycle.log("critic_error", error)
        cycle.log("value", value)

    def _check(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        for name in ("n", "b", "capacity", "minibatch", "updates", "patience"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"sral: {name} must be an integer of at least 1, not {value!r}")
        if not isinstance(self.learning_starts, int) or not 0 <= self.learning_starts < self.capacity:
            raise ConfigError(
                f"sral: learning_starts must be an integer from 0 to below capacity ({self.capacity}), "
                f"or the buffer never holds more: not {self.learning_starts!r}"
            )
        for name, known in (
            ("action", ("sample", "chunk")),
            ("features", ("embeddings", "features")),
            ("net", tuple(HIDDEN)),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"sral: {name} is one of {', '.join(known)}, not {getattr(self, name)!r}")
        for name, fits, range_ in (
            ("lr", 0 < self.lr < math.inf, "above 0"),
            ("gamma", 0 <= self.gamma <= 1, "between 0 and 1"),
            ("rate", 0 < self.rate <= 1, "above 0 and at most 1"),
            ("noise", 0 <= self.noise < math.inf, "0 or more"),
            ("noise_decay", 0 < self.noise_decay <= 1, "above 0 and at most 1"),
        ):
            if not fits:
                raise ConfigError(f"sral: {name} must be {range_}, not {getattr(self, name)!r}")
        if self.hidden is not None and not all(isinstance(size, int) and size > 0 for size in self.hidden):
            raise ConfigError(f"sral: hidden must be a list of positive sizes, not {self.hidden!r}")

    # -- keeping -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimizers, replay buffer, the rest of the ranking and what waits to be stored."""
        return {
            "d": self._d,
            "agent": None if self._agent is None else self._agent.state_dict(),
            "replay": None if self._replay is None else self._replay.state_dict(),
            "queue": self._queue.clone(),
            "kept": self._kept,
            "chunks": self._chunks,
            "picked": self._picked.clone(),
            "trail": [dict(step) for step in self._trail],
            "open": None if self._open is None else dict(self._open),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave to a strategy with the same parameters."""
        self._agent, self._replay, self._d = None, None, 0
        if state["agent"] is not None:
            with streams.seeded("sral", "restore"):  # fresh weights, about to be replaced, must not cost draws
                self._make(int(state["d"]))
            assert self._agent is not None
            assert self._replay is not None
            self._agent.load_state_dict(state["agent"])
            self._replay.load_state_dict(state["replay"])
        self._queue, self._picked = state["queue"].clone(), state["picked"].clone()
        self._kept, self._chunks = int(state["kept"]), int(state["chunks"])
        self._trail = [dict(step) for step in state["trail"]]
        self._open = None if state["open"] is None else dict(state["open"])


def carried_out(wanted: Tensor, accepted: Tensor) -> Tensor:
    """Return the action that was taken in the end, which is what the critic learns from.

    Parameters
    ----------
    wanted : Tensor
        What the actor and the noise wanted: ``(n,)``, or ``(1,)`` for a chunk as a whole.
    accepted : Tensor
        int64, positions in the chunk that were picked: fewer than wanted where the budget is short, one more where
        nothing would have been.

    Returns
    -------
    Tensor
        Of the shape and size of ``wanted``, at least 0 where a sample was picked and at most 0 elsewhere.
    """
    if len(wanted) == 1:
        return wanted.abs() if len(accepted) else -wanted.abs()
    picked = torch.zeros(len(wanted), dtype=torch.bool)
    picked[accepted] = True
    return torch.where(picked, wanted.abs(), -wanted.abs())
