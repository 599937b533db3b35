"""Strangers' distributions, really installed: good ones work, broken ones are named and harm nobody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poolwright import load_result

from .third_party.environment import Environment, Outcome

HERE = Path(__file__).parent / "third_party"
SMALL = ["--learner", "linear", "--set", "learner.epochs=1", "--set", "learner.min_steps=1", "--seeds", "1"]
SMALL += ["--budget", "30", "--batch", "10", "--set", "threads=1"]
BROKEN = {
    "broken-import": "cannot be imported from poolwright_broken.absent:Strategy: ModuleNotFoundError",
    "broken-hook-name": "selekt is no hook: did you mean 'select'?",
    "broken-default": "select gives its argument 'budget' a default",
    "broken-class": "gave the class Default uninstantiated",
    "broken-specname": "choose uses specname='select'",
    "broken-undecorated": "its method select has no @hookimpl",
    "broken-length": "from score in cycle 0: there are",
    "broken-labeled": "selected 10 ids in cycle 0 that are not unlabeled",
    "broken-repeated": "selected id 0 more than once in cycle 0",
    "broken-nan": "scores in cycle 0, the first at position 3",
    "broken-none-score": "returned None from score",
    "broken-none-select": "returned None from select",
    "broken-update": "failed in update (cycle 2): ValueError: no policy for this many rewards",
}
"""Name of the plugin -> what its error says besides plugin and distribution."""
GOOD = {
    "alone": 'name = "good-score"',
    "with state": 'name = "good-memory", score = "good-score"',
    "our score, their select": 'name = "good-memory", score = "margin"',
    "our strategy, their wrapper": 'name = "margin", wrappers = [{name = "good-stop", cycles = 1}]',
}
"""Label -> a strategy made of a stranger's plugins."""
EARLY = ("broken-import", "broken-hook-name", "broken-default", "broken-class", "broken-specname", "broken-undecorated")
"""Faults that show before anything runs: an experiment that names one of them does not begin."""
LATE = tuple(name for name in BROKEN if name not in EARLY)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with all of the distributions in ``third_party``."""
    environment = Environment(tmp_path_factory.mktemp("strangers") / "venv")
    environment.install(*(HERE / name for name in ("good", "broken", "twin-a", "twin-b")))
    return environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each run has its folder, called like the run."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def outcomes(installed: Environment, folder: Path) -> dict[str, Outcome]:
    """What the command line did: runs by the name of the plugin or the case, checks and lists by their arguments."""
    runs = {name: ["--strategy", name] for name in (*EARLY, "broken-update", "broken-length", "twin")}
    # Those that can begin, and a good one, in one experiment: none harms another.
    together = [f"--strategy={name}" for name in (*LATE, "good-score")]
    composed = ", ".join(f'{{label = "{label}", {parts}}}' for label, parts in GOOD.items())
    runs |= {"together": together, "good": ["--set", f"strategy=[{composed}]"]}
    commands = {name: ["run", *SMALL, *options, "--out", str(folder / name)] for name, options in runs.items()}
    checked = ("good-score", "good-memory", "good-stop", "broken-length")
    commands |= {f"check {name}": ["check", name] for name in checked}
    commands |= {"plugins": ["plugins", "--json"], "plugins --check": ["plugins", "--json", "--check"]}
    return dict(zip(commands, installed.poolwright(*commands.values()), strict=True))


API = """
import json, sys
import poolwright as pw

errors = {}
for name in json.load(sys.stdin):
    learner = {"name": "linear", "epochs": 1, "min_steps": 1}
    try:
        pw.run(pw.Experiment(dataset="digits", learner=learner, strategies=[name], seeds=1, budget=30, batch=10))
    except pw.PoolwrightError as error:
        errors[name] = [type(error).__name__, str(error)]
