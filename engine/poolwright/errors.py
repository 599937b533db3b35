"""Errors that the user can mend: each message says what, where and the way out.

The command line prints the message alone and exits with status 2; every other exception is a defect of the
program and keeps its traceback (status 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PoolwrightError(Exception):
    """Base of every error that the user can mend."""


class ConfigError(PoolwrightError):
    """A configuration, an option or an argument is wrong.

    Attributes
    ----------
    key : tuple of str or int
        Where in the configuration, e.g. ``("strategy", 0, "b")``; empty when not known. The reader of a file adds
        the line.
    """

    def __init__(self, message: str, key: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.key = key


class UnknownNameError(ConfigError):
    """A strategy, learner, data set or wrapper that no installed distribution provides."""


class PluginError(PoolwrightError):
    """A plugin breaks the contract or raised an exception; the message names it and its distribution."""


class LearnerError(PoolwrightError):
    """A learner cannot do what it was asked, or produced something unusable."""


class DatasetError(PoolwrightError):
    """A data set is missing, damaged, or does not fit its own description."""


class PoolError(PoolwrightError):
    """Ids or answers that do not fit the state of the pool."""


class LabelLeakError(PoolwrightError):
    """A plugin asked for the label of a sample that nobody has labeled."""


class StoreError(PoolwrightError):
    """The folder of a run cannot be read or written."""


class WorkerError(PoolwrightError):
    """A process that worked on a run ended before the run did, for instance for want of memory."""


def close_matches(name: str, known: Iterable[str]) -> str:
    """Tell what ``name`` may have meant.

    Returns
    -------
    str
        ``"did you mean 'margin'?"``, or the known names when none is close.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(match) for match in close) + "?"
    return "known: " + (", ".join(names) if names else "none")
