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
from .state import CycleRecord, InitialPool
from .store import Store, read_journal, write_atomically

log = logging.getLogger(__name__)

DESCRIPTION = "experiment.json"


def run_folder(folder: Path, label: str, seed: int) -> Path:
    """Return where a run is kept; labels that would be written alike get folders of their own."""
    name = re.sub(r"[^A-Za-z0-9._+=-]+", "_", label)
    if name != label or not name.strip("."):  # another label may be written alike
        name = f"{name}-{hashlib.blake2b(label.encode(), digest_size=4).hexdigest()}"
    return folder / "runs" / name / f"seed-{seed}"


def open_folder(folder: Path, experiment: Experiment, resume: bool) -> dict[str, Any]:
    """Make sure that ``folder`` is new, or holds this experiment and is to be gone on with.

    Returns
    -------
    dict
        The configuration it was begun with; empty where it is new.
    """
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
        return {}
    saved = read_description(folder)
    if not resume:
        raise ConfigError(f"{folder} holds a run already: add --resume to go on with it, or choose another --out")
    config: dict[str, Any] = saved["config"]
    _check_same(config, plain(experiment.as_dict()), folder)
    warn_versions(saved)
    return config


def make_folder(folder: Path) -> None:
    """Make the folder of an experiment, and those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error}") from error


def plain(value: Any) -> Any:
    """Return ``value`` as it comes back from JSON."""
    return json.loads(json.dumps(value, default=str))


def with_saved_strategies(info: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """Return the description of an experiment with the strategies and seeds that its folder held before."""
    now = info["config"]["strategy"]
    labels = {spec["label"] for spec in now}
    kept = [spec for spec in saved.get("strategy", []) if spec["label"] not in labels]
    return info | {"config": info["config"] | {"strategy": kept + now}}


def refuse_other(store: Store, strategy: dict[str, Any]) -> None:
    """Note which strategy a run's folder belongs to, or refuse another one.

    Raises
    ------
    ConfigError
        The folder holds the run of a strategy of the same label with other parts or parameters.
    """
    known = store.meta("strategy")
    if known is None:
        store.set_meta("strategy", plain(strategy))
    elif known != plain(strategy):
        raise ConfigError(
            f"{store.folder} holds another strategy labeled {strategy['label']!r}: give the new one a label of its "
            f"own, or choose another --out"
        )


def write_initial(folder: Path, pool: InitialPool) -> None:
    """Keep how the initial pool of a seed was selected."""
    path = _initial(folder, pool.seed)
    make_folder(path.parent)
    write_json(path, pool.as_dict())


def read_initial(folder: Path, seed: int) -> InitialPool | None:
    """Return the initial pool that was selected for a seed; None where there is none, or it is damaged."""
    path = _initial(folder, seed)
    try:
        found = InitialPool(**json.loads(path.read_text()))
        if found.seed != seed or not all(type(i) is int for i in found.selected):
            raise ValueError("it is of another seed, or holds what is no id")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s is damaged (%s): the initial pool is selected again", path, error)
        return None
    return found


def _initial(folder: Path, seed: int) -> Path:
    return folder / "initial" / f"seed-{seed}.json"


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
        if not all(isinstance(spec["label"], str) for spec in description["config"]["strategy"]):
            raise ValueError("a strategy has no label")
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


def warn_versions(saved: dict[str, Any], what: str = "run") -> None:
    """Say which versions differ from those that ``saved`` notes: of a run, or whatever else was begun."""
    for name, value in versions().items():
        before = saved.get("versions", {}).get(name)
        if before != value:
            log.warning(
                "the %s was begun with %s %s, now it is %s: results may differ from an uninterrupted %s",
                what,
                name,
                before,
                value,
                what,
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
        found = run_folder(folder, spec["label"], 0).parent.glob("seed-*")
        numbered = [path for path in found if re.fullmatch(r"seed--?\d+", path.name)]
        for path in sorted(numbered, key=lambda path: int(path.name[5:])):
            meta, cycles = read_journal(path)
            if "run" in meta:
                records = [CycleRecord(**record) for record in cycles]
                facts = meta["run"]
                complete, error = bool(meta.get("complete")), meta.get("error", "")
                runs.append(
                    RunResult(facts["strategy"], facts["seed"], facts["headline"], records, complete, error, path)
                )
    pools = [read_initial(folder, seed) for seed in sorted({run.seed for run in runs})]
    return Result(runs, info | {"initial_pools": [pool.as_dict() for pool in pools if pool is not None]}, folder)


def write_json(path: Path, value: Any) -> None:
    """Write a description atomically."""
    try:
        write_atomically(path, json.dumps(value, indent=2, default=str).encode())
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}. Make room, then run again with --resume") from error
