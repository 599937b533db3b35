"""SRAAL: VAAL with a representation that knows the labels, and with states that know the uncertainty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from poolwright import ConfigError, Cycle, Rows, hookimpl, kernels

from ..nn.annotations import Annotations, task_loss
from ..nn.images import Batch, PoolBatches, image_shape
from ..nn.indicators import INDICATORS, Indicator, indicator_of
from ..nn.losses import (
    adversarial_loss,
    discriminator_loss,
    kl_divergence,
    sample_latents,
    told_apart,
)
from ..nn.networks import MLP, Decoder, Discriminator, Encoder, GaussianHead, ImageShape, Trunk
from ..nn.strategy import AdversarialStrategy, RepresentationLearner, exact_convolutions
from ..nn.training import Losses, Player
from ._kernels import data_errors


class UnifiedEncoder(nn.Module):
    """One trunk with two Gaussian heads: the unsupervised representation (UIR) and the supervised one (STL)."""

    def __init__(self, shape: ImageShape, width: int, latent: int, *, stl: bool) -> None:
        super().__init__()
        self.trunk = Trunk(shape, width)
        self.uir = GaussianHead(self.trunk.features, latent)
        self.stl = GaussianHead(self.trunk.features, latent) if stl else None

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return (mu, log sigma^2) of each head, float32 ``(n, latent)`` each, UIR first."""
        features = self.trunk(images)
        return [head(features) for head in (self.uir, self.stl) if head is not None]


