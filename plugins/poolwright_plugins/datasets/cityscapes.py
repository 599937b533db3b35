"""Cityscapes: streets of fifty cities, seen from a car."""

from __future__ import annotations

from pathlib import Path

from poolwright import DatasetError

from .folders import subfolders
from .mask_files import MaskValues
from .options import path_of
from .segmentation_files import IGNORE_INDEX, Pairs, SegmentationFiles, paired

IMAGE_END, MASK_END = "_leftImg8bit.png", "_gtFine_labelIds.png"


class Cityscapes(SegmentationFiles):
    """Pictures of streets with fine masks of 19 classes: 2,975 to choose from, 500 (the official ``val``) for tests.

    Read from the official layout, ``ROOT/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png`` and
    ``ROOT/gtFine/{train,val}/CITY/*_gtFine_labelIds.png``. The 34 ids become the 19 classes of the benchmark, all
    others are ignored (255). Pictures of 1,024 x 2,048 pixels are scaled to ``size`` on both axes without keeping the
    proportions, masks to the nearest pixel. (VAAL, Sinha et al., ICCV 2019, and SRAAL name 688 x 688 and do not say
    whether it is scaled or cut out.) Prepared to ImageNet's mean and deviation; the augmentation mirrors picture and
    mask and enlarges a part of both by up to 1.5. The official ``test`` part has no public masks and is not read. For
    VAAL's validation data of 300 pictures set ``validation = 300``.

    Nothing is downloaded: register at https://www.cityscapes-dataset.com, get ``leftImg8bit_trainvaltest.zip`` and
    ``gtFine_trainvaltest.zip``, and unpack both in ROOT.

    Source: Cordts et al., *The Cityscapes Dataset for Semantic Urban Scene Understanding*, CVPR 2016.

    Parameters
    ----------
    root : str
        The folder that holds ``leftImg8bit`` and ``gtFine``.
    size : int, list of int or "original"
        Side of a square, or height and width; ``"original"``: as they are.
    memory : float
        GiB: pictures and masks that take at most this in all (6.1 of 688 x 688) are decoded once, when the data are
        loaded, and kept; others are decoded each time they are asked for.
    """

    title = "cityscapes"

    def __init__(
        self, *, root: str = "data/cityscapes", size: int | list[int] | str = 688, memory: float = 2.0
    ) -> None:
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
        root = path_of(self.root, self.title)
        parts = [self._pairs(root, part) for part in ("train", "val")]
        self.classes, classes, ignored = benchmark_classes()
        self._read(parts, MaskValues(classes, ignored, IGNORE_INDEX), size=self.size)

    def _pairs(self, root: Path, part: str) -> Pairs:
        images, masks = root / "leftImg8bit" / part, root / "gtFine" / part
        missing = [str(folder.absolute()) for folder in (images, masks) if not folder.is_dir()]
        if missing:
            raise DatasetError(
                f"{self.title}: there is no folder {' and no '.join(missing)}: get leftImg8bit_trainvaltest.zip and "
                f"gtFine_trainvaltest.zip at https://www.cityscapes-dataset.com, unpack both in one folder, and set "
                f"root to it"
            )
        cities = [paired(images / city, masks / city, self.title, mask_name=mask_name) for city in self._cities(images)]
        return [path for pair in cities for path in pair[0]], [path for pair in cities for path in pair[1]]

    def _cities(self, folder: Path) -> list[str]:
        cities = subfolders(folder, self.title)
        if not cities:
            raise DatasetError(f"{self.title}: {folder} holds no folder of a city: unpack the archive again")
        return cities


def mask_name(name: str) -> tuple[str, ...]:
    """Return the name of a picture's mask."""
    return (name.removesuffix(IMAGE_END) + MASK_END,)


def benchmark_classes() -> tuple[tuple[str, ...], dict[int, int], list[int]]:
    """Return the names of the 19 classes, their official ids -> classes, and the ids that are ignored."""
    from torchvision.datasets import Cityscapes as Official

    known = [entry for entry in Official.classes if entry.id >= 0]
    classes = {entry.id: entry.train_id for entry in known if not entry.ignore_in_eval}
    names = {entry.train_id: entry.name for entry in known if not entry.ignore_in_eval}
    return tuple(names[c] for c in sorted(names)), classes, [entry.id for entry in known if entry.id not in classes]
