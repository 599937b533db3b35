"""The folder of an experiment: what it says of itself, and the runs in it."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from .errors import ConfigError, StoreError
from .machine import versions
from .results import Result, RunResult
from .spec import Experiment
from .state import CycleRecord
from .store import read_journal, write_atomically

log = logging.getLogger(__name__)

DESCRIPTION = "experiment.json"


def run_folder(folder: Path, label: str, seed: int) -> Path:
    name = re.sub(r"[^A-Za-z0-9._+=-]+", "_", label)
    if name != label or not name.strip("."):  # another label may be written alike
        name = f"{name}-{hashlib.blake2b(label.encode(), digest_size=4).hexdigest()}"
    return folder / "runs" / name / f"seed-{seed}"


def open_folder(folder: Path, experiment: Experiment, resume: bool) -> dict[str, Any] | None:
    """Make sure that ``folder`` is new, or holds this experiment and is to be gone on with; return what it holds."""
    description = folder / DESCRIPTION
    if not description.exists():
        others = (
            [p.name for p in folder.iterdir() if p.name != ".lock" and p.suffix != ".tmp"] if folder.is_dir() else []
        )
        if others:
            raise ConfigError(
                f"{folder} is not empty and holds no Poolwright run (it has {sorted(others)[0]!r}): "
                f"choose another --out"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder {folder}: {error}") from error
        return None
    saved = read_description(folder)
    if not resume:
        raise ConfigError(f"{folder} holds a run already: add --resume to go on with it, or choose another --out")
    _check_same(saved["config"], json.loads(json.dumps(experiment.as_dict(), default=str)), folder)
    _warn_versions(saved)
    return {"threads": saved["config"]["threads"]}


def read_description(folder: Path) -> dict[str, Any]:
    """Return what the folder of an experiment says of it.

    Raises
    ------
    StoreError
        There is none, or it is damaged.
    """
    path = folder / DESCRIPTION
    try:
        description: dict[str, Any] = json.loads(path.read_text())
        description["config"]["strategy"]
    except FileNotFoundError:
        raise StoreError(f"{folder} holds no Poolwright run (there is no {DESCRIPTION} in it)") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return description


def _check_same(saved: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with another experiment; strategies and seeds may come and go."""
    labels = {spec["label"]: spec for spec in saved["strategy"]}
    for spec in now["strategy"]:
        if spec["label"] in labels and labels[spec["label"]] != spec:
            raise ConfigError(
                f"{folder} holds another strategy labeled {spec['label']!r}: give the new one a label of its own, "
                f"or choose another --out"
            )
    free = {"strategy", "seeds"} | ({"threads"} if "threads" not in now else set())
    for key in sorted((set(saved) | set(now)) - free):
        if saved.get(key) != now.get(key):
            raise ConfigError(
                f"{folder} holds a run with another {key} ({saved.get(key)!r}, now {now.get(key)!r}): "
                f"use the same, or choose another --out"
            )


def _warn_versions(saved: dict[str, Any]) -> None:
    for name, value in versions().items():
        before = saved.get("versions", {}).get(name)
        if before != value:
            log.warning(
                "the run was begun with %s %s, now it is %s: results may differ from an uninterrupted run",
                name,
                before,
                value,
            )


def load_result(folder: str | Path) -> Result:
    """Return the result that is kept in the folder of an experiment, complete or not.

    Raises
    ------
    StoreError
        There is none, or it is damaged.
    """
    folder = Path(folder)
    info = read_description(folder)
    runs = []
    for spec in info["config"]["strategy"]:
        for path in sorted(run_folder(folder, spec["label"], 0).parent.glob("seed-*"), key=lambda p: int(p.name[5:])):
            meta, cycles = read_journal(path)
            if "run" in meta:
                records = [CycleRecord(**record) for record in cycles]
                facts = meta["run"]
                complete, error = bool(meta.get("complete")), meta.get("error", "")
                runs.append(RunResult(facts["strategy"], facts["seed"], facts["headline"], records, complete, error))
    return Result(runs, info, folder)


def write_json(path: Path, value: Any) -> None:
    try:
        write_atomically(path, json.dumps(value, indent=2, default=str).encode())
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}. Make room, then run again with --resume") from error
