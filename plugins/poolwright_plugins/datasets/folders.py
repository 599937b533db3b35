"""Folders of pictures: what lies in them, always in the same order."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from poolwright import DatasetError

from .image_files import SUFFIXES

log = logging.getLogger(__name__)


def subfolders(folder: Path, title: str) -> list[str]:
    """Return the names of the folders in ``folder``, sorted; without hidden ones.

    Raises
    ------
    DatasetError
        The folder cannot be read.
    """
    return [entry.name for entry in _entries(folder, title) if entry.is_dir()]


def files_in(folder: Path, title: str, *, suffixes: Collection[str] = SUFFIXES) -> list[str]:
    """Return the names of the files with one of the ``suffixes`` (in small letters), sorted.

    Others are passed over with a warning that names the first; hidden ones in silence.

    Raises
    ------
    DatasetError
        The folder cannot be read, or holds no such file.
    """
    found: list[str] = []
    others: list[str] = []
    for entry in _entries(folder, title):
        known = os.path.splitext(entry.name)[1].lower() in suffixes and not entry.is_dir()
        (found if known else others).append(entry.name)
    if not found:
        raise DatasetError(
            f"{title}: there is no picture in {folder}: put files that end in {', '.join(suffixes)} there, "
            f"or remove the folder"
        )
    if others:
        log.warning(
            "%s: passed over in %s: %d entries that are no pictures (%s), the first is %s",
            title, folder, len(others), ", ".join(suffixes), others[0],
        )  # fmt: skip
    return found


def _entries(folder: Path, title: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(f"{title}: the folder {folder} cannot be read: {error.strerror}") from error


def read_classes(folder: Path, classes: Sequence[str], title: str) -> tuple[list[str], Tensor]:
    """Return the pictures in the folders named in ``classes``, class by class, and their labels.

    Returns
    -------
    paths : list of str
    labels : Tensor
        int64, positions in ``classes``.

    Raises
    ------
    DatasetError
        A folder cannot be read or holds no pictures.
    """
    paths: list[str] = []
    counts = []
    for name in classes:
        files = files_in(folder / name, title)
        paths.extend(os.path.join(folder, name, file) for file in files)
        counts.append(len(files))
    return paths, torch.repeat_interleave(torch.tensor(counts, dtype=torch.int64))


def first_folder(candidates: Sequence[Path]) -> Path | None:
    """Return the first of the ``candidates`` that is a folder."""
    return next((folder for folder in candidates if folder.is_dir()), None)
