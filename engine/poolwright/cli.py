"""The command line. Torch, plugins and everything heavy are imported by the command that needs them."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._version import __version__
from .errors import ConfigError, PoolwrightError

if TYPE_CHECKING:
    from .spec import Experiment

app = typer.Typer(
    name="poolwright",
    help="Active learning: from a pool too large to label, pick the samples worth labelling.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; what the user can mend is one line on stderr and exit status 2."""
    try:
        app()
    except PoolwrightError as error:
        print(f"poolwright: {error}", file=sys.stderr)  # noqa: T201 - the one place that speaks for errors
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"poolwright {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


# -- run and report ----------------------------------------------------------------------------------------------


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Argument(help="Experiment in TOML. Without it: a demonstration on scikit-learn's digits.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set, by name.")] = None,
    learner: Annotated[str | None, typer.Option(help="Learner, by name.")] = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="Strategy, by name; repeat for several (replaces the configuration's).")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, as in learner.epochs=5 or badge.PARAMETER=1."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds.")] = None,
    budget: Annotated[int | None, typer.Option(min=0, help="Labels to buy after the initial pool.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Labels to ask for in a cycle.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/<data set>-<date> by default.", show_default=False)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, however it was stopped.")
    ] = False,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs side by side, each in a process of its own; they share the threads.")
    ] = 1,
) -> None:
    """Compare strategies on a data set; without arguments, the demonstration.

    Runs every strategy with every seed, keeps journal and checkpoints in a folder, and ends with a table and a
    self-contained report.html. Stop it at any time; --resume goes on where it was.
    """
    options = {"dataset": dataset, "learner": learner, "seeds": seeds, "budget": budget, "batch": batch}
    experiment = _experiment(config, options, strategy or [], set_ or [], out if resume else None)
    if resume and out is None:
        raise ConfigError("--resume needs the folder to go on with: add --out DIR")
    folder = out or Path("runs") / f"{experiment.dataset.as_dict()['name']}-{datetime.now():%Y%m%d-%H%M%S}"

    from .experiment import run as run_experiment
    from .folder import load_result
    from .screen import RunDisplay, console, stderr_logging

    stderr_logging()
    try:
        with RunDisplay(experiment, jobs) as display:
            run_experiment(experiment, folder, resume=resume, listener=display, keep_going=True, jobs=jobs)
    except KeyboardInterrupt:
        more = f" --jobs {jobs}" if jobs > 1 else ""
        console.print(f"\nStopped. To go on:  poolwright run --resume --out {folder}{more}")
        raise typer.Exit(130) from None
    result = load_result(folder)  # with the strategies that the folder held before
    page = _show(result, folder / "report.html", reasons=False)
    console.print(f"\nReport: {page.absolute().as_uri()}", soft_wrap=True)
    if config is None and not (strategy or dataset or learner or resume):
        console.print(
            "\nNext, for example (after `source .venv/bin/activate` in a checkout):\n"
            "  poolwright run --strategy entropy --strategy badge --seeds 5     compare others\n"
            "  poolwright plugins                                               what is installed\n"
            "  poolwright new my-strategy                                       write your own\n"
            "  poolwright select --features F.npy -k 100                        pick from your own embeddings",
            highlight=False,
            soft_wrap=True,
        )
    if result.failures:
        raise typer.Exit(2)


def _experiment(
    config: Path | None, options: dict[str, Any], strategies: list[str], overrides: list[str], saved: Path | None
) -> Experiment:
    """Read the configuration: a file, that of the run to go on with, or the demonstration; then the options."""
    import json

    from . import config as reader

    changes = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    if strategies:
        changes.append("strategy=[" + ", ".join(f"{{name = {json.dumps(name)}}}" for name in strategies) + "]")
    changes += overrides
    if config is not None:
        return reader.load(config, changes)
    if saved is not None:
        from .folder import read_description

        return reader.load(read_description(saved)["config"], changes)
    return reader.load(reader.DEMONSTRATION, changes)


