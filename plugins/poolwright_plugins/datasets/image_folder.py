"""Your own pictures, in one folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from poolwright import DatasetError

from .class_folders import ClassFolders
from .folders import first_folder, read_classes, subfolders
from .image_files import form_of
from .options import check_switches, path_of
from .pixels import statistics_of

VALIDATION_FOLDERS = ("val", "valid", "validation")


class ImageFolder(ClassFolders):
    """Pictures in one folder a class, as torchvision's ``ImageFolder`` reads them.

    Either parts, ``ROOT/train/CLASS/*.jpg`` and ``ROOT/test/CLASS/*.jpg``; a third one, ``val``, is validation data,
    and takes the place of ``test`` where there is none. Or class folders alone, ``ROOT/CLASS/*.jpg`` (or in
    ``ROOT/train``): then a share of each class, always the same, becomes the test data.

    Classes are the folders of the pool, sorted by name; files end in .jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff
    or .webp, and are sorted too, so that ids are the same on every machine. Rotations noted in EXIF data are not
    applied; transparency is dropped. Nothing is written.

    Parameters
    ----------
    root : str
        The folder.
    size : int, list of int or "original"
        Side of a square, or height and width, to which every picture is scaled (bilinear, without keeping its
        proportions); ``"original"``: as they are, and all must have one size.
    channels : int
        3 (RGB) or 1 (gray).
    test : float
        Share of each class that becomes test data where there is no such folder; above 0 and below 1.
    mean, std : list of float or "auto"
        What pixels in [0, 1] are scaled by, one number a channel; ``"auto"``: mean and standard deviation of the
        pool's pictures (of 2,048 of them where there are more).
    flip : bool
        Whether the augmentation mirrors; false for writing and other things that have a left and a right.
    memory : float
        GiB: pictures that take at most this in all are decoded once, when the data are loaded, and kept; others are
        decoded each time they are asked for.
    """

    title = "image-folder"

    def __init__(
        self,
        *,
        root: str,
        size: int | Sequence[int] | str = "original",
        channels: int = 3,
        test: float = 0.2,
        mean: str | Sequence[float] = "auto",
        std: str | Sequence[float] = "auto",
        flip: bool = True,
        memory: float = 2.0,
    ) -> None:
        self.root = root
        self.size = size
        self.channels = channels
        self.test_share = test
        self.mean = mean
        self.std = std
        self.flip = flip
        self.memory = memory

    def load(self) -> None:
        """List the files, and decode them where they fit into memory.

        Raises
        ------
        DatasetError
            The folder is not as described, or a picture is damaged or of another size.
        ConfigError
            An option has no sense.
        """
        check_switches(self.title, flip=self.flip)
        root = path_of(self.root, self.title)
        if not root.is_dir():
            raise DatasetError(
                f"{self.title}: there is no folder {root.absolute()}: set root to the folder that holds one folder "
                f"a class, or train and test with those"
            )
        # A folder `train` of pictures is a class: there are such things as trains.
        train = root / "train" if (root / "train").is_dir() and subfolders(root / "train", self.title) else root
        validation = first_folder([train.parent / name for name in VALIDATION_FOLDERS]) if train != root else None
        test = first_folder([root / "test"]) if train != root else None
        if test is None:
            test, validation = validation, None
        self.classes = tuple(subfolders(train, self.title))
        if len(self.classes) < 2:
            raise DatasetError(
                f"{self.title}: {train} holds {len(self.classes)} folders: it needs one for each of two or more classes"
            )
        if test is None:
            self._cut(train, self.test_share, size=self.size, channels=self.channels)
        else:
            self._read([train, test] if validation is None else [train, test, validation])
        self._means, self._deviations = statistics_of(self.mean, self.std, self.pool, self.channels, self.title)

    def _read(self, folders: Sequence[Path]) -> None:
        """Take pool, test data and perhaps validation data from a folder each."""
        parts = []
        for folder in folders:
            present = subfolders(folder, self.title)
            unknown = sorted(set(present) - set(self.classes))
            if unknown or not present:
                problem = f"holds classes that {folders[0]} does not: {', '.join(unknown)}" if unknown else "is empty"
                raise DatasetError(f"{self.title}: {folder} {problem}")
            paths, labels = read_classes(folder, present, self.title)
            # Test data may lack a class.
            parts.append((paths, torch.tensor([self.classes.index(name) for name in present])[labels]))
        form = form_of(parts[0][0][0], self.size, self.channels, self.title)
        self.pool, self.test, *rest = self._splits(parts, form)
        self.validation = rest[0] if rest else None

    def _scale(self) -> tuple[Sequence[float], Sequence[float]]:
        return self._means, self._deviations
