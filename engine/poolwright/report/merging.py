"""Several results side by side, as one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..results import Result

SOURCES = "sources"
"""Key of a merged result's ``info``: a list of {"name": ..., "labels": ..., **info of one result}."""

LABELS = "labels"
"""Key of a source: label in the merged result -> label in the one that it comes from."""


def merge(results: Sequence[Result]) -> Result:
    """Put the runs of several results into one.

    A strategy label that more than one result has gets the folder's name in brackets: ``margin [sweep-2]``.

    Parameters
    ----------
    results : sequence of Result
        At least one, none of them merged already; a single one is returned as it is.

    Returns
    -------
    Result
        Its ``info`` is ``{"sources": [{"name": folder's name, "labels": {...}, **info}, ...]}``; see :func:`sources`
        and :func:`apart`.

    Raises
    ------
    ConfigError
        Different headline metrics or data sets, a folder given twice, or nothing to merge.
    """
    from ..results import Result

    if not results:
        raise ConfigError("there is no result to report on: name at least one folder that `poolwright run` wrote")
    if len(results) == 1:
        return results[0]
    called = names([result.folder for result in results])
    _require_one("headline metric", [(name, _metric(result)) for name, result in zip(called, results, strict=True)])
    _require_one("data set", [(name, _dataset(result)) for name, result in zip(called, results, strict=True)])
    owners = Counter(label for result in results for label in result.strategies)
    runs, parts = [], []
    for name, result in zip(called, results, strict=True):
        shown = {old: f"{old} [{name}]" if owners[old] > 1 else old for old in result.strategies}
        runs += [replace(run, strategy=shown[run.strategy]) for run in result.runs]
        parts.append({"name": name, **result.info, LABELS: {new: old for old, new in shown.items()}})
    return Result(runs, {SOURCES: parts})


def apart(result: Result) -> list[Result]:
    """Return the results that :func:`merge` put into one, with their labels as they were; itself if it is none.

    Its ``folder`` is the name that :func:`merge` gave it.
    """
    from ..results import Result

    if SOURCES not in result.info:
        return [result]
    parts = []
    for info in result.info[SOURCES]:
        labels = info[LABELS]
        runs = [replace(run, strategy=labels[run.strategy]) for run in result.runs if run.strategy in labels]
        parts.append(Result(runs, info, Path(info["name"])))
    return parts


def source_of(result: Result, label: str) -> dict[str, Any]:
    """Return the ``info`` that the runs of a strategy came with."""
    found = (info for _, info in sources(result) if label in info.get(LABELS, ()))
    return next(found, result.info)


def sources(result: Result) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, info) of every result that went into this one; the name is empty if none was merged."""
    if SOURCES not in result.info:
        return [("", result.info)]
    return [(str(info.get("name", "")), info) for info in result.info[SOURCES]]


def section(info: dict[str, Any], name: str) -> dict[str, Any]:
    """Return ``info[name]`` where it is a dict, else an empty one."""
    value = info.get(name)
    return value if isinstance(value, dict) else {}


def names(folders: Sequence[Path | None]) -> list[str]:
    """Return the shortest tails of the folders' paths that tell them apart."""
    known = [folder.resolve() for folder in folders if folder is not None]
    twice = [str(folder) for folder, count in Counter(known).items() if count > 1]
    if twice:
        raise ConfigError(f"the folder {twice[0]} is given twice: name each folder once")
    depth = 1
    while len({path.parts[-depth:] for path in known}) < len(known):
        depth += 1
    return [
        f"result {place}" if folder is None else "/".join(folder.resolve().parts[-depth:])
        for place, folder in enumerate(folders, 1)
    ]


def _metric(result: Result) -> str | None:
    metrics = list(dict.fromkeys(run.headline for run in result.runs))
    return " and ".join(metrics) if metrics else None


def _dataset(result: Result) -> str | None:
    chosen = section(result.info, "config").get("dataset")
    if isinstance(chosen, dict):
        name = str(chosen.get("name", "unnamed"))
        options = {key: value for key, value in chosen.items() if key != "name" and value is not None}
        return f"{name} {json.dumps(options, sort_keys=True, default=str)}" if options else name
    return None if chosen is None else str(chosen)


def _require_one(what: str, values: Sequence[tuple[str, str | None]]) -> None:
    """Refuse two results that differ; one that does not say is taken to agree."""
    known = [(name, value) for name, value in values if value is not None]
    for name, value in known[1:]:
        if value != known[0][1]:
            raise ConfigError(
                f"results with different {what}s do not compare: {known[0][0]} has {known[0][1]}, "
                f"{name} has {value}. Report on them one by one"
            )
