"""docs/experiments.md and its figures, made from the files in experiments/results: ``python experiments/page.py``.

A result is ``results/NAME.json``, written by ``poolwright report --json``; what was found is told by hand in
``results/NAME.md``, which stands under the heading of its section. A strategy whose label has a comma, as in
``vaal, no VAE``, is a variant of the one named before the comma: it has its place in a figure and a table of variants,
beside the strategy itself.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from poolwright import Result, RunResult
from poolwright.report import Estimate, Penalties, penalties, read_json, summarize, wording
from poolwright.report.details import mean_curves, mean_cycle_seconds
from poolwright.report.figures import cycle_seconds, learning_curves, standalone
from poolwright.report.html import plain, seconds_alt
from poolwright.report.pairwise import FEWEST
from poolwright.report.statistics import BASELINE, MeanCurve, compare, estimate, mean, measured

ROOT = Path(__file__).resolve().parent.parent

INTRODUCTION = """\
# Experiments

<!-- Made by `python experiments/page.py` from experiments/results; `make experiments` runs it. -->

What the strategies reach, and what they cost, in experiments whose configurations lie in `experiments/`: evidence for
an ordering, not absolutes. [The papers' own settings](#the-papers-settings) need more than two cores.

```console
$ make experiments
$ poolwright run experiments/vaal-sraal-fashion-mnist.toml --jobs 2 --out runs/vaal-sraal-fashion-mnist
$ poolwright report runs/vaal-sraal-fashion-mnist --json experiments/results/vaal-sraal-fashion-mnist.json
```

How to read the tables:

- Every figure is the mean over seeds with its 95 % interval (Student's t). All strategies of a seed begin with the same
  labels, on the same samples.
- *AUBC* is the area under the curve of the test metric over the labels paid for, divided by their span; *final* is the
  metric after the last batch.
- *minus random* is the mean over seeds of the paired difference, with its 95 % interval: above 0, the strategy is
  better. An interval that holds 0 shows nothing. With three seeds it reaches 2.5 standard deviations of the
  differences to either side, so that only large effects show.
- *p* beside it is that of the paired t-test over the seeds. It is not corrected: of twenty comparisons one has p < 0.05
  by chance; with k comparisons in a table, take p < 0.05 / k for an effect (Bonferroni).
- *Who is better* is the pairwise penalty matrix: at how many label counts the mean over seeds of the row's strategy is
  above that of the column's. A tie, as at a shared initial pool, counts for nobody.
- Seconds are the means of a cycle that asked for labels, while other runs went on beside it where it says so:
  *training* is the hook `update`, *scoring* is `score`, *selecting* is `select`, each with the predictions that it
  asked for. *Fit* is the learner's own training, which is no part of the query. The figure of the seconds shows whole
  cycles, from the fit to the ids, without the evaluation on test data.
"""

PAPERS = """\
## The papers' settings

`experiments/papers/` has a configuration for each table and figure of the papers, to be run on a machine with a GPU
and the data sets; `experiments/README.md` says which is which. None of them has been run unless it is shown above.
"""


@dataclass(frozen=True)
class Group:
    """Strategies that are shown together, and the one that they are compared with."""

    name: str
    labels: list[str]
    base: str | None


def main() -> int:
    """Write the page and its figures; return the exit status."""
    results = read_results(ROOT / "experiments" / "results")
    images = ROOT / "docs" / "images"
    for name, svg in figures(results).items():
        (images / f"{name}.svg").write_text(svg, encoding="utf-8")
    (ROOT / "docs" / "experiments.md").write_text(page(results, texts(results)), encoding="utf-8")
    return 0


def read_results(folder: Path) -> dict[str, Result]:
    """Return the results of a folder by name."""
    return {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}


def texts(results: Iterable[str]) -> dict[str, str]:
    """Return what is told by hand of the results, by name."""
    found = {name: ROOT / "experiments" / "results" / f"{name}.md" for name in results}
    return {name: path.read_text(encoding="utf-8").strip() for name, path in found.items() if path.exists()}


def page(results: dict[str, Result], told: dict[str, str]) -> str:
    """Return the page.

    Parameters
    ----------
    results : dict
        Name -> result.
    told : dict
        Name -> what is told of it, Markdown.
    """
    parts = [INTRODUCTION]
    if not results:
        parts.append("No results are recorded in this checkout.\n")
    for name, result in results.items():
        parts.append(f"## {name}\n")
        parts += [f"{told[name]}\n"] if name in told else []
        parts += [ran(name, result)]
        for group in groups(result):
            parts += [shown(name, result, group)]
        parts += filter(None, [costs(name, result), logs(result)])
    parts += initial_pools(results)
    parts += over_all(results)
    return "\n".join([*parts, PAPERS])


# -- groups and figures ------------------------------------------------------------------------------------------


def groups(result: Result) -> list[Group]:
    """Return the strategies by themselves, then each with its variants."""
    labels = result.strategies
    found = [Group("", [label for label in labels if ", " not in label], BASELINE if BASELINE in labels else None)]
    for parent in dict.fromkeys(label.split(", ")[0] for label in labels if ", " in label):
        variants = [label for label in labels if label.startswith(f"{parent}, ")]
        known = [parent] if parent in labels else []
        found.append(Group(parent, [*known, *variants], parent if known else None))
    return [group for group in found if group.labels]


def image(name: str, group: Group) -> str:
    """Return the name of a group's figure."""
    return f"experiments-{name}" + (f"-{group.name}" if group.name else "")


def figures(results: dict[str, Result]) -> dict[str, str]:
    """Return name -> SVG of the learning curves of every group, and of the seconds of a cycle of every result."""
    found = {}
    for name, result in results.items():
        for group in groups(result):
            if any(measured(result.of(label)) for label in group.labels):
                found[image(name, group)] = drawn(result, group)
        if curves := seconds(result):
            labels = {place: result.strategies[place] for place in curves}
            alt = seconds_alt(labels, curves)
            found[seconds_image(name)] = standalone(cycle_seconds(curves, alt), labels, alt)
    return found


def seconds(result: Result) -> dict[int, MeanCurve]:
    """Return place of the strategy -> seconds of a cycle over labels paid for, of the runs that count."""
    return {place: curve for place, (curve, finished) in mean_cycle_seconds(result).items() if finished}


def seconds_image(name: str) -> str:
    """Return the name of the figure of the seconds of a cycle."""
    return f"experiments-{name}-seconds"


def drawn(result: Result, group: Group) -> str:
    """Return the learning curves of a group as a document, legend included."""
    part = of_group(result, group)
    curves = {place: curve for place, (curve, _) in mean_curves(part).items()}
    metric = wording.metric_name(part.runs[0].headline)
    ends = [f"{part.strategies[place]} {curve.mean[-1]:.3f}" for place, curve in curves.items()]
    alt = f"Test {metric} over labels paid for; at the end {', '.join(ends)}."
    return standalone(learning_curves(curves, metric, alt), {place: part.strategies[place] for place in curves}, alt)


def of_group(result: Result, group: Group) -> Result:
    """Return the runs of a group that count."""
    return Result([run for label in group.labels for run in measured(result.of(label))], result.info)


# -- tables ------------------------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells).replace("\n", " ") + " |" for cells in rows)]) + "\n"


def ran(name: str, result: Result) -> str:
    """Return what ran, on what."""
    config, machine = result.info["config"], result.info["machine"]
    seeds = sorted({run.seed for run in result.runs})
    facts = [
        f"Data set: {plain(config['dataset'])}; {result.info['samples']['pool']} samples to choose from, "
        f"{result.info['samples']['test']} for tests.",
        f"Learner: {plain(config['learner'])}. Initial pool: {plain(config['initial'])}. Budget: {config['budget']} "
        f"labels{f', {batch} at a time' if (batch := config.get('batch')) else ''}. Seeds: {plain(seeds)}.",
        f"Machine: {machine['processor']}, {machine['cores']} cores, on {machine['device']}; {machine['jobs']} "
        f"{'runs' if machine['jobs'] > 1 else 'run'} at a time, {config['threads']} "
        f"{'threads' if config['threads'] > 1 else 'thread'} each. "
        f"Versions: {plain(result.info['versions'])}.",
    ]
    source = next((ROOT / "experiments").rglob(f"{name}.toml"), None)
    if source is None:
        facts.append(f"Strategies: {'; '.join(parameters(spec) for spec in config['strategy'])}.")
    else:
        facts.insert(0, f"Configuration: `{source.relative_to(ROOT).as_posix()}`, with the strategies' parameters.")
    return "\n".join(f"- {fact}" for fact in facts) + "\n"


def parameters(spec: dict[str, object]) -> str:
    """Return a strategy's label and what it was given."""
    given = {key: value for key, value in spec.items() if key not in ("label", "name")}
    named = f"{spec['name']}, " if spec.get("name", spec["label"]) != spec["label"] else ""
    return f"`{spec['label']}`" + (f" ({named}{plain(given)})" if given else "")


def shown(name: str, result: Result, group: Group) -> str:
    """Return figure and table of a group."""
    summaries = {item.label: item for item in summarize(result) if item.label in group.labels}
    metric = wording.metric_name(result.runs[0].headline)
    versus = [f"AUBC minus {group.base}", f"final minus {group.base}"] if group.base else []
    paid = {tuple(summaries[label].paid) for label in group.labels if summaries[label].seeds}
    unequal = len(paid) > 1 or any(len(counts) > 1 for counts in paid)
    rows = []
    for label in group.labels:
        item = summaries[label]
        cells = [label, wording.interval(item.aubc), wording.interval(item.final)]
        if group.base:
            pair = result.of(label), result.of(group.base)
            cells += [wording.NOTHING if label == group.base else tested(*pair, figure) for figure in ("aubc", "final")]
        rows.append([*cells, *([wording.paid(item)] if unequal else []), wording.seeds(item)])
    parts = [f"### Variants of {group.name}\n"] if group.name else []
    if any(measured(result.of(label)) for label in group.labels):
        parts.append(f"![Learning curves, {group.name or name}](images/{image(name, group)}.svg)\n")
        if any(curve.runs for curve, _ in mean_curves(of_group(result, group)).values()):
            parts.append(f"{wording.THIN_LINES}\n")
    heads = ["strategy", "AUBC", f"final {metric}", *versus, *(["labels paid for"] if unequal else []), "seeds"]
    parts.append(table(heads, rows))
    parts += listed(wording.notes([summaries[label] for label in group.labels]))
    matrix = penalties([of_group(result, group)])
    if len(matrix.labels) >= FEWEST:
        parts.append(f"Who is better{f', of {matrix.equal} label counts' if matrix.equal else ''}:\n")
        parts += [matrix_table(matrix), *listed(f"Left out: {reason}" for reason in matrix.left_out)]
    return "\n".join(parts)


def listed(lines: Iterable[str]) -> list[str]:
    """Return a Markdown list as the only part, or no part."""
    items = [f"- {line}" for line in lines]
    return ["\n".join(items) + "\n"] if items else []


def matrix_table(matrix: Penalties) -> str:
    """Return a penalty matrix; its columns are the numbers of the rows, since names would make it too wide."""
    numbers = range(len(matrix.labels))
    rows = []
    for row, label in enumerate(matrix.labels):
        cells = [wording.wins(matrix, row, column) for column in numbers]
        rows.append([f"{row + 1} {label}", *cells, str(sum(matrix.wins[row]))])
    return table(["better than", *(str(number + 1) for number in numbers), "in all"], rows)


def over_all(results: dict[str, Result]) -> list[str]:
    """Return a section on who is better over all experiments, for the strategies that several of them share."""
    plain_labels = [label for result in results.values() for label in result.strategies if ", " not in label]
    shared = [label for label, number in Counter(plain_labels).items() if number > 1]
    parts = [of_group(result, Group("", shared, None)) for result in results.values()]
    matrix = penalties([replace(part, folder=Path(name)) for name, part in zip(results, parts, strict=True)])
    if len(matrix.labels) < FEWEST or matrix.settings < 2:
        return []
    said = f"Strategies that several experiments share, over the label counts of {matrix.settings} settings.\n"
    return [
        "## Who is better, over all experiments\n",
        said,
        matrix_table(matrix),
        *listed(f"Left out: {reason}" for reason in matrix.left_out),
    ]


def by_seed(runs: Iterable[RunResult], figure: str) -> dict[int, float]:
    """Return seed -> a figure of the runs that count."""
    return {run.seed: getattr(run, figure) for run in measured(runs)}


def paired(runs: Iterable[RunResult], base: Iterable[RunResult], figure: str) -> Estimate | None:
    """Return mean and interval of the differences between runs of the same seed; None without a common seed."""
    first, second = by_seed(runs, figure), by_seed(base, figure)
    return estimate([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())])


def tested(runs: Iterable[RunResult], base: Iterable[RunResult], figure: str) -> str:
    """Return the paired difference with its interval and, from two seeds on, the p value of the paired t-test."""
    runs, base = list(runs), list(base)
    comparison = compare(by_seed(runs, figure), by_seed(base, figure))
    return signed(paired(runs, base, figure)) + (f" ({wording.p_value(comparison)})" if comparison else "")


def signed(value: Estimate | None) -> str:
    """Return ``+0.0123 ± 0.0045``."""
    return ("+" if value is not None and value.mean >= 0 else "") + wording.interval(value)


COSTS = {"fit": "fit", "update": "training", "score": "scoring", "select": "selecting"}
"""Phase -> how the papers call it."""


def costs(name: str, result: Result) -> str:
    """Return figure and table of the seconds of a cycle."""
    rows = []
    for label in result.strategies:
        asked = [record for run in measured(result.of(label)) for record in run.records if record.selected]
        times = [mean(record.seconds.get(phase, 0.0) for record in asked) for phase in COSTS]
        rows.append([label, *map(wording.seconds, [*times, mean(record.query_seconds for record in asked)])])
    figure = f"![Seconds of a cycle, {name}](images/{seconds_image(name)}.svg)\n\n" if seconds(result) else ""
    text = f"### Seconds of a cycle\n\n{figure}{table(['strategy', *COSTS.values(), 'query in all'], rows)}"
    initial = mean(sum(pool.seconds.values()) for pool in result.initial)
    return text + (f"\nSelecting the initial pool: {wording.seconds(initial)} s.\n" if initial is not None else "")


def logs(result: Result) -> str:
    """Return the table of what the strategies logged: means over epochs and seeds, first query with it and last."""
    rows = []
    for label in result.strategies:
        asked = [[record.logs for record in run.records if record.selected] for run in measured(result.of(label))]
        names = dict.fromkeys(name for queries in asked for query in queries for name in query)
        for name in names:
            series = [values for queries in asked if (values := [query[name][0] for query in queries if name in query])]
            ends = [[values[end] for values in series] for end in (0, -1)]
            rows.append([label, f"`{name}`", *(f"{mean(values):.4g}" for values in ends)])
    if not rows:
        return ""
    heads = ["strategy", "logged", "first query", "last query"]
    said = "Means over the epochs of a query, and over seeds, at the first and the last query that logged it."
    return f"### What was logged\n\n{said}\n\n{table(heads, rows)}"


def initial_pools(results: dict[str, Result]) -> list[str]:
    """Return a section on experiments that differ in their initial pools alone."""
    parts = []
    names = sorted(results, key=lambda name: initial_strategy(results[name]) != BASELINE)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            first, second = results[name], results[other]
            if settings(first) == settings(second) and initial(first) != initial(second):
                parts.append(beside(name, first, other, second))
    parts = [part for part in parts if part]
    return ["## Initial pools\n", *parts] if parts else []


def initial_strategy(result: Result) -> str:
    """Return the name of what selected the initial pool."""
    return str(result.info["config"]["initial"]["strategy"]["name"])


def initial(result: Result) -> object:
    """Return how the initial pool was selected."""
    return result.info["config"]["initial"]


def same_parameters(label: str, first: Result, second: Result) -> bool:
    """Return whether a label stands for the same strategy in two results."""
    specs = [[spec for spec in one.info["config"]["strategy"] if spec["label"] == label] for one in (first, second)]
    return specs[0] == specs[1]


def settings(result: Result) -> str:
    """Return what two experiments must share to be compared, as text."""
    config = result.info["config"]
    free = ("initial", "strategy", "seeds", "threads")
    return json.dumps({key: value for key, value in config.items() if key not in free}, sort_keys=True)


def beside(name: str, first: Result, other: str, second: Result) -> str:
    """Return the table of the strategies that two experiments share; empty where there is none."""
    rows = []
    for label in first.strategies:
        pair = second.of(label), first.of(label)
        if not all(map(measured, pair)) or not same_parameters(label, first, second):
            continue
        start = [estimate([run.curve()[1][0] for run in measured(runs)]) for runs in reversed(pair)]
        rows.append([label, *map(wording.interval, start), *(signed(paired(*pair, fig)) for fig in ("aubc", "final"))])
    if not rows:
        return ""
    pools = [plain(initial(result)) for result in (first, second)]
    text = f"*A*: {pools[0]} (`{name}`). *B*: {pools[1]} (`{other}`). Differences are paired by seed.\n\n"
    metric = wording.metric_name(first.runs[0].headline)
    return text + table(
        ["strategy", f"first {metric}, A", f"first {metric}, B", "AUBC, B minus A", "final, B minus A"], rows
    )


if __name__ == "__main__":
    sys.exit(main())
