"""ImageNet: a million photographs of a thousand things."""

from __future__ import annotations

from poolwright import DatasetError

from .class_folders import ClassFolders
from .folders import read_classes, subfolders
from .image_files import form_of
from .options import path_of


class ImageNet(ClassFolders):
    """1.28 million photographs of 1,000 classes to choose from; 50,000 for tests, the official validation data.

    Read from torchvision's layout, ``ROOT/train/n01440764/*.JPEG`` and ``ROOT/val/n01440764/*.JPEG``. A class is known
    by its WordNet number, the name of its folder. The shorter side is scaled to 8/7 of ``size`` (256 for 224) and the
    middle cut out; prepared to torchvision's mean and deviation, those of its pretrained weights. The augmentation
    shifts by up to an eighth and mirrors.

    Nothing is downloaded: get ``ILSVRC2012_img_train.tar`` and ``ILSVRC2012_img_val.tar`` (and the development kit)
    at https://image-net.org after registering, put them into ROOT, and unpack them with
    ``torchvision.datasets.ImageNet(ROOT, "train")`` and ``torchvision.datasets.ImageNet(ROOT, "val")``.

    Source: Russakovsky et al., *ImageNet Large Scale Visual Recognition Challenge*, IJCV 2015.

    Parameters
    ----------
    root : str
        The folder that holds ``train`` and ``val``.
    size : int
        Side of the pictures in pixels.
    memory : float
        GiB: pictures that take at most this in all are decoded once, when the data are loaded, and kept; others (the
        whole ImageNet: 187 GiB) are decoded each time they are asked for.
    """

    title = "imagenet"

    def __init__(self, *, root: str = "data/imagenet", size: int = 224, memory: float = 2.0) -> None:
        self.root = root
        self.size = size
        self.memory = memory

    def load(self) -> None:
        """List the files.

        Raises
        ------
        DatasetError
            The folders are not there, or their classes differ.
        """
        root = path_of(self.root, self.title)
        train, val = root / "train", root / "val"
        missing = [str(folder.absolute()) for folder in (train, val) if not folder.is_dir()]
        if missing:
            raise DatasetError(
                f"{self.title}: there is no folder {' and no '.join(missing)}: get the archives at "
                f"https://image-net.org, unpack them with torchvision.datasets.ImageNet into train/WNID and val/WNID, "
                f"and set root to the folder that holds both"
            )
        self.classes = tuple(subfolders(train, self.title))
        differing = sorted(set(self.classes) ^ set(subfolders(val, self.title)))
        if differing:
            raise DatasetError(
                f"{self.title}: {len(differing)} classes are in one of {train} and {val} only, such as "
                f"{differing[0]}: unpack both archives whole, the second one sorted into class folders"
            )
        parts = [read_classes(folder, self.classes, self.title) for folder in (train, val)]
        form = form_of(parts[0][0][0], self.size, 3, self.title, fit="crop")
        self.pool, self.test = self._splits(parts, form)
