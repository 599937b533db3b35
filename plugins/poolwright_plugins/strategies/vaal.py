"""VAAL: select what a discriminator, playing against a variational autoencoder, takes for unlabeled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from poolwright import Cycle

from ..nn.images import Batch
from ..nn.losses import (
    adversarial_loss,
    discriminator_loss,
    gaussian_wasserstein,
    sample_latents,
    told_apart,
)
from ..nn.networks import Decoder, Discriminator, Encoder, ImageDiscriminator, ImageShape
from ..nn.strategy import AdversarialStrategy
from ..nn.training import Losses, Player

Ablation = Literal["none", "no-vae", "frozen-vae", "no-discriminator"]


@dataclass(kw_only=True, eq=False)
class VAAL(AdversarialStrategy):
    """Variational adversarial active learning.

    A beta-VAE learns a latent space of labeled and unlabeled images (eq. 1) while a discriminator D tells the two
    apart by the posterior mean (eq. 3) and the encoder tries to make all look labeled (eq. 2). The batch are the
    samples that D is surest are unlabeled. Labels are never read: only which samples have one.

    Source: Sinha, Ebrahimi and Darrell, *Variational Adversarial Active Learning*, ICCV 2019; the widths, the epoch
    and the weights' initial values are those of the authors' code.

    Notes
    -----
    Where this differs from the paper: eq. 1 prints the evidence lower bound, whose negative is minimised. D reads
    the posterior mean (not a draw), and its logit ranks the samples, since 1 - sigmoid is 0 in float32 beyond 17.
    The task learner of Algorithm 1 is trained by the engine, apart. Labeled and unlabeled images go through the
    networks in one batch, so that batch norm treats them alike in training, as it does in scoring.

    The defaults are the paper's, for a GPU. On one CPU core ``width = 16, epochs = 50, reconstruction = "sum",
    beta = 0.1`` trains a cycle of ``digits`` in about 15 seconds, and ``width = 8, epochs = 5, reconstruction = "sum",
    lr_vae = 2e-3, lr_d = 2e-3`` one of 5,000 images of Fashion-MNIST in about 20; ``poolwright check vaal`` wants
    ``--set width=4 --set epochs=2`` there.

    Settings of the paper: Caltech-256 and ImageNet ``latent = 64, lambda_adv = 10`` (ImageNet with
    ``lr_vae = 0.1, lr_d = 1e-3``); segmentation ``latent = 128, lambda_adv = 25, batch_size = 8, lr_vae = 1e-3,
    lr_d = 1e-3``. Further parameters are those of
    :class:`~poolwright_plugins.nn.strategy.AdversarialStrategy` and
    :class:`~poolwright_plugins.nn.strategy.RepresentationLearner`.

    Logged by epoch: ``reconstruction``, ``kl`` and ``adversarial`` (each on L plus on U), ``discriminator``, D's
    ``accuracy`` (mean of both pools) and ``auc``, and ``active_units``, the latent dimensions whose posterior mean
    has a variance above 0.01 within a batch.

    Parameters
    ----------
    lambda_vae : float
        Weight of the autoencoder's own loss (lambda_1 of eq. 4).
    ablation : {"none", "no-vae", "frozen-vae", "no-discriminator"}
        The paper's section 5.4. "no-vae": D reads images, through convolutions like the encoder's. "frozen-vae":
        the autoencoder keeps its first weights and only D is trained. "no-discriminator": only the autoencoder is
        trained, and the score is the 2-Wasserstein distance of a sample's posterior to the Gaussian with mean and
        variance of all labeled posteriors together.
    """

    name: ClassVar[str] = "vaal"
    needs = frozenset({"inputs"})

    lambda_vae: float = 1.0
    ablation: Ablation = "none"

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        self._check_numbers("lambda_vae", least=0)
        self._check_names(ablation=Ablation)

    def build(self, shape: ImageShape, n_classes: int, task: str) -> nn.ModuleDict:
        """Return fresh networks: those that the ablation leaves."""
        if self.ablation == "no-vae":
            return nn.ModuleDict({"discriminator": ImageDiscriminator(shape, self.width)})
        networks = nn.ModuleDict({"encoder": Encoder(shape, self.width, self.latent)})
        if self.ablation != "frozen-vae":
            networks["decoder"] = Decoder(shape, self.width, self.latent)
        if self.ablation != "no-discriminator":
            networks["discriminator"] = Discriminator(self.latent)
        return networks

    @property
    def scorers(self) -> tuple[str, ...]:
        """Which of the networks score."""
        return ("encoder", "discriminator")

    def players(self, networks: nn.ModuleDict, cycle: Cycle) -> list[Player]:
        """Return the autoencoder and the discriminator, as far as the ablation trains them."""
        players = []
        if self.ablation in ("none", "no-discriminator"):
            trained = [networks["encoder"], networks["decoder"]]
            losses = self._vae_losses(networks)
            players.append(Player("VAE", trained, self.lr_vae, "lr_vae", losses, turns=self.vae_steps))
        if self.ablation != "no-discriminator":
            losses = self._discriminator_losses(networks)
            players.append(Player("discriminator", [networks["discriminator"]], self.lr_d, "lr_d", losses))
        return players

    def _vae_losses(self, networks: nn.ModuleDict) -> Callable[[Batch], Losses]:
        def losses(batch: Batch) -> Losses:
            mu, logvar = networks["encoder"](batch.images)
            reconstructed = networks["decoder"](sample_latents(mu, logvar))
            reconstruction, kl = self._elbo(batch, reconstructed, mu, logvar)
            total = self.lambda_vae * (reconstruction + self.beta * kl)
            logged = {"reconstruction": reconstruction, "kl": kl}
            if "discriminator" in networks:
                logged["adversarial"] = adversarial_loss(networks["discriminator"](mu), batch.n_labeled)
                total = total + self.lambda_adv * logged["adversarial"]
            return Losses(total, logged, means=mu)

        return losses

    def _discriminator_losses(self, networks: nn.ModuleDict) -> Callable[[Batch], Losses]:
        def losses(batch: Batch) -> Losses:
            logits = networks["discriminator"](_read(networks, batch.images))
            loss = discriminator_loss(logits, batch.n_labeled)
            return Losses(loss, {"discriminator": loss, **told_apart(logits, batch.n_labeled)})

        return losses

    def scorer(self, networks: nn.ModuleDict, cycle: Cycle) -> Callable[[Tensor], Tensor]:
        """Return minus D's logit, or the Wasserstein distance to the labeled data where there is no D."""
        if self.ablation != "no-discriminator":
            return lambda images: -networks["discriminator"](_read(networks, images))
        posteriors = [networks["encoder"](x) for x in cycle.inputs(cycle.pool.labeled, 2 * self.batch_size)]
        mu, variance = torch.cat([mu for mu, _ in posteriors]), torch.cat([v.exp() for _, v in posteriors])
        center, spread = mu.mean(0), variance.mean(0) + mu.var(0, correction=0)

        def distances(images: Tensor) -> Tensor:
            mu, logvar = networks["encoder"](images)
            return gaussian_wasserstein(mu, logvar.exp(), center, spread)

        return distances


def _read(networks: nn.ModuleDict, images: Tensor) -> Tensor:
    """Return what D reads: posterior means, or the images where there is no encoder; without gradients."""
    if "encoder" not in networks:
        return images
    with torch.no_grad():
        mu: Tensor = networks["encoder"](images)[0]
    return mu
