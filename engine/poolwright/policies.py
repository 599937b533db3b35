"""Policies that are trained ahead of the runs that use them, and the files that hold them.

A strategy can be trained ahead if it has, beside its hooks,

``policy``
    a parameter of its constructor: the path of a file, or None, for what it does without one;
``train_policy(cycle)``
    a generator. It trains, and yields after each piece (an epoch, say), whenever ``state_dict()`` is consistent, the
    share of the training that is done, in (0, 1]. Called again on an instance that was given the state of any piece,
    it goes on from there to the same end;
``state_dict()``, ``load_state_dict(state)``
    as for a resumed run.

``poolwright train-policy`` calls it with the cycle of a session that has no strategy: the initial pool is labeled and
the learner fitted on it, the reserves are known, and all of the pool is left to buy. So that a training that was
stopped ends as one that never was, it draws from streams that are keyed by a seed in its state
(:func:`poolwright.streams.generator`), the seed itself being the first draw from ``cycle.generator``, and puts what
draws from global generators into :func:`poolwright.streams.seeded`. In ``update`` of its first cycle the strategy takes
the policy over with ``self.load_state_dict(read_policy(self.policy, "its-name"))``.

A policy file is written by ``torch.save`` and read with ``weights_only``: nothing in it is ever executed.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from .catalog import Catalog, one_line, parameters
from .composition import Part, Roles
from .errors import ConfigError, close_matches
from .spec import Experiment, StrategySpec
from .store import write_atomically

FORMAT = 1
METHODS = ("train_policy", "state_dict", "load_state_dict")
"""What a strategy has that can be trained ahead, beside its parameter ``policy``."""
RELEVANT = (
    "dataset",
    "learner",
    "initial",
    "reserve",
    "reserve_seed",
    "oracle",
    "threads",
    "device",
    "memory_limit",
    "allow_truth",
)
"""Keys of the configuration that a training depends on, and that must not change while it goes on."""


# -- reading -----------------------------------------------------------------------------------------------------


def read_policy(path: str | Path, strategy: str) -> dict[str, Any]:
    """Return the state of a policy that was trained ahead, for the strategy's ``load_state_dict``.

    Parameters
    ----------
    path : path
        What ``poolwright train-policy`` wrote.
    strategy : str
        Name of the plugin that it must have been trained for, as it is installed.

    Returns
    -------
    dict
        What ``state_dict`` gave at the end of the training; tensors lie on the CPU.

    Raises
    ------
    ConfigError
        There is no such file; it is damaged, no policy, of another strategy, or its training has not ended.
    """
    if not isinstance(path, (str, Path)):
        raise ConfigError(f"policy = {path!r}: give the path of a file that `poolwright train-policy` wrote")
    path = Path(path)
    try:
        found = _read(path)
    except FileNotFoundError:
        begun = part_of(path)
        if begun.exists():
            raise ConfigError(
                f"there is no policy {path} yet, its training was stopped ({begun.name} is there): go on with "
                f"`poolwright train-policy`, as it was begun"
            ) from None
        raise ConfigError(
            f"there is no policy {path}: train it with `poolwright train-policy CONFIG --out {path}`, "
            f"or leave policy out"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"policy {path} cannot be read: {_reason(error)}. Train it again, or name another") from error
    if not found["complete"]:
        raise ConfigError(
            f"policy {path} is a part, {found['done']:.0%} of its training is done: go on with `poolwright "
            f"train-policy`, as it was begun"
        )
    if found["strategy"] != strategy:
        raise ConfigError(
            f"policy {path} was trained for the strategy {found['strategy']!r}, not for {strategy!r}: "
            f"name one of its own"
        )
    state: dict[str, Any] = found["state"]
    return state


def check_policies(experiment: Experiment, catalog: Catalog) -> None:
    """Refuse an experiment that names a policy which cannot be used.

    Raises
    ------
    ConfigError
        As :func:`read_policy` does.
    """
    for spec in experiment.strategies:
        for part in _parts(spec):
            path = part.params.get("policy")
            if path is not None and hasattr(catalog.build("strategy", part.plugin, part.params)[0], METHODS[0]):
                read_policy(path, part.name)


def _read(path: Path) -> dict[str, Any]:
    """Return all that a policy file, whole or part, holds; ValueError says what is wrong with it."""
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:  # torch itself does not look at the checksums
            bad = archive.testzip()
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # what is damaged may raise anything
        raise ValueError(f"it is damaged, or no policy ({one_line(error)})") from error
    if bad is not None:
        raise ValueError(f"it is damaged (the checksum of {bad} does not fit)")
    if not isinstance(found, dict) or not {"format", "strategy", "done", "complete", "state"} <= set(found):
        raise ValueError("it is no policy")
    if found["format"] != FORMAT:
        raise ValueError(f"it is of format {found['format']}, which this version of Poolwright does not know")
    return found


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def part_of(out: Path) -> Path:
    """Return where the pieces of a training are kept until it ends."""
    return out.with_name(out.name + ".part")


# -- the part ----------------------------------------------------------------------------------------------------


def write_part(path: Path, content: Mapping[str, Any]) -> None:
    """Write all that a policy file holds, whole or not at all.

    Raises
    ------
    OSError
        It cannot be written; what was there before is kept.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_atomically(path, buffer.getvalue())


