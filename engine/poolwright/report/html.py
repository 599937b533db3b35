"""The page: one HTML file that needs nothing beside it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..errors import StoreError
from . import wording
from .details import StrategyDetails, details, legend, mean_curves, mean_cycle_seconds, mean_query_times
from .distributions import BUDGET, columns, differing_batches, histograms, outcomes
from .merging import apart, section, sources
from .pairwise import FEWEST, penalties
from .statistics import QUERY_PHASES, MeanCurve, best, measured, query_phases, summarize

if TYPE_CHECKING:
    from ..results import Result, RunResult


def write_html(result: Result, path: Path | str) -> Path:
    """Write the report of a result; the same result gives the same bytes.

    The file is there whole or not at all. It loads nothing from elsewhere.

    Parameters
    ----------
    result : Result
        Runs may have failed, be unfinished, or have no records at all.
    path : Path or str
        Missing folders above it are made.

    Returns
    -------
    Path

    Raises
    ------
    StoreError
        The file cannot be written.
    """
    from ..store import write_atomically

    target = Path(path)
    content = render(result).encode()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
    except OSError as error:
        raise StoreError(f"cannot write the report {target}: {error}. Choose another place with --out") from error
    return target


def render(result: Result) -> str:
    """Return the page as text."""
    from jinja2 import Environment, StrictUndefined

    from . import figures

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    summaries = summarize(result)
    ends = outcomes(result)
    return (
        template.render(
            title=_title(result),
            version=__version__,
            sources=[_source(name, info) for name, info in sources(result)],
            seeds=", ".join(str(seed) for seed in sorted({run.seed for run in result.runs})),
            metric=wording.metric_name(summaries[0].metric) if summaries else "",
            summaries=summaries,
            best=best(summaries),
            tested=any(item.versus_baseline is not None for item in summaries),
            notes=wording.notes(summaries),
            figures=_figures(result),
            outcomes=ends,
            outcome_columns=columns(ends),
            outcomes_said=wording.outcomes(columns(ends)),
            spread=_spread(result),
            penalties=_penalties(result),
            query=_query_table(result),
            query_phases=QUERY_PHASES,
            strategies=[_rendered(details(result, item), result.of(item.label)) for item in summaries],
            say=wording,
            palette=figures.SERIES,
        )
        + "\n"
    )


def _title(result: Result) -> str:
    _, info = sources(result)[0]
    chosen = section(info, "config").get("dataset")
    name = chosen.get("name") if isinstance(chosen, dict) else chosen
    return f"Active learning on {name}" if name else "Active learning"


def _source(name: str, info: dict[str, Any]) -> dict[str, Any]:
    """Return what ran, as rows of (term, description), and the whole configuration as JSON."""
    config = section(info, "config")
    terms = {
        "Data set": "dataset",
        "Learner": "learner",
        "Report learner": "report_learner",
        "Initial pool": "initial",
        "Budget": "budget",
        "Batch": "batch",
        "Threads": "threads",
    }
    rows = [(term, plain(config[key])) for term, key in terms.items() if config.get(key) not in (None, "", {}, [])]
    for term, key in (("Machine", "machine"), ("Versions", "versions")):
        if section(info, key):
            rows.append((term, plain(section(info, key))))
    whole = json.dumps(config, indent=2, sort_keys=True, default=str) if config else ""
    return {"name": name, "rows": rows, "config": whole, "initial": _initial(name, info)}


def _initial(name: str, info: dict[str, Any]) -> dict[str, Any] | None:
    """Return how the initial pools were selected: a row a seed, and what was logged; None where nothing is known."""
    from ..state import InitialPool
    from . import figures

    pools = [InitialPool(**plain) for plain in info.get("initial_pools", ())]
    if not pools:
        return None
    series: dict[str, list[list[tuple[float, float]]]] = {}
    for pool in pools:
        for title, values in pool.logs.items():
            series.setdefault(title, []).append(list(enumerate(values)))
    plots = []
    for title, lines in series.items():
        seeds = "one seed" if len(lines) == 1 else f"a line for each of {len(lines)} seeds"
        alt = f"{title} of the initial selection{' of ' + name if name else ''}, {seeds}"
        plots.append((title, _safe(figures.logged(lines, alt, across="value"))))
    chosen = section(section(info, "config"), "initial")
    return {
        "chosen": plain(chosen.get("strategy", "")),
        "phases": [phase for phase in QUERY_PHASES if any(phase in pool.seconds for pool in pools)],
        "held_out": any(pool.held_out for pool in pools),
        "pools": pools,
        "plots": plots,
    }


def plain(value: Any) -> str:
    """Return a configuration value as a phrase: ``{"name": "mlp", "epochs": 30}`` -> ``mlp (epochs 30)``."""
    if isinstance(value, dict):
        rest = {key: item for key, item in value.items() if key != "name" and item is not None}
        inside = ", ".join(f"{key.replace('_', ' ')} {plain(item)}" for key, item in rest.items())
        if "name" not in value:
            return inside
        return f"{value['name']} ({inside})" if inside else str(value["name"])
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return str(value)


def _figures(result: Result) -> list[dict[str, Any]]:
    """Return the figures of the whole sweep: title, SVG, legend and what to know when reading them."""
    from . import figures

    shown = []
    curves = mean_curves(result)
    if curves:
        metric = wording.metric_name(result.runs[0].headline)
        drawn = {place: curve for place, (curve, _) in curves.items()}
        labels = {place: result.strategies[place] for place in curves}
        shown.append(
            {
                "title": "Learning curves",
                "svg": figures.learning_curves(drawn, metric, _curves_alt(labels, drawn, metric)),
                "legend": _swatches("learning", legend(result, {place: whole for place, (_, whole) in curves.items()})),
                "caption": "Lines: mean over seeds. Bands: 95 % interval (Student's t), where there are two "
                f"seeds or more; a band may leave the frame, which is fitted to the lines.{_thin(drawn)}",
            }
        )
    times = mean_query_times(result)
    if times:
        labels = {place: result.strategies[place] for place in times}
        shown.append(
            {
                "title": "Query time",
                "svg": figures.query_times(times, _times_alt(labels, times)),
                "legend": _swatches("query", legend(result, dict.fromkeys(times, True))),
                "caption": "Mean over seeds of the seconds from the evaluation to the ids: reward, update, "
                "score and select. Fitting the learner is not part of it.",
            }
        )
    if seconds := mean_cycle_seconds(result):
        drawn = {place: curve for place, (curve, _) in seconds.items()}
        labels = {place: result.strategies[place] for place in seconds}
        entries = legend(result, {place: whole for place, (_, whole) in seconds.items()})
        shown.append(
            {
                "title": "Time of a cycle",
                "svg": figures.cycle_seconds(drawn, seconds_alt(labels, drawn)),
                "legend": _swatches("seconds", entries),
                "caption": "Mean over seeds of the seconds from the fit to the ids, at the labels that a cycle began "
                f"with: everything but the evaluation on test data.{_thin(drawn)}",
            }
        )
    return [entry | {"svg": _safe(entry["svg"])} for entry in shown]


def _thin(curves: dict[int, MeanCurve]) -> str:
    """Return what thin lines are, where there are some."""
    if not any(curve.runs for curve in curves.values()):
        return ""
    return f" {wording.THIN_LINES}"


def _spread(result: Result) -> dict[str, Any] | None:
    """Return histograms of batch sizes and of where runs ended; None where no batches differ within a run."""
    from . import figures

    batches = differing_batches(result)
    if not batches:
        return None
    place = {label: number for number, label in enumerate(result.strategies)}
    sizes = []
    for label, shown in zip(batches, histograms(list(batches.values()), whole=True), strict=True):
        alt = f"Sizes of {len(shown.values)} batches of {label}, from {min(shown.values):g} to {max(shown.values):g}"
        svg = figures.histogram(
            shown, place[label], alt, across="samples in a batch", counted="batches", inches=(3.3, 2.2)
        )
        sizes.append((f"{label}: {len(shown.values)} batches", _safe(svg)))
    several = [item for item in outcomes(result) if item.runs > 1]
    plots: dict[str, list[Any]] = {item.label: [] for item in several}
    for name in columns(several):
        having = [item for item in several if item.values.get(name)]
        title = wording.metric_name(name)
        across = "% of what could be chosen" if name == BUDGET else "% on test data"
        for item, shown in zip(having, histograms([item.values[name] for item in having]), strict=True):
            low, high = min(shown.values), max(shown.values)
            alt = f"{title} at the end of {len(shown.values)} runs of {item.label}, from {low:.2f} % to {high:.2f} %"
            svg = figures.histogram(shown, place[item.label], alt, across=across)
            plots[item.label].append((title, _safe(svg)))
    return {"batches": sizes, "metrics": [(item.label, item.runs, plots[item.label]) for item in several]}


def _penalties(result: Result) -> dict[str, Any] | None:
    """Return rows of the penalty matrix as (label, cells of (text, share of the budgets won), sum), and what to say."""
    matrix = penalties(apart(result))
    if len(matrix.labels) < FEWEST:
        return None
    numbers = range(len(matrix.labels))
    rows = []
    for row in numbers:
        shares = [matrix.wins[row][column] / max(matrix.budgets[row][column], 1) for column in numbers]
        cells = [(wording.wins(matrix, row, column), f"{45 * shares[column]:.0f}%") for column in numbers]
        rows.append((matrix.labels[row], cells, sum(matrix.wins[row])))
    return {"rows": rows, "said": wording.penalties(matrix), "left_out": matrix.left_out}


def _query_table(result: Result) -> list[dict[str, Any]]:
    """Return for each strategy that asked for labels the mean seconds of a query by phase, and what is left out."""
    rows = []
    for label in result.strategies:
        counted = measured(result.of(label))
        seconds = query_phases(counted or result.of(label))
        if seconds is not None:
            rows.append({"label": label, "seconds": seconds, "total": sum(seconds.values()), "finished": bool(counted)})
    return rows


def _swatches(figure: str, entries: list[tuple[int, str]]) -> list[tuple[Any, str]]:
    from . import figures

    return [(_safe(figures.swatch(place, figure)), text) for place, text in entries]


def _safe(svg: object) -> Any:
    """Mark an SVG of :mod:`.figures`, which escapes what it holds, as not to be escaped again."""
    from markupsafe import Markup

    return Markup(svg)


def _rendered(item: StrategyDetails, runs: Sequence[RunResult]) -> dict[str, Any]:
    from . import figures

    plots = []
    for name, series in item.logs.items():
        seeds = "one seed" if len(series) == 1 else f"a line for each of {len(series)} seeds"
        alt = f"{name} of {item.summary.label} over cycles, {seeds}"
        plots.append((name, _safe(figures.logged(series, alt))))
    return {**vars(item), "plots": plots, "pictures": _pictures(runs)}


def _pictures(runs: Sequence[RunResult]) -> list[dict[str, Any]]:
    """Return what the first run that kept pictures selected in its first and last cycle."""
    from ..gallery import pictures

    for run in runs:
        kept = pictures(run.folder) if run.folder is not None else []
        if kept:
            return [
                {"seed": run.seed, "cycle": cycle, "data": "data:image/png;base64," + b64encode(content).decode()}
                for cycle, content in kept
            ]
    return []


def _curves_alt(labels: dict[int, str], curves: dict[int, MeanCurve], metric: str) -> str:
    lines = [
        f"{label} from {curves[place].mean[0]:.3f} at {curves[place].labels[0]:g} labels "
        f"to {curves[place].mean[-1]:.3f} at {curves[place].labels[-1]:g}"
        for place, label in labels.items()
    ]
    return f"Test {metric} over labels paid for. " + "; ".join(lines) + "."


def _times_alt(labels: dict[int, str], times: dict[int, dict[int, float]]) -> str:
    lines = [
        f"{label} between {wording.seconds(min(times[place].values()))} and "
        f"{wording.seconds(max(times[place].values()))} seconds"
        for place, label in labels.items()
    ]
    return "Query time over cycles. " + "; ".join(lines) + "."


def seconds_alt(labels: dict[int, str], curves: dict[int, MeanCurve]) -> str:
    """Return what the figure of the seconds of a cycle shows, in words."""
    lines = [
        f"{label} between {wording.seconds(min(curves[place].mean))} and "
        f"{wording.seconds(max(curves[place].mean))} seconds"
        for place, label in labels.items()
    ]
    return "Time of a cycle over labels paid for. " + "; ".join(lines) + "."