def _show(result: Any, page: Path, *, reasons: bool = True) -> Path:
    """Print the table and write the page; ``reasons`` of failures have been told already while a run went on."""
    from . import report as reports
    from .screen import console

    console.print(reports.table(result, reasons=reasons))
    reports.write_html(result, page)
    return page


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of runs, or files that --json wrote; several are shown together.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML file; report.html in the first folder by default, or beside the first file.", show_default=False
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(help="Keep the figures of one folder in this JSON file, without the ids.", show_default=False),
    ] = None,
    metrics: Annotated[
        bool,
        typer.Option("--metrics", help="Show mean and maximum of every metric and of the budget, in percent, too."),
    ] = False,
    penalties: Annotated[
        bool,
        typer.Option(
            "--penalties",
            help="Show only who is better at how many budgets, pair by pair; the data sets may differ.",
        ),
    ] = False,
) -> None:
    """Show the table of one or more runs, finished or not, and write their report.html."""
    from . import report as reports
    from .folder import load_result
    from .screen import console

    if json is not None and len(folders) > 1:
        raise ConfigError("--json keeps the figures of one folder: give one, and report on the files together later")
    if penalties and (out or json or metrics):
        raise ConfigError(
            "--penalties only shows the matrix: leave out --out, --json and --metrics, or ask for them apart"
        )
    results = [reports.read_json(f) if f.suffix == ".json" else load_result(f) for f in folders]
    if penalties:
        console.print(reports.penalties_table(results))
        return
    result = reports.merge(results)
    if json is not None:
        reports.write_json(result, json)
    beside = folders[0].with_suffix(".html") if folders[0].suffix == ".json" else folders[0] / "report.html"
    page = _show(result, out or beside)
    if metrics:
        console.print(reports.metrics_table(result))
    console.print(f"\nReport: {page.absolute().as_uri()}", soft_wrap=True)


@app.command("train-policy")
def train_policy(
    config: Annotated[Path, typer.Argument(help="Experiment in TOML: data set, learner, reserves, strategy.")],
    out: Annotated[Path, typer.Option(help="The policy to write; it must not be there.")],
    strategy: Annotated[
        str | None, typer.Option(help="Label of the strategy, where several can be trained ahead.", metavar="LABEL")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, as in learner.epochs=5 or LABEL.PARAMETER=1."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the training; the first of the configuration by default.", show_default=False)
    ] = None,
) -> None:
    """Train a strategy's policy ahead of the runs that use it.

    Every piece of the training is kept beside OUT, with .part behind its name. Stop it at any time: the same command
    goes on where it was. Then use it:  poolwright run CONFIG --set LABEL.policy=OUT
    """
    import shlex

    experiment = _experiment(config, {}, [], set_ or [], None)

    from .policy_training import train_policy as train
    from .screen import PolicyDisplay, console, stderr_logging

    stderr_logging()
    display = PolicyDisplay()
    changes = [part for item in set_ or [] for part in ("--set", item)]
    try:
        with display:
            train(experiment, strategy, out, seed=seed, listener=display)
    except KeyboardInterrupt:
        more = [*changes, *([] if strategy is None else ["--strategy", strategy])]
        more += [] if seed is None else ["--seed", str(seed)]
        command = shlex.join(["poolwright", "train-policy", str(config), "--out", str(out), *more])
        console.print(f"\nStopped. To go on:  {command}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    spec = next(spec for spec in experiment.strategies if spec.label == display.label)
    key = spec.label if spec.name == display.plugin else display.plugin  # of a role, it goes by its own name
    use = shlex.join(["poolwright", "run", str(config), *changes, "--set", f"{key}.policy={out}"])
    console.print(f"Policy: {out}\nTo use it:  {use}", markup=False, highlight=False, soft_wrap=True)


# -- select ------------------------------------------------------------------------------------------------------


@app.command()
def select(
    features: Annotated[Path, typer.Option(help="Embeddings, .npy (n, d), floating point.")],
    k: Annotated[int, typer.Option("-k", min=0, help="How many ids to select.")],
    labeled: Annotated[Path | None, typer.Option(help="Ids that are labeled already: .npy, .txt or .csv.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Classes of all rows, .npy, -1 where unknown.")] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="Probabilities of your own model, .npy (n, classes).")
    ] = None,
    strategy: Annotated[str, typer.Option(help="Strategy, by name.")] = "coreset",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the strategy.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the strategy's random stream.")] = 0,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            help="What a kernel or one output of the classifier may take beside the features, e.g. 8GiB; "
            "a quarter of the memory by default."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the ids go: .csv, .txt or .npy.")] = Path("picks.csv"),
) -> None:
    """Select the next k ids from a matrix of embeddings."""
    from . import files
    from .config import override
    from .rows import parse_size
    from .screen import console
    from .selection import select as select_ids

    files.check_ids_path(out)
    if out.exists() and any(
        path and path.exists() and path.samefile(out) for path in (features, labeled, labels, probabilities)
    ):
        raise ConfigError(f"--out {out} is one of the files to read: choose another, or it would be overwritten")
    params: dict[str, Any] = {}
    for item in set_ or []:
        override(params, item)
    ids = select_ids(
        files.read_matrix(features),
        k,
        strategy,
        labeled=files.read_ids(labeled) if labeled else None,
        labels=files.read_vector(labels) if labels else None,
        probabilities=files.read_matrix(probabilities) if probabilities else None,
        params=params,
        seed=seed,
        memory_limit=parse_size(memory_limit) if memory_limit else None,
    )
    files.write_ids(out, ids)
    console.print(f"{len(ids)} ids selected by {strategy}, written to {out}", highlight=False)


