"""Encoders, decoders and discriminators: the papers' shapes, and any image size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from poolwright_plugins.nn.networks import (
    MLP,
    Decoder,
    Discriminator,
    Encoder,
    Frame,
    ImageDiscriminator,
    ImageShape,
    Trunk,
    image_stages,
)
from poolwright_plugins.strategies.vaal import VAAL

from .adversarial_parts import SMALL, cycle_with


@pytest.mark.parametrize(
    ("size", "stages"), [(8, 2), (16, 3), (28, 4), (32, 4), (64, 4), (96, 4), (220, 5), (224, 5), (688, 7)]
)
def test_the_number_of_stages_follows_from_the_image(size: int, stages: int) -> None:
    assert image_stages(size, size) == stages


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 64), (64, 8), (31, 33), (688, 8), (300, 500)])
def test_the_last_map_is_at_most_8_long_and_never_empty(height: int, width: int) -> None:
    frame = Frame.of(height, width)
    unit = 2 ** image_stages(height, width)

    assert min(frame.rows, frame.columns) >= 1
    assert max(frame.rows, frame.columns) <= 8
    left, right, above, below = frame.padding
    assert height + above + below == frame.rows * unit
    assert width + left + right == frame.columns * unit


def convolutions(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]


def test_at_32_pixels_the_networks_are_the_papers() -> None:
    shape = ImageShape(3, 32, 32)
    encoder, decoder = Encoder(shape, 128, 32), Decoder(shape, 128, 32)

    assert [layer.out_channels for layer in convolutions(encoder)] == [128, 256, 512, 1024]
    assert all(
        (layer.kernel_size, layer.stride, layer.bias) == ((4, 4), (2, 2), None) for layer in convolutions(encoder)
    )
    assert encoder.trunk.features == 4096
    assert decoder.start == (1024, 4, 4)
    assert [layer.out_channels for layer in convolutions(decoder)] == [512, 256, 128, 3]
    assert convolutions(decoder)[-1].kernel_size == (1, 1)
    layers = [layer for layer in Discriminator(32).modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(32, 512), (512, 512), (512, 1)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (64, 64), (220, 220), (224, 224), (5, 40), (33, 18)])
def test_any_image_size_is_encoded_decoded_and_trained(size: tuple[int, int], channels: int) -> None:
    shape = ImageShape(channels, *size)
    encoder, decoder = Encoder(shape, 2, 3), Decoder(shape, 2, 3)
    images = torch.rand(2, *shape)

    mu, logvar = encoder(images)
    reconstructed = decoder(mu)
    (reconstructed - images).square().mean().backward()

    assert mu.shape == logvar.shape == (2, 3)
    assert reconstructed.shape == images.shape
    assert all(bool((layer.weight.grad != 0).any()) for layer in [*convolutions(encoder), *convolutions(decoder)])


def test_the_padding_is_around_the_image_and_cut_off_again() -> None:
    shape = ImageShape(1, 28, 28)
    trunk, decoder = Trunk(shape, 2), Decoder(shape, 2, 3)

    assert trunk.frame.padding == (2, 2, 2, 2)
    whole = decoder.stages(decoder.expand(torch.ones(1, 3)).reshape(1, *decoder.start))
    torch.testing.assert_close(decoder(torch.ones(1, 3)), whole[..., 2:30, 2:30])


def test_a_decoder_can_give_a_map_for_each_class() -> None:
    assert Decoder(ImageShape(19, 24, 40), 2, 3)(torch.ones(2, 3)).shape == (2, 19, 24, 40)


def test_weights_start_from_kaimings_normal_distribution() -> None:
    torch.manual_seed(0)
    trunk = Trunk(ImageShape(3, 32, 32), 16)
    for layer in convolutions(trunk):
        fan_in = layer.in_channels * 16
        assert float(layer.weight.detach().std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
    expand = Decoder(ImageShape(3, 32, 32), 4, 50).expand
    assert float(expand.weight.detach().std()) == pytest.approx((2 / 50) ** 0.5, rel=0.1)
    mlp = MLP(64, 1)
    assert not any(layer.bias.any() for layer in mlp.layers if isinstance(layer, nn.Linear))


def test_variances_begin_near_1() -> None:
    torch.manual_seed(0)
    _, logvar = Encoder(ImageShape(1, 32, 32), 16, 8)(torch.randn(64, 1, 32, 32))

    assert float(logvar.detach().abs().max()) < 4


def test_a_discriminator_on_images_gives_one_logit_an_image() -> None:
    assert ImageDiscriminator(ImageShape(3, 20, 12), 2)(torch.rand(5, 3, 20, 12)).shape == (5,)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="the switches are those of torch 2.9")
@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_scores_are_convolved_in_float32_whatever_switch_the_user_chose(precision) -> None:
    convolutions = torch.backends.cudnn.conv
    cycle = cycle_with()
    strategy = VAAL(**SMALL)
    strategy.update(cycle)
    seen = []
    strategy._networks["encoder"].register_forward_hook(
        lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision)
    )
    before = convolutions.fp32_precision
    convolutions.fp32_precision = precision
    try:
        strategy.score(cycle)
        after = convolutions.fp32_precision
    finally:
        convolutions.fp32_precision = before

    assert set(seen) == {"ieee"}
    assert after == precision
