"""Caltech-101 and Caltech-256: photographs of objects, of uneven sizes and numbers."""

from __future__ import annotations

import re
from pathlib import Path

from poolwright import DatasetError

from .class_folders import ClassFolders
from .downloading import fetched
from .folders import first_folder, subfolders
from .options import check_switches, path_of

BACKGROUND = "BACKGROUND_Google"
CLUTTER = "257.clutter"


class Caltech(ClassFolders):
    """What the two have in common."""

    homes: tuple[str, ...]
    """Where the class folders lie below root: torchvision's place first."""
    archive: str
    url: str

    root: str
    download: bool

    def _folder(self) -> Path:
        """Return the folder of the class folders, downloaded if wanted."""
        from torchvision import datasets

        root = path_of(self.root, self.title)
        candidates = [root / home for home in self.homes]
        folder = first_folder(candidates)
        if folder is None and self.download:
            fetched(lambda: getattr(datasets, self.archive)(str(root), download=True), self.title, self.root)
            folder = first_folder(candidates)
        if folder is None:
            raise DatasetError(
                f"{self.title}: there is no folder {' nor '.join(str(path.absolute()) for path in candidates)}: set "
                f"download = true, or unpack the archive of {self.url} there, or set root to where it lies"
            )
        return folder


class Caltech101(Caltech):
    """8,677 photographs of objects of 101 classes, 31 to 800 of each, and some of other things.

    Read from torchvision's layout, ``ROOT/caltech101/101_ObjectCategories/CLASS/*.jpg``, or the unpacked archive's
    (``ROOT/caltech-101/101_ObjectCategories``). Scaled to ``size`` on both axes without keeping the proportions, gray
    photographs turned to RGB; prepared to ImageNet's mean and deviation. The augmentation shifts by up to an eighth
    and mirrors. There is no official split: a share of each class, always the same, is the test data. (SRAAL, Zhang
    et al., CVPR 2020, scales to 220 x 220 and leaves its split open.)

    Source: Fei-Fei, Fergus and Perona, *Learning Generative Visual Models from Few Training Examples*, CVPR 2004
    workshops. Data: https://data.caltech.edu/records/mzrjq-6wc02.

    Parameters
    ----------
    root : str
        The folder that holds, or is to hold, ``caltech101``.
    size : int or list of int
        Side of a square, or height and width.
    test : float
        Share of each class that becomes test data; above 0 and below 1.
    background : bool
        Take in ``BACKGROUND_Google``, pictures of anything, as class 102.
    download : bool
        Let torchvision download the data where they are missing.
    memory : float
        GiB: pictures that take at most this in all (1.2 of 220 x 220) are decoded once, when the data are loaded, and
        kept; others are decoded each time they are asked for.
    """

    title = "caltech101"
    homes = ("caltech101/101_ObjectCategories", "caltech-101/101_ObjectCategories", "101_ObjectCategories")
    archive = "Caltech101"
    url = "https://data.caltech.edu/records/mzrjq-6wc02"

    def __init__(
        self,
        *,
        root: str = "data",
        size: int | list[int] = 220,
        test: float = 0.2,
        background: bool = False,
        download: bool = False,
        memory: float = 2.0,
    ) -> None:
        self.root = root
        self.size = size
        self.test_share = test
        self.background = background
        self.download = download
        self.memory = memory

    def load(self) -> None:
        """List the files, and decode them where they fit into memory.

        Raises
        ------
        DatasetError
            Files are missing or damaged, or cannot be downloaded.
        ConfigError
            An option has no sense.
        """
        check_switches(self.title, background=self.background)
        folder = self._folder()
        # Last, so that classes have the same numbers with and without it.
        objects = [name for name in subfolders(folder, self.title) if name != BACKGROUND]
        self.classes = (*objects, BACKGROUND) if self.background else tuple(objects)
        self._cut(folder, self.test_share, size=self.size)


class Caltech256(Caltech):
    """29,780 photographs of objects of 256 classes, 80 to 800 of each, and 827 of clutter.

    Read from torchvision's layout, ``ROOT/caltech256/256_ObjectCategories/001.ak47/*.jpg``. Scaled to ``size`` on both
    axes without keeping the proportions, gray photographs turned to RGB; prepared to ImageNet's mean and deviation.
    The augmentation shifts by up to an eighth and mirrors. There is no official split: a share of each class, always
    the same, is the test data. (VAAL, Sinha et al., ICCV 2019, names 224 x 224 and 2,560 pictures for tests.)

    Source: Griffin, Holub and Perona, *Caltech-256 Object Category Dataset*, Caltech 2007.
    Data: https://data.caltech.edu/records/nyy15-4j048.

    Parameters
    ----------
    root : str
        The folder that holds, or is to hold, ``caltech256``.
    size : int or list of int
        Side of a square, or height and width.
    test : float
        Share of each class that becomes test data; above 0 and below 1.
    clutter : bool
        Take in ``257.clutter``, pictures of anything, as class 257.
    download : bool
        Let torchvision download the data where they are missing.
    memory : float
        GiB: pictures that take at most this in all (4.2 of 224 x 224) are decoded once, when the data are loaded, and
        kept; others are decoded each time they are asked for.
    """

    title = "caltech256"
    homes = ("caltech256/256_ObjectCategories", "256_ObjectCategories")
    archive = "Caltech256"
    url = "https://data.caltech.edu/records/nyy15-4j048"

    def __init__(
        self,
        *,
        root: str = "data",
        size: int | list[int] = 224,
        test: float = 0.1,
        clutter: bool = False,
        download: bool = False,
        memory: float = 2.0,
    ) -> None:
        self.root = root
        self.size = size
        self.test_share = test
        self.clutter = clutter
        self.download = download
        self.memory = memory

    def load(self) -> None:
        """List the files, and decode them where they fit into memory.

        Raises
        ------
        DatasetError
            Files are missing or damaged, or cannot be downloaded.
        ConfigError
            An option has no sense.
        """
        check_switches(self.title, clutter=self.clutter)
        folder = self._folder()
        found = subfolders(folder, self.title)
        odd = [name for name in found if not re.fullmatch(r"\d{3}\..+", name)]
        if odd:
            raise DatasetError(
                f"{self.title}: {folder / odd[0]} is no class of it (001.ak47 to 257.clutter): move it elsewhere"
            )
        self.classes = tuple(name for name in found if self.clutter or name != CLUTTER)
        self._cut(folder, self.test_share, size=self.size)