# -- plugins -----------------------------------------------------------------------------------------------------


@app.command()
def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    check_: Annotated[bool, typer.Option("--check", help="Import each plugin; exit with 2 if one is broken.")] = False,
) -> None:
    """List what is installed: strategies, learners, data sets, wrappers, and who provides them."""
    import json

    from .catalog import KINDS, Catalog

    entries = Catalog().entries()
    problems = {entry: entry.problem() if check_ else "" for entry in entries}
    if as_json:
        rows = [
            {
                "kind": entry.kind,
                "name": entry.name,
                "target": entry.target,
                "distribution": entry.distribution,
                "version": entry.version,
                "rivals": list(entry.rivals),
                **({"problem": problems[entry] or None} if check_ else {}),
            }
            for entry in entries
        ]
        typer.echo(json.dumps(rows, indent=2))
    else:
        width = max((len(entry.name) for entry in entries), default=0) + 2
        for kind, plural in KINDS.items():
            typer.echo(f"{plural}:")
            for entry in entries:
                if entry.kind == kind:
                    rivals = (
                        f", also claimed by {', '.join(entry.rivals)}: uninstall all but one" if entry.rivals else ""
                    )
                    typer.echo(f"  {entry.name:<{width}}{entry.distribution} {entry.version}{rivals}")
                    if problems[entry]:
                        typer.echo(f"    {problems[entry]}")
    if any(problems.values()):
        raise typer.Exit(2)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the plugin, as in my-strategy.")],
    learner: Annotated[bool, typer.Option("--learner", help="A learner instead of a strategy.")] = False,
    dataset: Annotated[bool, typer.Option("--dataset", help="A data set instead of a strategy.")] = False,
    wrapper: Annotated[bool, typer.Option("--wrapper", help="A wrapper instead of a strategy.")] = False,
    folder: Annotated[Path, typer.Option(help="Where the package's folder is made.")] = Path(),
) -> None:
    """Write an installable package with a plugin, a test that checks its conformance, and a README."""
    from .scaffold import create

    kinds = [kind for kind, wanted in (("learner", learner), ("dataset", dataset), ("wrapper", wrapper)) if wanted]
    if len(kinds) > 1:
        raise ConfigError("--learner, --dataset and --wrapper exclude each other: give one")
    kind = kinds[0] if kinds else "strategy"
    path = create(name, kind, folder)
    use = {
        "strategy": f"poolwright run --strategy {name}",
        "learner": f"poolwright run --learner {name}",
        "dataset": f"poolwright run --dataset {name}",
        "wrapper": f"poolwright run --set 'wrappers=[\"{name}\"]'",
    }[kind]
    typer.echo(f"Wrote {path}. Next:\n  pip install -e {path}\n  poolwright check {name}\n  {use}")


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Name of an installed plugin.")],
    kind: Annotated[
        str | None, typer.Option(help="strategy, learner, dataset or wrapper; needed where a name is several.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the plugin's constructor.")
    ] = None,
) -> None:
    """Run the conformance suite on an installed plugin: a line a rule, exit status 2 if one is broken."""
    from .catalog import KINDS, TITLES, Catalog
    from .config import override
    from .errors import UnknownNameError, close_matches

    catalog = Catalog()
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"--kind {kind!r}: {close_matches(kind, KINDS)}")
    kinds = [kind] if kind else [k for k in KINDS if name in catalog.names(k)]
    if not kinds:
        known = [entry.name for entry in catalog.entries()]
        raise UnknownNameError(f"no plugin is called {name!r}: {close_matches(name, known)}")
    if len(kinds) > 1:
        raise ConfigError(f"{name!r} is a {' and a '.join(TITLES[k] for k in kinds)}: add --kind {kinds[0]}")
    params: dict[str, Any] = {}
    for item in set_ or []:
        override(params, item)

    from .screen import show_findings
    from .testing import check_plugin

    findings = check_plugin(kinds[0], name, params)
    show_findings(f"{TITLES[kinds[0]]} {name}", findings)
    if any(finding.failed for finding in findings):
        raise typer.Exit(2)


@app.command(
    add_help_option=False,  # the benchmarks have a parser of their own, which also answers --help
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bench(context: typer.Context) -> None:
    """Time the kernels beside their peers; --help lists the options."""
    from importlib.metadata import entry_points

    points = list(entry_points(group="poolwright.benchmarks", name="bench"))
    if not points:
        raise ConfigError("the benchmarks are not in this installation: install Poolwright from its sources")
    raise typer.Exit(points[0].load()(context.args))


@app.command()
def doctor() -> None:
    """Show what this installation has: versions, devices, native kernels, broken plugins, and what to do."""
    from .screen import show_doctor

    if not show_doctor(os.environ):
        raise typer.Exit(2)


if __name__ == "__main__":
    main()
