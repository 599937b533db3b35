"""What the adversarial strategies share: options, networks, scores and state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from poolwright import ConfigError, Cycle, PluginError, hookimpl, streams

from .images import Batch, PoolBatches, image_shape
from .losses import Reconstruction, Reduction, kl_divergence, on_both_states, reconstruction_error
from .networks import ImageShape
from .training import Player, Precision, train


@dataclass(kw_only=True, eq=False)
class RepresentationLearner:
    """Options of everything that trains a variational autoencoder on a pool of images.

    Parameters
    ----------
    width : int
        Channels of the first convolution; the paper's is 128, less is for small machines.
    latent : int
        Dimensions of the latent space (of each head).
    beta : float
        Weight of the KL term beside the reconstruction. What it should be depends on the scale of the images:
        8 x 8 pixels in [0, 1] want less than 1, lest ``active_units`` in the log fall to 0.
    reconstruction : {"mean", "sum"}
        Squared error averaged over the pixels, as in the code of VAAL's authors, or half its sum: eq. 1 with
        a Gaussian decoder of variance 1. With "mean" and ``beta = 1`` the KL term outweighs it and the posterior
        collapses to the prior: ``active_units`` falls to 0 in the log, and D reads noise.
    kl_reduction : {"mean", "sum"}
        KL averaged over the samples of a batch, or summed, as in the code of VAAL's authors. It is always summed
        over the latent dimensions.
    lr_vae : float
        Learning rate (Adam) of the autoencoder.
    batch_size : int
        Labeled and unlabeled samples in a step: so many of each.
    epochs : int
        Passes over the pool in a cycle.
    precision : {"auto", "float32", "bf16", "fp16"}
        Of training on CUDA: automatic mixed precision in bf16 where the device has it, else in fp16 with a
        gradient scaler. Scores, and everything on the CPU, are float32.
    """

    name: ClassVar[str]

    width: int = 128
    latent: int = 32
    beta: float = 1.0
    reconstruction: Reconstruction = "mean"
    kl_reduction: Reduction = "mean"
    lr_vae: float = 5e-4
    batch_size: int = 64
    epochs: int = 100
    precision: Precision = "auto"

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        self._check_integers(width=1, latent=1, batch_size=2, epochs=1)
        self._check_numbers("lr_vae", above=0)
        self._check_numbers("beta", least=0)
        self._check_names(reconstruction=Reconstruction, kl_reduction=Reduction, precision=Precision)

    def _check_integers(self, **least: int) -> None:
        for name, bound in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < bound:
                raise ConfigError(f"{self.name}: {name} must be an integer of at least {bound}, not {value!r}")

    def _check_numbers(self, *names: str, above: float = -math.inf, least: float = -math.inf) -> None:
        for name in names:
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value <= above or value < least:
                bound = f"above {above:g}" if above > -math.inf else f"{least:g} or more"
                raise ConfigError(f"{self.name}: {name} must be {bound}, not {value!r}")

    def _check_names(self, **known: Any) -> None:
        for name, literal in known.items():
            if getattr(self, name) not in get_args(literal):
                raise ConfigError(
                    f"{self.name}: {name} is one of {', '.join(get_args(literal))}, not {getattr(self, name)!r}"
                )

    def _check_switches(self, *names: str) -> None:
        for name in names:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{self.name}: {name} must be true or false, not {getattr(self, name)!r}")

    def _elbo(self, batch: Batch, reconstructed: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction error and the KL term, each on L and on U."""
        error = reconstruction_error(batch.images, reconstructed, self.reconstruction)
        divergence = on_both_states(kl_divergence(mu, logvar), batch.n_labeled, self.kl_reduction)
        return on_both_states(error, batch.n_labeled), divergence

    def _train(self, players: Sequence[Player], batches: PoolBatches, cycle: Cycle) -> None:
        train(players, batches, cycle=cycle, strategy=self.name, epochs=self.epochs, precision=self.precision)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolve in float32 proper on CUDA: with TF32 the scores would depend on the size of the batch."""
    # torch 2.9 gave each operation a switch of its own; the older one raises, or does nothing, once these are used.
    new = hasattr(torch.backends.cudnn, "conv")
    home, switch = (torch.backends.cudnn.conv, "fp32_precision") if new else (torch.backends.cudnn, "allow_tf32")
    before = getattr(home, switch)
    setattr(home, switch, "ieee" if new else False)
    try:
        yield
    finally:
        setattr(home, switch, before)


@dataclass(kw_only=True, eq=False)
class AdversarialStrategy(RepresentationLearner, ABC):
    """A strategy whose discriminator tells labeled from unlabeled samples.

    It is trained on all unlabeled samples, also where ``candidates`` lets only some of them be scored.

    Parameters
    ----------
    lambda_adv : float
        Weight of the adversarial loss of the encoder.
    lr_d : float
        Learning rate (Adam) of the discriminator.
    vae_steps : int
        Steps of the autoencoder for each step of the discriminator, every one with a new batch. Algorithm 1 of
        the VAAL paper takes 1, its authors' code 2.
    warm_start : bool
        Go on from the last cycle's weights (with fresh optimizers) instead of from new ones.
    """

    lambda_adv: float = 1.0
    lr_d: float = 5e-4
    vae_steps: int = 1
    warm_start: bool = False
    _networks: nn.ModuleDict | None = field(default=None, init=False, repr=False)
    _data: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @abstractmethod
    def build(self, shape: ImageShape, n_classes: int, task: str) -> nn.ModuleDict:
        """Return networks with fresh weights for a data set's images, classes and task."""

    @property
    @abstractmethod
    def scorers(self) -> tuple[str, ...]:
        """Which of the networks score; the others are dropped after training unless they are warm-started."""

    @abstractmethod
    def players(self, networks: nn.ModuleDict, cycle: Cycle) -> list[Player]:
        """Return what is trained, in the order of turns."""

    @abstractmethod
    def scorer(self, networks: nn.ModuleDict, cycle: Cycle) -> Callable[[Tensor], Tensor]:
        """Return what gives the scores, float ``(n,)``, higher = sooner, of a batch of images."""

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        self._check_integers(vae_steps=1)
        self._check_numbers("lr_d", above=0)
        self._check_numbers("lambda_adv", least=0)
        self._check_switches("warm_start")

    @hookimpl
    def update(self, cycle: Cycle) -> None:
        """Train on the labeled samples and those to choose from; nothing happens in the final cycle.

        Raises
        ------
        ConfigError
            A parameter cannot be used, the samples are no images, or nothing is labeled yet.
        PluginError
            A loss became NaN or infinite.
        """
        self.check_parameters()
        labeled, unlabeled = cycle.pool.labeled, cycle.pool.unlabeled
        if cycle.final or not len(unlabeled):
            return
        if not len(labeled):
            raise ConfigError(
                f"{self.name} tells labeled samples from unlabeled ones, but nothing is labeled yet: "
                f"let another strategy choose the initial pool, such as random or sraal-init"
            )
        networks = self._start(cycle)
        self._train(self.players(networks, cycle), PoolBatches(cycle, labeled, unlabeled, self.batch_size), cycle)
        self._keep(networks)

    def _start(self, cycle: Cycle) -> nn.ModuleDict:
        """Return the networks to train, fresh or as they are, on the device."""
        shape = image_shape(cycle, self.name)
        data = {"shape": list(shape), "n_classes": cycle.n_classes, "task": cycle.task.name}
        if not self.warm_start or self._networks is None or self._data != data:
            self._data = data
            self._networks = self._build()
        return self._networks.to(cycle.device).to(memory_format=torch.channels_last)

    def _build(self) -> nn.ModuleDict:
        return self.build(ImageShape(*self._data["shape"]), self._data["n_classes"], self._data["task"]).eval()

    def _keep(self, networks: nn.ModuleDict) -> None:
        """Drop what is not needed before the next training."""
        for name in () if self.warm_start else tuple(networks):
            if name not in self.scorers:
                networks.pop(name)
        self._networks = networks

    @hookimpl
    def score(self, cycle: Cycle) -> Tensor:
        """Return a score for each unlabeled sample, computed in eval mode."""
        unlabeled = cycle.pool.unlabeled
        if not len(unlabeled):
            return torch.empty(0)
        if self._networks is None:
            raise PluginError(f"{self.name}: score needs what update trained, but update has not been called")
        self._networks.to(cycle.device).to(memory_format=torch.channels_last)
        with torch.no_grad(), exact_convolutions():
            scored = self.scorer(self._networks, cycle)
            return torch.cat([scored(images) for images in cycle.inputs(unlabeled, 2 * self.batch_size)])

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and what is needed to build the networks again; empty before the first training."""
        if self._networks is None:
            return {}
        weights = {name: value.detach().cpu().clone() for name, value in self._networks.state_dict().items()}
        return {"networks": weights, "data": dict(self._data)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave to a strategy with the same parameters."""
        self._networks, self._data = None, {}
        if state:
            self._data = dict(state["data"])
            with streams.seeded(self.name, "restore"):  # fresh weights, about to be replaced, must not cost draws
                networks = self._build()
            self._keep(networks)
            networks.load_state_dict(state["networks"])
