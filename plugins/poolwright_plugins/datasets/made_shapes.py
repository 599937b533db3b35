"""Generated scenes for segmentation: nothing to download, any size."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from poolwright import ConfigError, Dataset, TensorSplit, streams

SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": lambda u, v: u**2 + v**2 <= 1,
    "square": lambda u, v: torch.maximum(u.abs(), v.abs()) <= 0.85,
    "triangle": lambda u, v: (v >= -0.5) & (v <= 1 - math.sqrt(3) * u.abs()),
    "cross": lambda u, v: (torch.minimum(u.abs(), v.abs()) <= 0.33) & (torch.maximum(u.abs(), v.abs()) <= 1),
    "ring": lambda u, v: (u**2 + v**2 <= 1) & (u**2 + v**2 >= 0.35),
    "bar": lambda u, v: (u.abs() <= 1) & (v.abs() <= 0.3),
    "moon": lambda u, v: (u**2 + v**2 <= 1) & ((u - 0.5) ** 2 + v**2 >= 0.6),
}
"""Which points ``(u, v)`` lie in a shape of radius 1 around the origin; frequent ones first."""

MOST_SHAPES = 6
"""In the most cluttered scene; the plainest has one."""


class MadeShapes(Dataset):
    """Scenes of colored shapes on textured ground, with the class of every pixel: a demonstration of segmentation.

    Each scene has a clutter between 0 and 1, drawn evenly. A plain scene holds one large shape in the color of its
    class on quiet ground; with the clutter come more, smaller and overlapping shapes, paler and in colors that say
    less of their class, and a coarser, noisier ground. Classes are unequally frequent (``rare``). So some scenes teach
    more than others, which is what active learning is for. Outlines, one pixel wide, are to be ignored
    (``ignore_index``), as annotators leave them out.

    The images are uint8 ``(n, 3, size, size)``, prepared to mean 0 and standard deviation about 1; masks are uint8
    ``(n, size, size)``. Class 0 is the ground. Everything depends on the parameters alone, and the first scenes are
    the same for any ``n``.

    Parameters
    ----------
    n : int
        Scenes to choose from.
    n_test : int
        Scenes of the test data.
    size : int
        Height and width in pixels, at least 16.
    n_classes : int
        2 to 8: the ground, and circle, square, triangle, cross, ring, bar, moon as far as they go.
    rare : float
        How often the last class is drawn, over the first shape's frequency; in between it falls exponentially.
        Above 0, at most 1.
    seed : int
        Of the scenes; a run has its own.
    """

    task = "segmentation"
    pool: TensorSplit
    test: TensorSplit

    def __init__(
        self, *, n: int = 400, n_test: int = 100, size: int = 64, n_classes: int = 5, rare: float = 0.2, seed: int = 0
    ) -> None:
        self.n = n
        self.n_test = n_test
        self.size = size
        self.n_classes = n_classes
        self.rare = rare
        self.seed = seed

    def load(self) -> None:
        """Make the scenes.

        Raises
        ------
        ConfigError
            A parameter is out of its range.
        """
        for name, least, most in (("n", 1, None), ("n_test", 1, None), ("size", 16, None), ("n_classes", 2, 8)):
            value = getattr(self, name)
            integer = isinstance(value, int) and not isinstance(value, bool)
            if not integer or value < least or (most is not None and value > most):
                limits = f"at least {least}" if most is None else f"from {least} to {most}"
                raise ConfigError(f"data set made-shapes: {name} must be an integer {limits}, not {value!r}")
        if isinstance(self.rare, bool) or not isinstance(self.rare, (int, float)) or not 0 < self.rare <= 1:
            raise ConfigError(f"data set made-shapes: rare must be above 0 and at most 1, not {self.rare!r}")
        self.classes = ("ground", *SHAPES)[: self.n_classes]
        self.pool, self.test = self._split("pool", self.n), self._split("test", self.n_test)

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return float images ``(n, 3, size, size)`` around 0."""
        return inputs.float() / 40 - 2.8

    def augment_pair(self, inputs: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return images and masks, each pair mirrored or not, left to right and upside down."""
        for axis in (1, 2):
            flip = (torch.rand(len(inputs), generator=generator) < 0.5).to(inputs.device)
            inputs = torch.where(flip[:, None, None, None], inputs.flip(axis + 1), inputs)
            masks = torch.where(flip[:, None, None], masks.flip(axis), masks)
        return inputs, masks

    def _split(self, part: str, n: int) -> TensorSplit:
        generator = streams.generator(self.seed, "made-shapes", part)
        images = torch.empty(n, 3, self.size, self.size, dtype=torch.uint8)
        masks = torch.empty(n, self.size, self.size, dtype=torch.uint8)
        for image, mask in zip(images, masks, strict=True):
            colors, labels = _scene(self.size, self.n_classes, self.rare, generator)
            image.copy_((255 * colors.clamp(0, 1)).round())
            mask.copy_(without_outlines(labels, self.ignore_index))
        return TensorSplit(images, masks)


def without_outlines(labels: Tensor, ignore_index: int) -> Tensor:
    """Return a mask ``(height, width)`` in which every pixel that differs from the next one is ignored."""
    outline = torch.zeros_like(labels, dtype=torch.bool)
    outline[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    outline[:-1] |= labels[:-1] != labels[1:]
    return torch.where(outline, ignore_index, labels)


def _scene(size: int, n_classes: int, rare: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return colors ``(3, size, size)`` in about [0, 1] and classes, int64 ``(size, size)``."""

    def draw(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    clutter = draw()
    axis = torch.linspace(-1, 1, size)
    y, x = axis[:, None].expand(size, size), axis[None].expand(size, size)
    labels = torch.zeros(size, size, dtype=torch.int64)
    colors = _color(draw(), 0.25, draw(0.35, 0.65))[:, None, None] + _texture(x, y, clutter, draw)
    frequency = torch.tensor([rare ** (k / max(1, n_classes - 2)) for k in range(n_classes - 1)])
    for _ in range(1 + round(clutter * (MOST_SHAPES - 1))):
        label = 1 + int(torch.multinomial(frequency, 1, generator=generator))
        radius = draw(0.25, 0.5) * (1 - 0.4 * clutter)
        angle, center_x, center_y = draw(0, 2 * math.pi), draw(-0.7, 0.7), draw(-0.7, 0.7)
        dx, dy = (x - center_x) / radius, (y - center_y) / radius
        u = dx * math.cos(angle) + dy * math.sin(angle)
        v = dy * math.cos(angle) - dx * math.sin(angle)
        inside = list(SHAPES.values())[label - 1](u, v)
        hue = (label - 1) / (n_classes - 1) + clutter * draw(-0.15, 0.15)
        color = _color(hue, 0.9 - 0.5 * clutter, draw(0.5, 0.95))
        colors = torch.where(inside, color[:, None, None] + 0.5 * _texture(x, y, clutter, draw), colors)
        labels = torch.where(inside, label, labels)
    noise = 0.02 + 0.08 * clutter
    return colors + noise * torch.randn(colors.shape, generator=generator), labels


def _texture(x: Tensor, y: Tensor, clutter: float, draw: Callable[..., float]) -> Tensor:
    """Return a wave of light and dark across the scene, stronger and coarser with the clutter."""
    angle, length = draw(0, math.pi), draw(0.15, 0.3 + 0.5 * clutter)
    phase = (x * math.cos(angle) + y * math.sin(angle)) / length + draw()
    return (0.03 + 0.12 * clutter) * torch.sin(2 * math.pi * phase)


def _color(hue: float, saturation: float, value: float) -> Tensor:
    """Return red, green and blue of a color (Smith, *Color Gamut Transform Pairs*, SIGGRAPH 1978), ``(3,)``."""
    ramps = ((6 * hue + torch.tensor([0.0, 4.0, 2.0])) % 6 - 3).abs() - 1
    return value * (1 - saturation + saturation * ramps.clamp(0, 1))
