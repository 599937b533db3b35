"""What the torch learners share: options, training, prediction and state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from poolwright import ConfigError, LearnerError, Samples, streams

from .network import Network, load_weights, set_batch_norm

RESIDENT_BYTES = 2**30
"""Labeled inputs up to this size are prepared once for a whole fit."""

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]
"""One call an epoch."""


def learning_rate(start: float, schedule: str, done: float) -> float:
    """Return the learning rate once the share ``done`` of all steps has been made.

    ``"poly"`` falls as ``(1 - done) ** 0.9`` (Chen et al., *DeepLab*, TPAMI 2018, section 4.1).
    """
    if schedule == "cosine":
        return start * 0.5 * (1 + math.cos(math.pi * done))
    return start * (1 - done) ** 0.9 if schedule == "poly" else start


def is_number(value: Any) -> bool:
    """Return whether a parameter is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(kw_only=True, eq=False)
class TorchLearner(ABC):
    """A network trained by gradient steps; subclasses say which in :meth:`build`, and what is minimised in `_loss`.

    Parameters
    ----------
    epochs : int
        Passes over the labeled samples.
    warm_epochs : int, optional
        Passes of a fit that goes on from the present weights, whatever `min_steps` says; as `epochs` by default.
    min_steps : int
        Train for at least so many steps, in further passes: a few labels make a pass of one or two steps.
    batch_size : int
        Samples a step.
    lr : float
        Learning rate at the start of a fit.
    warm_lr : float, optional
        The same for a fit that goes on from the present weights; as `lr` by default, which undoes much of what has been
        learned if the fit is short.
    schedule : {"cosine", "constant", "poly"}
        How the learning rate goes on: down to 0 along a half cosine, not at all, or down to 0 as the power 0.9 of
        the steps that are left.
    weight_decay : float
        Added to the gradient as an L2 penalty.
    optimizer : {"adam", "sgd"}
        What takes the steps; SGD has Nesterov momentum 0.9.
    augment : bool
        Train on the data set's random changes of the inputs.
    precision : {"auto", "float32", "bf16", "fp16"}
        Of training on CUDA: automatic mixed precision in bf16 where the device has it, else in fp16 with a
        gradient scaler. Predictions, and everything on the CPU, are float32.
    weights : str, optional
        File with the weights for ``start = "pretrained"``: what ``torch.save(learner.state_dict(), path)`` wrote,
        or the network's own state dict. A head for another number of classes keeps fresh weights.
    device : str
        ``"auto"`` takes CUDA where there is one.
    """

    epochs: int = 30
    warm_epochs: int | None = None
    warm_lr: float | None = None
    min_steps: int = 0
    batch_size: int = 32
    lr: float = 1e-3
    schedule: str = "cosine"
    weight_decay: float = 1e-4
    optimizer: str = "adam"
    augment: bool = False
    precision: str = "auto"
    weights: str | None = None
    device: str = "auto"
    tasks: ClassVar[frozenset[str]]
    _network: Network | None = field(default=None, init=False, repr=False)
    _shape: tuple[int, ...] = field(default=(), init=False, repr=False)

    @abstractmethod
    def build(self, shape: tuple[int, ...], n_classes: int) -> Network:
        """Return a network with fresh weights for prepared samples of ``shape``."""

    @property
    def provides(self) -> frozenset[str]:
        """Names of what the learner can do."""
        return frozenset({"probabilities", "logits", "embeddings", "head"})

    @property
    def name(self) -> str:
        """How errors call the learner."""
        return type(self).__name__.lower()

    @property
    def head(self) -> nn.Linear:
        """The last layer of the fitted network: embeddings in, logits out."""
        return self._fitted().head

    # -- fitting ---------------------------------------------------------------------------------------------

    def fit(self, labeled: Samples, *, unlabeled: Samples, start: str, generator: torch.Generator) -> None:
        """Train on ``labeled``.

        Shuffling and augmentation draw from ``generator``, fresh weights and dropout from torch's global one.

        Raises
        ------
        ConfigError
            A parameter cannot be used.
        LearnerError
            There are no weights to start from, or the loss or a weight became NaN or infinite.
        """
        self.check_parameters()
        if labeled.task not in self.tasks:
            raise LearnerError(f"learner {self.name} does {', '.join(sorted(self.tasks))}, not {labeled.task}")
        device = self._device()
        layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        goes_on = start == "warm" and self._fits(labeled)
        self._network = self._start(labeled, start).to(device)
        if len(labeled.shape) == 3:
            self._network.to(memory_format=layout)
        epochs, lr = self._pace(len(labeled), goes_on)
        self._train(self._network, self._batches(labeled, generator, device), len(labeled), epochs, lr, device)

    def load_pretrained(self, samples: Samples) -> None:
        """Take the weights of the file ``weights`` without fitting, so that an initial pool can be selected.

        Raises
        ------
        ConfigError
            A parameter cannot be used.
        LearnerError
            There are no weights, or they are of another network.
        """
        self.check_parameters()
        self._network = self._start(samples, "pretrained").to(self._device()).eval()

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        self._check_integers(epochs=1, min_steps=0, batch_size=1)
        if self.warm_epochs is not None:
            self._check_integers(warm_epochs=1)
        for name, rate in (("lr", self.lr), ("warm_lr", self.lr if self.warm_lr is None else self.warm_lr)):
            if not (is_number(rate) and rate > 0):
                raise ConfigError(f"learner {self.name}: {name} must be above 0, not {rate!r}")
        if not (is_number(self.weight_decay) and self.weight_decay >= 0):
            raise ConfigError(f"learner {self.name}: weight_decay must be 0 or more, not {self.weight_decay!r}")
        if not isinstance(self.augment, bool):
            raise ConfigError(f"learner {self.name}: augment must be true or false, not {self.augment!r}")
        for name, known in (
            ("schedule", ("cosine", "constant", "poly")),
            ("optimizer", ("adam", "sgd")),
            ("precision", ("auto", "float32", "bf16", "fp16")),
        ):
            self._check_choice(name, known)

    def _check_integers(self, **least: int) -> None:
        for name, limit in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < limit:
                raise ConfigError(f"learner {self.name}: {name} must be an integer of at least {limit}, not {value!r}")

    def _check_choice(self, name: str, known: tuple[str, ...]) -> None:
        if getattr(self, name) not in known:
            raise ConfigError(f"learner {self.name}: {name} is one of {', '.join(known)}, not {getattr(self, name)!r}")

    def _device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise ConfigError(f"learner {self.name}: device {self.device!r} is none that torch knows") from None
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"learner {self.name}: device = {self.device!r}, but torch sees no CUDA device here")
        return device

    def _fits(self, labeled: Samples) -> bool:
        """Tell whether there is a network that can go on with these samples."""
        network = self._network
        return network is not None and self._shape == labeled.shape and network.n_classes == labeled.n_classes

    def _pace(self, n: int, goes_on: bool) -> tuple[int, float]:
        """Return epochs and learning rate of a fit on ``n`` samples."""
        epochs = max(self.epochs, math.ceil(self.min_steps / math.ceil(n / self.batch_size)))
        if not goes_on:
            return epochs, self.lr
        return self.warm_epochs or epochs, self.warm_lr or self.lr

    def _start(self, labeled: Samples, start: str) -> Network:
        shape, n_classes = labeled.shape, labeled.n_classes
        if start == "warm" and self._fits(labeled):
            return self._fitted()
        if start not in ("scratch", "warm", "pretrained"):
            raise ConfigError(f"learner {self.name}: start is one of scratch, warm, pretrained, not {start!r}")
        self._shape = shape
        network = self.build(shape, n_classes)
        if start == "pretrained":
            load_weights(network, self.weights, self.name)
        return network

    def _batches(self, labeled: Samples, generator: torch.Generator, device: torch.device) -> Batches:
        """Return what yields an epoch of ``(inputs, labels)`` a call, shuffled."""
        if self.augment or len(labeled) * self._sample_bytes(labeled) > RESIDENT_BYTES:
            return lambda: (
                (x, self._known(y))
                for x, y in labeled.batches(self.batch_size, generator=generator, augment=self.augment, device=device)
            )
        kept = [
            (x, self._kept(self._known(y), labeled.n_classes))
            for x, y in labeled.batches(self.batch_size, device=device)
        ]
        inputs, labels = (torch.cat(parts) for parts in zip(*kept, strict=True))

        def epoch() -> Iterator[tuple[Tensor, Tensor]]:
            order = torch.randperm(len(labels), generator=generator).to(device)
            for rows in order.split(self.batch_size):
                yield inputs[rows], labels[rows]

        return epoch

    def _sample_bytes(self, labeled: Samples) -> int:
        """Return the size of one prepared sample, its label included where that matters."""
        return 4 * math.prod(labeled.shape)

    def _kept(self, labels: Tensor, n_classes: int) -> Tensor:
        """Return labels as they are kept for a whole fit."""
        return labels

    def _known(self, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise LearnerError(f"learner {self.name} was given samples without labels to train on")
        return labels

    def _train(self, network: Network, batches: Batches, n: int, epochs: int, lr: float, device: torch.device) -> None:
        steps_per_epoch = math.ceil(n / self.batch_size)
        optimizer = self._optimizer(network)
        autocast, scaler = self._mixed_precision(device)
        network.train()
        step = 0
        for epoch in range(1, epochs + 1):
            total = torch.zeros((), device=device)
            for x, y in batches():
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(lr, self.schedule, step / (epochs * steps_per_epoch))
                self._set_batch_norm(network, x)
                with autocast:
                    loss = self._loss(network, x, y)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                total += loss.detach()
                step += 1
            if not torch.isfinite(total):
                raise self._diverged(f"the loss became NaN or infinite in epoch {epoch} of {epochs}", lr)
        if not torch.stack([parameter.isfinite().all() for parameter in network.parameters()]).all():
            raise self._diverged("the weights became NaN or infinite at the last step", lr)  # which no loss shows
        network.eval()

    def _diverged(self, what: str, lr: float) -> LearnerError:
        name = "lr" if lr == self.lr else "warm_lr"
        return LearnerError(
            f"learner {self.name}: {what}: lower {name} (now {lr:g}), or look for extreme values in the inputs"
        )

    def _set_batch_norm(self, network: Network, inputs: Tensor) -> None:
        set_batch_norm(network, training=len(inputs) > 1)  # one sample has no statistics

    @abstractmethod
    def _loss(self, network: Network, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return what a step goes down."""

    def _optimizer(self, network: Network) -> torch.optim.Optimizer:
        parameters = list(network.parameters())
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                parameters,
                lr=self.lr,
                momentum=0.9,
                nesterov=True,
                weight_decay=self.weight_decay,
                fused=True,
            )
        return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)

    def _mixed_precision(self, device: torch.device) -> tuple[AbstractContextManager[Any], torch.amp.GradScaler]:
        precision = self.precision if device.type == "cuda" else "float32"
        if precision == "auto":
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        return (
            torch.autocast(device.type, dtype=dtype, enabled=precision != "float32"),
            torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        )

    # -- asking ----------------------------------------------------------------------------------------------

    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return logits, probabilities and embeddings, float32, from one pass in eval mode."""
        network = self._fitted()
        network.eval()
        return self._outputs(network, inputs)

    def _outputs(self, network: Network, inputs: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            embeddings = network.features(inputs.to(next(network.parameters()).device))
            logits = network.head(embeddings)
            return {"logits": logits, "probabilities": logits.softmax(1), "embeddings": embeddings}

    def _fitted(self) -> Network:
        if self._network is None:
            raise LearnerError(f"learner {self.name} has not been fitted yet")
        return self._network

    # -- keeping ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and what is needed to build the network again; empty before the first fit."""
        if self._network is None:
            return {}
        return {
            "network": {name: value.detach().cpu().clone() for name, value in self._network.state_dict().items()},
            "shape": list(self._shape),
            "n_classes": self._network.n_classes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave to a learner with the same parameters."""
        self._network, self._shape = None, ()
        if state:
            self._shape = tuple(state["shape"])
            with streams.seeded("learner", "restore"):  # fresh weights, about to be replaced, must not cost draws
                network = self.build(self._shape, int(state["n_classes"]))
            network.load_state_dict(state["network"])
            self._network = network.to(self._device()).eval()


@dataclass(kw_only=True, eq=False)
class DropoutLearner(TorchLearner):
    """A torch learner whose network may have dropout layers.

    Parameters
    ----------
    dropout : float
        Share of activations that training and ``sample`` set to 0; above 0 the learner provides ``dropout``.
    """

    dropout: float = 0.0

    @property
    def provides(self) -> frozenset[str]:
        """Names of what the learner can do."""
        return super().provides | ({"dropout"} if self.dropout > 0 else frozenset())

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        if not (is_number(self.dropout) and 0 <= self.dropout < 1):
            raise ConfigError(f"learner {self.name}: dropout must be at least 0 and below 1, not {self.dropout!r}")

    def sample(self, inputs: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return what ``predict`` does, from one pass with dropout drawn from ``generator``.

        MC dropout (Gal and Ghahramani, *Dropout as a Bayesian Approximation*, ICML 2016).
        Only the dropout layers are in training mode: batch norm uses, and keeps, its running statistics.

        Raises
        ------
        LearnerError
            The learner has no dropout.
        """
        if self.dropout == 0:
            raise LearnerError(f"learner {self.name} has no dropout to sample with: set dropout, e.g. to 0.25")
        network = self._fitted()
        network.eval()
        for module in network.modules():
            if isinstance(module, (nn.Dropout, nn.Dropout2d)):
                module.train()
        seed = int(torch.randint(2**62, (1,), generator=generator))
        try:
            with streams.seeded("dropout", seed):
                return self._outputs(network, inputs)
        finally:
            network.eval()