def read_part(path: Path) -> dict[str, Any]:
    """Return what a training that was stopped has left; empty where there is nothing."""
    try:
        found = _read(path)
        if not {"config", "parameters", "seed"} <= set(found):
            raise ValueError("it is no policy")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be gone on with: {_reason(error)}. Remove it to train from the start, or "
            f"choose another --out"
        ) from error
    return found


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path, label: str) -> None:
    """Refuse to go on with another training, naming the first key that differs."""
    pairs = [
        ("strategy", saved["strategy"], now["strategy"]),
        (label, saved["parameters"], now["parameters"]),
        ("--seed", saved["seed"], now["seed"]),
        *((key, saved["config"].get(key), now["config"].get(key)) for key in RELEVANT),
    ]
    for name, before, after in pairs:
        if difference := _difference(name, before, after):
            key, was, is_now = difference
            raise ConfigError(
                f"{path} is part of another training: {key} was {was!r}, now it is {is_now!r}. Use the same, remove "
                f"{path.name} to train from the start, or choose another --out"
            )


def _difference(key: str, before: Any, after: Any) -> tuple[str, Any, Any] | None:
    """Return the dotted key at which two configurations first differ, and the two values."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        inner = (_difference(f"{key}.{k}", before.get(k), after.get(k)) for k in sorted({*before, *after}))
        return next((found for found in inner if found), None)
    return None if before == after else (key, before, after)


# -- who is trained ----------------------------------------------------------------------------------------------


def lacking(factory: Callable[..., Any], instance: Any) -> list[str]:
    """Return what a strategy lacks to be trained ahead; empty where it can be."""
    missing = [f"{name}()" for name in METHODS if not callable(getattr(instance, name, None))]
    taken = parameters(factory)
    return missing + (["a parameter policy"] if taken is not None and "policy" not in taken else [])


def _parts(spec: StrategySpec) -> list[Part]:
    """Return the plugins of a strategy, equal ones once."""
    roles: Roles = spec.roles([])
    named_parts = (roles.name, roles.score, roles.select, roles.reward, *roles.update)
    return list({part.key: part for part in named_parts if part is not None}.values())


def choose(experiment: Experiment, label: str | None, catalog: Catalog) -> tuple[StrategySpec, Part]:
    """Return the strategy to train, and which of its plugins it is."""
    labels = [spec.label for spec in experiment.strategies]
    if label is not None and label not in labels:
        raise ConfigError(f"no strategy is labeled {label!r}: {close_matches(label, labels)}")
    specs = [spec for spec in experiment.strategies if label in (None, spec.label)]
    built = {
        (spec.label, part.key): catalog.build("strategy", part.plugin, part.params)
        for spec in specs
        for part in _parts(spec)
    }
    found = [
        (spec, part)
        for spec in specs
        for part in _parts(spec)
        if hasattr(built[spec.label, part.key][0], METHODS[0]) or len(built) == 1
    ]
    if not found:
        raise ConfigError(
            f"no strategy of {', '.join(map(repr, [spec.label for spec in specs]))} can be trained ahead: one that can "
            f"has {', '.join(f'{name}()' for name in METHODS)} and a parameter policy"
        )
    able = [spec.label for spec in specs if any(spec is other for other, _ in found)]
    if len(able) > 1:
        raise ConfigError(f"several strategies can be trained ahead: add --strategy {' or '.join(map(repr, able))}")
    if len(found) > 1:
        names = ", ".join(part.name for _, part in found)
        raise ConfigError(f"strategy {able[0]!r} has several plugins that can be trained ahead ({names}): leave one")
    [(spec, part)] = found
    instance, distribution = built[spec.label, part.key]
    factory = catalog.entry("strategy", part.plugin).load() if isinstance(part.plugin, str) else part.plugin
    if missing := lacking(factory, instance):
        raise ConfigError(
            f"strategy {spec.label!r} cannot be trained ahead: plugin {part.name!r} of distribution {distribution!r} "
            f"lacks {', '.join(missing)}"
        )
    if (given := part.params.get("policy")) is not None:
        raise ConfigError(
            f"strategy {spec.label!r} has policy = {given!r} already: leave that out to train another policy"
        )
    return spec, part
