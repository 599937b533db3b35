"""The memory of a run: an SQLite journal of answers and cycles, and checkpoints beside it.

The journal is append-only: an answer is on disk before ``tell`` returns, and is never taken back. Checkpoints are
written to a temporary file, flushed and renamed, and carry a checksum; a damaged one is named and the one before it
is used. Falling back to an older checkpoint loses no answer: the session replays the journal.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging
import os
import sqlite3
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .catalog import one_line
from .errors import StoreError
from .pool import Label

log = logging.getLogger(__name__)

MAGIC = b"poolwright checkpoint 1\n"
KEEP = 3
"""How many checkpoints are kept."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER NOT NULL, label BLOB NOT NULL,
    revision INTEGER NOT NULL, time REAL NOT NULL);
CREATE INDEX IF NOT EXISTS answers_by_id ON answers (id);
CREATE TABLE IF NOT EXISTS cycles (number INTEGER PRIMARY KEY, position INTEGER NOT NULL, record TEXT NOT NULL);
"""


class Answer(NamedTuple):
    """One line of the journal."""

    position: int
    id: int
    label: Label
    revision: int
    time: float


class Store:
    """The folder of one run.

    Parameters
    ----------
    folder : Path
        Created where it does not exist.

    Raises
    ------
    StoreError
        The folder cannot be written, or its journal is not a Poolwright journal.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.journal = self.folder / "journal.sqlite"
        self.checkpoints = self.folder / "checkpoints"
        with self._guarded("open"):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.journal, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the journal."""
        self._db.close()

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Turn errors of the disk and of SQLite into one that says what to do."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            if type(error) is sqlite3.DatabaseError:  # its subclasses are about locks, room and statements
                raise StoreError(
                    f"journal {self.journal} is damaged: {error}. Put back a copy of it, or choose another --out"
                ) from error
            raise StoreError(
                f"cannot {what} the run in {self.folder}: {error}. "
                f"Answers told before are safe in {self.journal.name}; "
                f"make room (or mend the folder) and go on with --resume"
            ) from error

    @contextmanager
    def _transaction(self, what: str) -> Iterator[None]:
        with self._guarded(what):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # -- facts ---------------------------------------------------------------------------------------------------

    def set_meta(self, key: str, value: Any) -> None:
        """Keep a JSON value under ``key``."""
        with self._transaction("write"):
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def meta(self, key: str, default: Any = None) -> Any:
        """Return the value kept under ``key``."""
        with self._guarded("read"):
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    # -- answers -------------------------------------------------------------------------------------------------

    def append(self, ids: Sequence[int], labels: Sequence[Label]) -> int:
        """Append answers, all or none, and return the journal's position behind them. Durable on return."""
        now = time.time()
        with self._transaction("write answers to"):
            for i, label in zip(ids, labels, strict=True):
                (revision,) = self._db.execute("SELECT COUNT(*) FROM answers WHERE id = ?", (i,)).fetchone()
                self._db.execute(
                    "INSERT INTO answers (id, label, revision, time) VALUES (?, ?, ?, ?)",
                    (i, _encode(label), revision, now),
                )
        return self.position

    @property
    def position(self) -> int:
        """The number of the last answer, 0 before the first."""
        with self._guarded("read"):
            (last,) = self._db.execute("SELECT MAX(position) FROM answers").fetchone()
        return int(last or 0)

    def answers(self, after: int = 0) -> list[Answer]:
        """Return the answers behind position ``after``, oldest first."""
        with self._guarded("read"):
            rows = self._db.execute(
                "SELECT position, id, label, revision, time FROM answers WHERE position > ? ORDER BY position", (after,)
            ).fetchall()
        return [Answer(p, i, self._label(p, label), revision, told) for p, i, label, revision, told in rows]

    def _label(self, position: int, value: int | bytes) -> Label:
        try:
            return _decode(value)
        except (zlib.error, ValueError, EOFError) as error:
            raise StoreError(
                f"journal {self.journal} is damaged: answer {position} cannot be read ({one_line(error)}). "
                f"Put back a copy of it, or choose another --out"
            ) from error

    # -- cycles --------------------------------------------------------------------------------------------------

    def write_cycle(self, number: int, position: int, record: dict[str, Any]) -> None:
        """Keep the record of a cycle that was fitted at journal ``position``; an earlier one is replaced."""
        with self._transaction("write a cycle of"):
            self._db.execute("INSERT OR REPLACE INTO cycles VALUES (?, ?, ?)", (number, position, json.dumps(record)))

    def cycles(self) -> list[dict[str, Any]]:
        """Return the records of all cycles, oldest first."""
        with self._guarded("read"):
            rows = self._db.execute("SELECT record FROM cycles ORDER BY number").fetchall()
        return [json.loads(record) for (record,) in rows]

    def cycle_position(self, number: int) -> int | None:
        """Return the journal position at which cycle ``number`` was fitted, if it ever was."""
        with self._guarded("read"):
            row = self._db.execute("SELECT position FROM cycles WHERE number = ?", (number,)).fetchone()
        return None if row is None else int(row[0])

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def write_checkpoint(self, number: int, state: dict[str, Any]) -> Path:
        """Write ``state`` (tensors, numbers, strings, lists and dicts) atomically; keep the last three."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getvalue()
        path = self.checkpoints / f"{number:06d}.ckpt"
        with self._guarded("write a checkpoint of"):
            write_atomically(path, MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
            for old in sorted(self.checkpoints.glob("*.ckpt"))[:-KEEP]:
                old.unlink()
        return path

    def read_checkpoint(self) -> dict[str, Any] | None:
        """Return the newest checkpoint that is whole; damaged ones are named in the log.

        None where no whole one is left: the run then starts again and takes its answers from the journal.
        """
        for leftover in self.checkpoints.glob("*.tmp"):
            log.warning("%s was left half-written by a stop; it is ignored", leftover)
        paths = sorted(self.checkpoints.glob("*.ckpt"), reverse=True)
        for path in paths:
            try:
                return _read_checkpoint(path)
            except StoreError as error:
                log.warning("%s; the checkpoint before it is used", error)
                with self._guarded("set a damaged checkpoint aside in"):
                    path.replace(path.with_suffix(".damaged"))
        if paths:
            log.warning("no whole checkpoint in %s: the run starts again and replays its journal", self.checkpoints)
        return None


def unreadable(state: Any, path: str = "state") -> str:
    """Return where ``state`` holds what a checkpoint could not give back, and what that is; "" if it is sound."""
    if type(state) in (dict, OrderedDict):
        parts = [(f"{path}[{key!r}]", value) for key, value in state.items()]
        parts += [(f"key {key!r} of {path}", key) for key in state]
    elif type(state) in (list, tuple, set):
        parts = [(f"{path}[{i}]", value) for i, value in enumerate(state)]
    else:
        sound = (
            type(state) in (Tensor, torch.nn.Parameter)
            or state is None
            or type(state) in (bool, int, float, complex, str, bytes)
        )
        return "" if sound else f"{path} is {type(state).__module__}.{type(state).__qualname__}"
    return next((found for where, value in parts if (found := unreadable(value, where))), "")


def read_journal(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the facts and the cycle records of a run's folder without changing anything in it.

    Raises
    ------
    StoreError
        The journal is missing or damaged.
    """
    path = folder / "journal.sqlite"
    if not path.exists():
        raise StoreError(f"{folder} holds no journal ({path.name} is missing)")
    try:
        with closing(_open_read_only(path)) as db:
            meta = {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")}
            cycles = [json.loads(record) for (record,) in db.execute("SELECT record FROM cycles ORDER BY number")]
    except (sqlite3.Error, ValueError) as error:
        raise StoreError(f"journal {path} cannot be read: {error}") from error
    return meta, cycles


def _open_read_only(path: Path) -> sqlite3.Connection:
    """Open for reading; where even the index of the write-ahead log may not be written, the file alone."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        db.execute("SELECT 1 FROM meta LIMIT 1")
    except sqlite3.OperationalError:
        db.close()
        db = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
    return db


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"checkpoint {path} cannot be read: {error}") from error
    header = len(MAGIC) + 65
    payload = content[header:]
    if (
        not content.startswith(MAGIC)
        or content[len(MAGIC) : header - 1] != hashlib.sha256(payload).hexdigest().encode()
    ):
        raise StoreError(f"checkpoint {path} is damaged (its checksum does not fit)")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True)
    except Exception as error:  # what is no pickle may raise anything
        raise StoreError(f"checkpoint {path} cannot be read back ({one_line(error)})") from error
    return state


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even when power fails."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold ``folder`` alone; the lock goes with the process, and those given its descriptor, however they end.

    Yields
    ------
    int
        The descriptor that holds the lock.

    Raises
    ------
    StoreError
        Another process holds it.
    """
    file: IO[str]
    try:
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise StoreError(f"cannot write in {folder}: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{folder} is in use by another process: wait for it, or choose another --out") from None
        yield file.fileno()


def _encode(label: Label) -> int | bytes:
    if label is None:
        return b""
    if not isinstance(label, Tensor):
        return int(label)
    buffer = io.BytesIO()
    np.save(buffer, label.numpy(), allow_pickle=False)
    return zlib.compress(buffer.getvalue(), level=1)  # masks are mostly runs of one class


def _decode(value: int | bytes) -> Label:
    if isinstance(value, int):
        return value
    if not value:
        return None
    return torch.from_numpy(np.load(io.BytesIO(zlib.decompress(value)), allow_pickle=False))
