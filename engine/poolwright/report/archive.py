"""Results as one small JSON file: the figures without the ids, to be kept, shared and reported on later."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError
from .distributions import outcomes

if TYPE_CHECKING:
    from ..results import Result, RunResult
    from ..state import CycleRecord

FORMAT = 1
"""Of the file; another number is refused."""

LEFT_OUT = -1
"""Stands for each id in what is read back: the file says how many were selected, not which."""

DIGITS = 6
"""Significant digits of every number that is not an integer."""


def write_json(result: Result, path: Path | str) -> Path:
    """Write configuration, machine, versions, for each run the figures of every cycle, and where strategies ended.

    The last is ``outcomes``: for each strategy with runs that count their number, and mean and maximum of every test
    metric and of the budget in percent (:func:`poolwright.report.outcomes`). It is made from the rounded figures of the
    file, and made anew from them, not read, by :func:`read_json`.

    Of the ids their number is kept, of each series that a plugin logged the mean of each cycle. Absolute paths of the
    configuration lose all but their last part: they say nothing elsewhere.

    Parameters
    ----------
    result : Result
        Of one folder; runs may be unfinished or have failed.
    path : Path or str
        Missing folders above it are made. The same result gives the same bytes.

    Raises
    ------
    StoreError
        The file cannot be written.
    """
    from ..store import write_atomically

    target = Path(path)
    runs = ",\n".join(_dumped(_run(run)) for run in result.runs)
    info = {**result.info, "config": _without_folders(result.info.get("config", {}))}
    if "initial_pools" in info:
        info["initial_pools"] = [_brief(pool) for pool in info["initial_pools"]]
    ends = ",\n".join(_dumped(end) for end in _outcomes(json.loads(f"[{runs}]"), info))
    text = f'{{"format": {FORMAT},\n"info": {_dumped(info)},\n"runs": [\n{runs}\n],\n"outcomes": [\n{ends}\n]}}\n'
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text.encode())
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error}. Choose another place with --json") from error
    return target


def read_json(path: Path | str) -> Result:
    """Return the result that :func:`write_json` wrote; :data:`LEFT_OUT` stands for each id.

    Its ``folder`` is the path without suffix, so that reports on several files tell them apart.

    Raises
    ------
    StoreError
        There is no such file, or it is damaged.
    """
    from ..results import Result

    source = Path(path)
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT}")
        info = content["info"]
        pools = [pool | _filled(pool) for pool in info.get("initial_pools", [])]
        runs = [_read_run(run) for run in content["runs"]]
        return Result(runs, info | {"initial_pools": pools}, source.with_suffix(""))
    except FileNotFoundError:
        raise StoreError(f"there is no result {source}: give a file that `poolwright report --json` wrote") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{source} is no result that `poolwright report --json` wrote, or it is damaged: "
            f"{type(error).__name__}: {error}"
        ) from error


def _run(run: RunResult) -> dict[str, Any]:
    return {
        "strategy": run.strategy,
        "seed": run.seed,
        "headline": run.headline,
        "complete": run.complete,
        "error": run.error,
        "cycles": [_brief(record.as_dict()) for record in run.records],
    }


def _outcomes(runs: list[dict[str, Any]], info: dict[str, Any]) -> list[dict[str, Any]]:
    from ..results import Result

    return [
        {
            "strategy": item.label,
            "runs": item.runs,
            "mean_percent": {name: item.mean(name) for name in item.values},
            "max_percent": {name: item.most(name) for name in item.values},
        }
        for item in outcomes(Result([_read_run(run) for run in runs], info))
    ]


def _brief(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of a cycle, or of an initial pool, without ids and streams, and with means of what was logged."""
    kept = {key: value for key, value in plain.items() if key not in ("position", "streams")}
    kept["selected"] = len(plain["selected"])
    kept["logs"] = {name: math.fsum(values) / len(values) for name, values in plain["logs"].items() if values}
    return kept


def _read_run(plain: dict[str, Any]) -> RunResult:
    from ..results import RunResult

    cycles = plain.pop("cycles")
    return RunResult(**plain, records=[_read_cycle(cycle) for cycle in cycles])


def _read_cycle(plain: dict[str, Any]) -> CycleRecord:
    from ..state import CycleRecord

    parts = {key: {name: _number(value) for name, value in plain[key].items()} for key in ("validation", "test")}
    return CycleRecord(**plain | parts | _filled(plain), position=0)


def _filled(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return lists for what :func:`_brief` made of lists."""
    logs = {name: [_number(value)] for name, value in plain["logs"].items()}
    return {"selected": [LEFT_OUT] * plain["selected"], "logs": logs}


def _number(value: float | None) -> float:
    """Return a number; JSON has none for NaN and infinity, which are written as null."""
    return math.nan if value is None else float(value)


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _dumped(value: Any) -> str:
    return json.dumps(_rounded(value), ensure_ascii=False, default=str)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
