"""BDD100K's segmentation set: streets in all weathers, seen from cars."""

from __future__ import annotations

from pathlib import Path, PurePath

from poolwright import DatasetError

from .cityscapes import benchmark_classes
from .mask_files import MaskValues
from .options import path_of
from .segmentation_files import IGNORE_INDEX, SegmentationFiles, paired

LAYOUTS = (
    ("images/10k", "labels/sem_seg/masks"),
    ("seg/images", "seg/labels"),
    ("images", "labels"),
)
"""Folders of pictures and masks below root, each with train and val: as published in 2020, in 2018, and plain."""


class BDD100K(SegmentationFiles):
    """Pictures of streets with masks of 19 classes, Cityscapes': 7,000 to choose from, 1,000 (``val``) for tests.

    Read from one of three layouts below ROOT or ``ROOT/bdd100k``, the first that is there:

    - ``images/10k/{train,val}/*.jpg`` and ``labels/sem_seg/masks/{train,val}/*.png``, the archives ``10k Images`` and
      ``Segmentation`` as they have been published since 2020;
    - ``seg/images/{train,val}/*.jpg`` and ``seg/labels/{train,val}/*_train_id.png``, those of 2018;
    - ``images/{train,val}/*.jpg`` and ``labels/{train,val}/*.png``.

    Masks hold the classes 0 to 18, and 255 where a pixel is ignored. Pictures of 720 x 1,280 pixels are scaled to
    ``size`` on both axes without keeping the proportions, masks to the nearest pixel. (VAAL, Sinha et al., ICCV 2019,
    names 688 x 688 and does not say whether it is scaled or cut out.) Prepared to ImageNet's mean and deviation; the
    augmentation mirrors picture and mask and enlarges a part of both by up to 1.5. The official ``test`` part has no
    public masks and is not read.

    Nothing is downloaded: register at https://www.vis.xyz/bdd100k, get both archives and unpack them in ROOT.

    Source: Yu et al., *BDD100K: A Diverse Driving Dataset for Heterogeneous Multitask Learning*, CVPR 2020.

    Parameters
    ----------
    root : str
        The folder that holds ``images`` and ``labels``, or ``seg``, or ``bdd100k``.
    size : int, list of int or "original"
        Side of a square, or height and width; ``"original"``: as they are.
    memory : float
        GiB: pictures and masks that take at most this in all (14.1 of 688 x 688) are decoded once, when the data are
        loaded, and kept; others are decoded each time they are asked for.
    """

    title = "bdd100k"

    def __init__(self, *, root: str = "data/bdd100k", size: int | list[int] | str = 688, memory: float = 2.0) -> None:
        self.root = root
        self.size = size
        self.memory = memory

    def load(self) -> None:
        """List the files, and decode them where they fit into memory.

        Raises
        ------
        DatasetError
            Folders or masks are missing, or a file is damaged.
        ConfigError
            An option has no sense.
        """
        images, masks = self._layout()
        parts = [
            paired(images / part, masks / part, self.title, mask_name=mask_names) for part in ("train", "val")
        ]  # fmt: skip
        self.classes, classes, _ = benchmark_classes()
        numbers = {c: c for c in classes.values()}
        self._read(parts, MaskValues(numbers, [IGNORE_INDEX], IGNORE_INDEX), size=self.size)

    def _layout(self) -> tuple[Path, Path]:
        root = path_of(self.root, self.title)
        for base in (root, root / "bdd100k"):
            for images, masks in LAYOUTS:
                if (base / images / "train").is_dir() and (base / masks / "train").is_dir():
                    return base / images, base / masks
        tried = " nor ".join(f"{images}/train with {masks}/train" for images, masks in LAYOUTS)
        raise DatasetError(
            f"{self.title}: there is neither {tried} in {root.absolute()} (nor in its folder bdd100k): get the "
            f"archives '10k Images' and 'Segmentation' at https://www.vis.xyz/bdd100k, unpack both in one folder, and "
            f"set root to it"
        )


def mask_names(name: str) -> tuple[str, ...]:
    """Return the names that a picture's mask may have."""
    stem = PurePath(name).stem
    return f"{stem}.png", f"{stem}_train_id.png"
