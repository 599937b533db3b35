"""What the strategies that run on kernels share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from poolwright import ConfigError


@contextmanager
def data_errors(strategy: str) -> Iterator[None]:
    """Raise what a kernel says of its data and limits as what the user can mend, not as a fault of the strategy."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{strategy}: {error}") from error
