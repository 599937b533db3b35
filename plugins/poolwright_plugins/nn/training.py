"""The training loop of networks that take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from poolwright import Cycle, PluginError

from .images import Batch, PoolBatches
from .losses import active_units

Precision = Literal["auto", "float32", "bf16", "fp16"]


class Losses(NamedTuple):
    """What a network's loss is for one batch, and what is logged of it."""

    total: Tensor
    """What is minimised, a number."""
    logged: Mapping[str, Tensor]
    """Numbers by name: the mean over an epoch's steps is logged."""
    means: Tensor | None = None
    """Posterior means ``(n, latent)``, for the number of active units."""


@dataclass(frozen=True, eq=False)
class Player:
    """A network that is trained.

    Attributes
    ----------
    name : str
        How errors call it.
    networks : sequence of Module
        Whose weights its optimizer (Adam) changes.
    lr : float
        Learning rate.
    lr_name : str
        The option that sets it.
    losses : callable
        From a batch to its losses.
    turns : int
        Steps it takes while the others take one.
    """

    name: str
    networks: Sequence[nn.Module]
    lr: float
    lr_name: str
    losses: Callable[[Batch], Losses]
    turns: int = 1


class _Turn:
    """A player's optimizer, and what is known of its steps in the epoch."""

    def __init__(self, player: Player, device: torch.device, precision: str) -> None:
        self.player = player
        self._parameters = list(chain.from_iterable(network.parameters() for network in player.networks))
        self._optimizer = torch.optim.Adam(self._parameters, lr=player.lr, fused=True)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.names: tuple[str, ...] = ()
        self.values: list[Tensor] = []
        self.variances: list[Tensor] = []

    def step(self, batch: Batch, autocast: AbstractContextManager[Any]) -> None:
        """Take one step; losses stay on the device."""
        with autocast:
            losses = self.player.losses(batch)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(losses.total).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.names = tuple(losses.logged)
        self.values.append(torch.stack([value.detach().float() for value in losses.logged.values()]))
        if losses.means is not None:
            self.variances.append(losses.means.detach().var(0))

    def first_failure(self) -> tuple[int, str] | None:
        """Return the first step of the epoch, from 0, at which a loss was not finite, and which one; None without."""
        wrong = ~torch.isfinite(self.values_by_step).cpu()
        if not wrong.any():
            return None
        at = int(wrong.any(1).nonzero()[0])
        return at // self.player.turns, self.names[int(wrong[at].nonzero()[0])]

    @property
    def sound(self) -> bool:
        """Whether all weights are finite."""
        return bool(torch.stack([parameter.isfinite().all() for parameter in self._parameters]).all())

    @property
    def values_by_step(self) -> Tensor:
        """The logged losses of the epoch, float64 ``(steps, losses)``."""
        return torch.stack(self.values).double()

    def log(self, cycle: Cycle) -> None:
        """Log the means over the epoch, and begin the next."""
        for name, value in zip(self.names, self.values_by_step.mean(0).tolist(), strict=True):
            cycle.log(name, value)
        if self.variances:
            cycle.log("active_units", active_units(torch.stack(self.variances).mean(0)))
        self.values, self.variances = [], []


def _check(turns: Sequence[_Turn], strategy: str, where: str) -> None:
    """Raise PluginError where a loss of the epoch or a weight is not finite, naming the first."""
    failures = [(found[0], order, found[1]) for order, turn in enumerate(turns) if (found := turn.first_failure())]
    rates = " or ".join(f"{turn.player.lr_name} (now {turn.player.lr:g})" for turn in turns)
    way_out = f"lower {rates}, or look for extreme values in the inputs"
    if failures:
        step, order, loss = min(failures)
        raise PluginError(
            f"{strategy}: the {turns[order].player.name}'s loss {loss!r} became NaN or infinite in {where}, at step "
            f"{step + 1}: {way_out}"
        )
    for turn in turns:
        if not turn.sound:  # no loss shows what the epoch's last step does
            raise PluginError(
                f"{strategy}: weights of the {turn.player.name} became NaN or infinite in {where}, at its last step: "
                f"{way_out}"
            )


def mixed_precision(device: torch.device, precision: Precision) -> str:
    """Return the precision of training on ``device``: float32 on the CPU, "auto" resolved on CUDA."""
    if device.type != "cuda":
        return "float32"
    if precision == "auto":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return precision


def train(
    players: Sequence[Player],
    batches: PoolBatches,
    *,
    cycle: Cycle,
    strategy: str,
    epochs: int,
    precision: Precision,
) -> None:
    """Train the players in turn.

    In each step the first player takes its turns, each with a batch of its own; the others follow with the last of
    them. Losses are looked at once an epoch, so that CUDA need not be waited for in between.

    Parameters
    ----------
    players : sequence of Player
        In the order of their turns.
    batches : PoolBatches
        What they are trained on.
    cycle : Cycle
        Where losses are logged and progress is shown; shuffles draw from its generator.
    strategy : str
        How errors call the strategy.
    epochs : int
        Passes over the pool.
    precision : {"auto", "float32", "bf16", "fp16"}
        Automatic mixed precision, on CUDA only.

    Raises
    ------
    PluginError
        A loss became NaN or infinite; names the network, the loss, the epoch and the step.
    """
    device = batches.device
    precise = mixed_precision(device, precision)
    dtype = torch.float16 if precise == "fp16" else torch.bfloat16
    autocast = torch.autocast(device.type, dtype=dtype, enabled=precise != "float32")
    for network in chain.from_iterable(player.networks for player in players):
        network.train()
    turns = [_Turn(player, device, precise) for player in players]
    label = f"{strategy}: training the {' and the '.join(player.name for player in players)}"
    for step in cycle.progress(range(epochs * batches.steps), label):
        epoch, done = divmod(step, batches.steps)
        if done == 0:
            drawn = batches.epoch(cycle.generator, players[0].turns)
        _take_turns(turns, drawn, autocast)
        if done == batches.steps - 1:
            _check(turns, strategy, f"epoch {epoch + 1} of {epochs}")
            for turn in turns:
                turn.log(cycle)
    for network in chain.from_iterable(player.networks for player in players):
        network.eval()


def _take_turns(turns: Sequence[_Turn], drawn: Iterator[Batch], autocast: AbstractContextManager[Any]) -> None:
    for turn in turns:
        for _ in range(turn.player.turns):
            if turn is turns[0]:
                batch = next(drawn)
            turn.step(batch, autocast)
