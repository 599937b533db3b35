"""Files that ``poolwright select`` reads and writes: matrices as .npy, ids as .npy, .txt or .csv."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import ConfigError, StoreError
from .store import write_atomically

IDS_SUFFIXES = (".csv", ".txt", ".npy")


def read_matrix(path: Path) -> np.ndarray[Any, Any]:
    """Return a matrix from a .npy file, mapped into memory: it may be larger. What is written stays in this process.

    Raises
    ------
    ConfigError
        It is missing, damaged, no .npy file, or not two-dimensional.
    """
    array = _read_npy(path, mmap_mode="c")
    if array.ndim != 2:
        raise ConfigError(f"{path} holds an array of shape {array.shape}: a matrix (n, d) is needed")
    return array


def read_vector(path: Path) -> np.ndarray[Any, Any]:
    """Return integers from a .npy file."""
    return _integers(_read_npy(path), path)


def read_ids(path: Path) -> np.ndarray[Any, Any]:
    """Return ids from a .npy, a .txt (one a line) or a .csv file (its column ``id``, else the first)."""
    if path.suffix == ".npy":
        return read_vector(path)
    if path.suffix not in IDS_SUFFIXES:
        raise ConfigError(f"{path}: ids are read from {', '.join(IDS_SUFFIXES)} files")
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read ids from {path}: {error}") from None
    cells, first = lines, 1
    if path.suffix == ".csv":
        rows = list(csv.reader(lines))
        header = rows[0] if rows and not rows[0][0].strip().lstrip("-").isdigit() else None
        column = header.index("id") if header and "id" in header else 0
        cells, first = (
            [row[column] if column < len(row) else "" for row in rows[1 if header else 0 :]],
            2 if header else 1,
        )
    ids = []
    for number, cell in enumerate(cells, start=first):
        try:
            ids.append(int(cell))
        except ValueError:
            raise ConfigError(f"{path}, line {number}: {cell!r} is no id (a whole number)") from None
    return np.array(ids, dtype=np.int64)


def check_ids_path(path: Path) -> None:
    """Refuse a path for ids that could not be written later."""
    if path.suffix not in IDS_SUFFIXES:
        raise ConfigError(f"--out {path}: ids are written as {', '.join(IDS_SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--out {path}: the folder {path.absolute().parent} does not exist")


def write_ids(path: Path, ids: np.ndarray[Any, Any]) -> None:
    """Write ids in the order of the selection; a .csv has the columns ``rank`` and ``id``."""
    check_ids_path(path)
    if path.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, ids)
        content = buffer.getvalue()
    elif path.suffix == ".txt":
        content = "".join(f"{i}\n" for i in ids).encode()
    else:
        content = ("rank,id\n" + "".join(f"{rank},{i}\n" for rank, i in enumerate(ids))).encode()
    try:
        write_atomically(path, content)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}") from error


def _read_npy(path: Path, mmap_mode: Literal["c"] | None = None) -> np.ndarray[Any, Any]:
    if path.suffix != ".npy":
        raise ConfigError(f"{path}: only .npy files are read so far; save the array with numpy.save")
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise ConfigError(f"{path} is no .npy file: save the array with numpy.save")
        array = np.load(path, allow_pickle=False, mmap_mode=mmap_mode)
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path} is no readable .npy file: {error}") from None
    return np.asarray(array)


def _integers(array: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, Any]:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ConfigError(f"{path} holds {array.dtype} of shape {array.shape}: integers of shape (n,) are needed")
    return array.astype(np.int64)