def unified(posteriors: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the means of all heads side by side: ``(n, 2 latent)``, or ``(n, latent)`` without STL."""
    return torch.cat([mu for mu, _ in posteriors], 1)


@dataclass(kw_only=True, eq=False)
class SRAAL(AdversarialStrategy):
    """State-relabeling adversarial active learning.

    As in VAAL a discriminator D plays against the encoder of a variational autoencoder. Two things are new. The
    representation is unified: beside the autoencoder of all images (UIR, eq. 1) a second head of the same
    convolutions learns from the labels (STL, eq. 2), and D reads both. And unlabeled samples count as labeled by as
    much as the learner is certain of them: D's target is 1 - indicator (eq. 5). The batch are the samples with the
    lowest D.

    Source: Zhang, Li, Yang, Wang, Zha and Huang, *State-Relabeling Adversarial Active Learning*, CVPR 2020. It gives
    no sizes, rates or weights: those of VAAL are taken.

    Notes
    -----
    Where this differs from the paper: eq. 5 prints log(indicator - D) for unlabeled samples, which is undefined for
    D >= indicator; here D's loss is the cross entropy with the target 1 - indicator, on logits. Eqs. 1 and 2 print
    evidence lower bounds, whose negatives are minimised. Eq. 4 divides by 1 - C where C - 1 is meant. For the
    paper 1 is the state of unlabeled samples in section 3.3, but of labeled ones in eqs. 5 and 6; here it is that of
    labeled ones. D reads posterior means. Labeled and unlabeled images go through the networks in one batch.

    Settings for one CPU core are those of ``vaal``, with ``beta_stl = 0.01``; they take a fifth longer.

    The decoder of the STL is an MLP to the classes; for segmentation it is one like the image decoder, with a map
    for each class, and the cross entropy is the mean over the labeled pixels. Further parameters are those of
    :class:`~poolwright_plugins.nn.strategy.AdversarialStrategy` and
    :class:`~poolwright_plugins.nn.strategy.RepresentationLearner`.

    Logged by epoch: ``reconstruction``, ``kl``, ``adversarial`` (each on L plus on U), ``stl`` and ``stl_kl`` (on L),
    ``discriminator``, D's ``accuracy`` (mean of both pools; relabeled states shift its threshold) and ``auc``, and
    ``active_units`` of all heads; and ``indicator``, the mean over the unlabeled.

    Parameters
    ----------
    lambda_uir : float
        Weight of the autoencoder's loss (lambda_1 of eq. 7; lambda_3 is ``lambda_adv``).
    lambda_stl : float
        Weight of the supervised loss (lambda_2 of eq. 7).
    beta_stl : float
        Weight of the KL term in the supervised loss; 1 in eq. 2. There what a latent vector says of the label costs
        at least as much as it gains, so that little is learned; the information bottleneck of Alemi et al. (ICLR
        2017) takes 0.001.
    indicator : {"oui", "entropy", "std", "binary"}
        What says how uncertain the learner is: the online uncertainty indicator (eq. 3), the entropy over its
        largest value, 1 - the standard deviation of the probabilities over its largest value (Table 1), or 1 for
        every unlabeled sample, which is VAAL's.
    relabel : bool
        Relabel the states; without it (section 4.4) the indicator is "binary".
    stl : bool
        Learn from the labels; without it (section 4.4) D reads the UIR alone.
    """

    name: ClassVar[str] = "sraal"

    lambda_uir: float = 1.0
    lambda_stl: float = 1.0
    beta_stl: float = 1.0
    indicator: Indicator = "oui"
    relabel: bool = True
    stl: bool = True

    @property
    def needs(self) -> frozenset[str]:
        """Images; labels for the STL, probabilities for the indicators that read them."""
        wanted = {"inputs"}
        if self.stl:
            wanted.add("labels")
        if self.relabel and self.indicator != "binary":
            wanted.add("probabilities")
        return frozenset(wanted)

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        self._check_numbers("lambda_uir", "lambda_stl", "beta_stl", least=0)
        self._check_names(indicator=Indicator)
        self._check_switches("relabel", "stl")

    def build(self, shape: ImageShape, n_classes: int, task: str) -> nn.ModuleDict:
        """Return fresh networks."""
        networks = nn.ModuleDict(
            {
                "encoder": UnifiedEncoder(shape, self.width, self.latent, stl=self.stl),
                "decoder": Decoder(shape, self.width, self.latent),
                "discriminator": Discriminator((1 + self.stl) * self.latent),
            }
        )
        if self.stl and task == "segmentation":
            networks["stl"] = Decoder(shape._replace(channels=n_classes), self.width, self.latent)
        elif self.stl:
            networks["stl"] = MLP(self.latent, n_classes)
        return networks

    @property
    def scorers(self) -> tuple[str, ...]:
        """Which of the networks score."""
        return ("encoder", "discriminator")

    def players(self, networks: nn.ModuleDict, cycle: Cycle) -> list[Player]:
        """Return the generator (encoder and decoders) and the discriminator."""
        generator = [network for name, network in networks.items() if name != "discriminator"]
        annotations = Annotations(cycle) if self.stl else None
        indicator = self._indicator(cycle)
        return [
            Player(
                "generator",
                generator,
                self.lr_vae,
                "lr_vae",
                self._generator_losses(networks, annotations),
                turns=self.vae_steps,
            ),
            Player(
                "discriminator",
                [networks["discriminator"]],
                self.lr_d,
                "lr_d",
                self._discriminator_losses(networks, indicator),
            ),
        ]

    def _indicator(self, cycle: Cycle) -> Tensor:
        """Return how uncertain the learner is of each unlabeled sample, on the device."""
        if "probabilities" not in self.needs:
            return torch.ones(len(cycle.pool.unlabeled), device=cycle.device)
        values = indicator_of(cycle.rows("probabilities"), INDICATORS[self.indicator])
        cycle.log("indicator", float(values.mean()))
        return values.to(cycle.device)

    def _generator_losses(self, networks: nn.ModuleDict, annotations: Annotations | None) -> Callable[[Batch], Losses]:
        def losses(batch: Batch) -> Losses:
            n_labeled, posteriors = batch.n_labeled, networks["encoder"](batch.images)
            mu, logvar = posteriors[0]
            reconstruction, kl = self._elbo(batch, networks["decoder"](sample_latents(mu, logvar)), mu, logvar)
            latents = unified(posteriors)
            adversarial = adversarial_loss(networks["discriminator"](latents), n_labeled)
            total = self.lambda_uir * (reconstruction + self.beta * kl) + self.lambda_adv * adversarial
            logged = {"reconstruction": reconstruction, "kl": kl, "adversarial": adversarial}
            if annotations is not None:
                mu, logvar = (values[:n_labeled] for values in posteriors[1])
                predicted = networks["stl"](sample_latents(mu, logvar))
                logged["stl"] = task_loss(predicted, annotations[batch.labeled])
                divergence = kl_divergence(mu, logvar)
                logged["stl_kl"] = divergence.mean() if self.kl_reduction == "mean" else divergence.sum()
                total = total + self.lambda_stl * (logged["stl"] + self.beta_stl * logged["stl_kl"])
            return Losses(total, logged, means=latents)

        return losses

    def _discriminator_losses(self, networks: nn.ModuleDict, indicator: Tensor) -> Callable[[Batch], Losses]:
        def losses(batch: Batch) -> Losses:
            with torch.no_grad():
                latents = unified(networks["encoder"](batch.images))
            logits = networks["discriminator"](latents)
            loss = discriminator_loss(logits, batch.n_labeled, indicator[batch.unlabeled])
            return Losses(loss, {"discriminator": loss, **told_apart(logits, batch.n_labeled)})

        return losses

    def scorer(self, networks: nn.ModuleDict, cycle: Cycle) -> Callable[[Tensor], Tensor]:
        """Return minus D's logit."""
        return lambda images: -networks["discriminator"](unified(networks["encoder"](images)))


@dataclass(kw_only=True, eq=False)
class SRAALInit(RepresentationLearner):
    """The initial pool of SRAAL: k-center in a latent space.

    A variational autoencoder (the UIR) is trained on all images, without labels. A few samples are drawn at random;
    from there on, greedy k-center on the posterior means (Euclidean) takes the sample that is farthest from all taken
    so far. For ``[initial] strategy``; where something is labeled already, that is what it starts from, and nothing is
    drawn.

    Source: Zhang, Li, Yang, Wang, Zha and Huang, *State-Relabeling Adversarial Active Learning*, CVPR 2020,
    Algorithm 1 and section 3.5. Further parameters are those of
    :class:`~poolwright_plugins.nn.strategy.RepresentationLearner`.

    Logged by epoch: ``reconstruction``, ``kl`` and ``active_units``; and ``radius``, how far the farthest
    sample is from those taken, before each pick.

    Parameters
    ----------
    start : int, optional
        How many samples are drawn at random (I, which the paper leaves open beyond I << M); a hundredth of the size
        of the initial pool by default, and at least one.
    """

    name: ClassVar[str] = "sraal-init"
    needs = frozenset({"inputs"})

    start: int | None = None

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        if self.start is not None:
            self._check_integers(start=1)

    @hookimpl
    def select(self, cycle: Cycle, budget: int) -> Tensor:
        """Return ``budget`` ids: those drawn, then the farthest first.

        Raises
        ------
        ConfigError
            A parameter cannot be used, or the samples are no images.
        PluginError
            The loss became NaN or infinite.
        """
        self.check_parameters()
        unlabeled = cycle.pool.unlabeled
        budget = min(budget, len(unlabeled))
        if budget in (0, len(unlabeled)):
            return unlabeled[:budget]
        centers = torch.cat([cycle.pool.labeled, cycle.pool.asked])
        drawn = self._drawn(cycle, budget, len(unlabeled)) if not len(centers) else unlabeled[:0]
        latents = Rows(self._latents(cycle, torch.cat([centers, unlabeled])))
        offset = len(centers)
        with data_errors(self.name):
            found = kernels.k_center(
                latents,
                budget - len(drawn),
                labeled=torch.cat([torch.arange(offset), drawn]),
                memory_limit=latents.memory_limit,
            )
        for radius in found.radii.tolist():
            cycle.log("radius", radius)
        return unlabeled[torch.cat([drawn, found.indices.cpu() - offset])]

    def _drawn(self, cycle: Cycle, budget: int, n: int) -> Tensor:
        """Return the positions of the first, random picks."""
        start = max(1, budget // 100) if self.start is None else self.start
        if start > budget:
            raise ConfigError(f"{self.name}: start = {start}, but only {budget} samples are to be chosen: lower it")
        return torch.randperm(n, generator=cycle.generator)[:start]

    def _latents(self, cycle: Cycle, ids: Tensor) -> Tensor:
        """Return the posterior means of ``ids``, float32 ``(n, latent)``, from a VAE trained on the whole pool."""
        shape = image_shape(cycle, self.name)
        encoder, decoder = Encoder(shape, self.width, self.latent), Decoder(shape, self.width, self.latent)
        for network in (encoder, decoder):
            network.to(cycle.device).to(memory_format=torch.channels_last)

        def losses(batch: Batch) -> Losses:
            mu, logvar = encoder(batch.images)
            reconstruction, kl = self._elbo(batch, decoder(sample_latents(mu, logvar)), mu, logvar)
            return Losses(reconstruction + self.beta * kl, {"reconstruction": reconstruction, "kl": kl}, means=mu)

        batches = PoolBatches(cycle, cycle.pool.labeled, cycle.pool.all_unlabeled, self.batch_size)
        self._train([Player("VAE", [encoder, decoder], self.lr_vae, "lr_vae", losses)], batches, cycle)
        with torch.no_grad(), exact_convolutions():
            return torch.cat([encoder(images)[0] for images in cycle.inputs(ids, 2 * self.batch_size)])