print(json.dumps(errors))
"""


@pytest.fixture(scope="module")
def errors(installed: Environment) -> dict[str, list[str]]:
    """Type and message of the error that `poolwright.run` raised for each broken plugin."""
    done = installed.run("-c", API, given=json.dumps([*BROKEN, "twin", "good-score"]))
    assert done.status == 0, done.err
    found: dict[str, list[str]] = json.loads(done.out)
    return found


def one_line(text: str, *parts: str) -> str:
    """Return the only line of ``text`` in which all of ``parts`` stand (a summary may repeat it, wrapped)."""
    [line] = [line for line in text.splitlines() if all(part in line for part in parts)]
    return line


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_gives_one_line_with_its_name_and_distribution_on_the_command_line(outcomes, name):
    for run in [run for run in (name, "together") if run in outcomes and (run == name or name in LATE)]:
        outcome = outcomes[run]
        said = outcome.out + outcome.err
        assert outcome.status == 2, said
        assert "Traceback" not in said
        assert "a second line that nobody needs" not in said
        assert one_line(said, repr(name), "'poolwright-broken'", BROKEN[name])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_raises_one_line_with_its_name_and_distribution_from_python(errors, name):
    kind, message = errors[name]

    assert kind == "PluginError"
    assert "\n" not in message
    assert repr(name) in message
    assert "'poolwright-broken'" in message
    assert BROKEN[name] in message


def test_a_good_plugin_beside_broken_ones_raises_nothing(errors):
    assert "good-score" not in errors


def test_a_name_that_two_distributions_claim_is_refused_with_both(outcomes, errors):
    outcome = outcomes["twin"]
    line = one_line(outcome.out + outcome.err, "'twin'", "'poolwright-twin-a'", "'poolwright-twin-b'")

    assert outcome.status == 2
    assert errors["twin"][0] == "PluginError"
    assert line.endswith(errors["twin"][1])


def test_a_good_strategy_among_broken_ones_runs_to_its_end(outcomes, folder):
    assert outcomes["together"].status == 2
    runs = {run.strategy: run for run in load_result(folder / "together").runs}

    assert [name for name, run in runs.items() if run.complete] == ["good-score"]
    assert set(runs) == {"good-score", *LATE}


@pytest.mark.parametrize("name", EARLY)
def test_a_fault_that_shows_early_leaves_no_run_behind(outcomes, folder, name):
    assert outcomes[name].status == 2
    assert not (folder / name).exists()


def test_cycles_before_an_exception_in_update_are_kept(outcomes, folder):
    assert outcomes["broken-update"].status == 2
    [run] = load_result(folder / "broken-update").runs

    assert [record.index for record in run.records] == [0, 1]
    assert all(len(record.selected) == 10 for record in run.records)
    assert "broken-update" in run.error


def test_plugins_lists_the_good_and_the_broken_and_their_distributions(outcomes):
    listed, checked = outcomes["plugins"], outcomes["plugins --check"]
    rows = {(row["kind"], row["name"]): row for row in json.loads(listed.out)}

    assert listed.status == 0
    assert {("strategy", name) for name in (*BROKEN, "twin", "good-score", "good-memory", "margin")} <= set(rows)
    good = rows["strategy", "good-score"]
    assert (good["distribution"], good["version"]) == ("poolwright-good", "1.2.0")
    assert rows["wrapper", "good-stop"]["distribution"] == "poolwright-good"
    assert rows["strategy", "twin"]["rivals"]
    assert checked.status == 2
    problems = {row["name"]: row["problem"] for row in json.loads(checked.out)}
    assert {name for name, problem in problems.items() if problem} == {"broken-import", "twin"}


def test_listing_imports_no_plugin(installed):
    code = "import sys; from poolwright.catalog import Catalog; Catalog().entries(); print([*sys.modules])"
    modules = installed.run("-c", code).out

    assert "poolwright.catalog" in modules
    assert "poolwright_good" not in modules
    assert "torch" not in modules.split("'")


@pytest.mark.parametrize("case", GOOD)
def test_good_plugins_run_alone_and_composed_with_built_in_ones(outcomes, folder, case):
    assert outcomes["good"].status == 0, outcomes["good"].out + outcomes["good"].err
    [run] = load_result(folder / "good").of(case)

    assert run.complete
    assert run.records[0].selected


def test_a_wrapper_of_a_stranger_ends_the_run_of_a_built_in_strategy(outcomes, folder):
    assert outcomes["good"].status == 0
    [run] = load_result(folder / "good").of("our strategy, their wrapper")

    assert [len(record.selected) for record in run.records] == [10, 0]


def test_roles_of_strangers_and_built_in_plugins_are_really_those_named(outcomes, folder):
    assert outcomes["good"].status == 0
    result = load_result(folder / "good")
    [theirs], [ours] = result.of("with state"), result.of("our score, their select")

    assert theirs.records[0].selected != ours.records[0].selected
    assert "good-memory.update.falls" in ours.records[0].logs


@pytest.mark.parametrize("name", ["good-score", "good-memory", "good-stop"])
def test_good_plugins_pass_the_conformance_suite_from_the_command_line(outcomes, name):
    outcome = outcomes[f"check {name}"]

    assert outcome.status == 0, outcome.out + outcome.err
    assert "none broken" in outcome.out


def test_the_conformance_suite_refuses_a_broken_plugin(outcomes):
    outcome = outcomes["check broken-length"]

    assert outcome.status == 2
    [line] = [line for line in outcome.out.splitlines() if "FAIL" in line]
    assert "one for each unlabeled sample" in line
