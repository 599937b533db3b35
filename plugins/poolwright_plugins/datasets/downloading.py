"""Downloads, which torchvision does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poolwright import DatasetError


def fetched(download: Callable[[], Any], title: str, root: str) -> None:
    """Call ``download``; say what failed and where the data were to go.

    Raises
    ------
    DatasetError
        No connection, no space, a damaged archive, or a package that torchvision lacks.
    """
    try:
        download()
    except (OSError, RuntimeError, ImportError) as error:
        raise DatasetError(f"{title} could not be downloaded to {root!r}: {error}") from error
