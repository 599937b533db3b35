"""The experiments of this checkout: their configurations are read, and their page is made from their results."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from scipy.stats import ttest_rel

from poolwright import Result, RunResult, config
from poolwright.report import read_json, wording, write_json
from poolwright.state import CycleRecord, InitialPool

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = ROOT / "experiments"
FILES = sorted(path.relative_to(EXPERIMENTS).as_posix() for path in EXPERIMENTS.rglob("*.toml"))


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """Return experiments/page.py as a module."""
    found = importlib.util.spec_from_file_location("poolwright_experiments_page", EXPERIMENTS / "page.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # a dataclass looks for its module there
    found.loader.exec_module(module)
    return module


# -- configurations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_a_configuration_is_read_and_names_only_what_there_is(file):
    assert config.load(EXPERIMENTS / file).strategies


@pytest.mark.parametrize("file", FILES)
def test_a_configuration_is_described(file):
    assert f"`{Path(file).name}`" in (EXPERIMENTS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", [file for file in FILES if re.search(r"(^|/)(vaal|sraal)-", file)])
def test_a_run_ends_at_forty_percent_of_what_it_says_at_its_beginning(file):
    experiment = config.load(EXPERIMENTS / file)
    if file == "papers/vaal-query-time.toml":
        assert experiment.budget == experiment.batch
        return
    # 10 % first, 5 % at a time, 40 % in the end; the papers round.
    assert experiment.batch is not None
    assert experiment.initial.size == pytest.approx(2 * experiment.batch, abs=1)
    assert experiment.budget == 6 * experiment.batch


def changes(file: str) -> list[str]:
    """Return the ``KEY=VALUE`` that the comments of a configuration say can be set."""
    comments = [line[1:] for line in (EXPERIMENTS / file).read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
    return [found.rstrip(".,:;") for found in re.findall(r"--set\s+(\S+)", " ".join(comments))]


@pytest.mark.parametrize("file", [file for file in FILES if changes(file)])
def test_what_the_comments_of_a_configuration_set_can_be_set(file):
    for change in changes(file):
        assert config.load(EXPERIMENTS / file, [change]) != config.load(EXPERIMENTS / file)


# BRAL-T's Table 5: labels at first, in the end, and in a batch; epochs. CIFAR-100-LT has no 20,000 images.
TABLE_5 = {
    "fashion-mnist": (500, 10_000, 250, 40),
    "emnist": (1000, 50_000, 500, 40),
    "cifar10": (1000, 40_000, 500, 50),
    "cifar100": (1000, 40_000, 500, 60),
    "cifar10-imb": (1000, 20_000, 500, 50),
    "cifar10-lt": (2000, 20_000, 500, 50),
    "cifar100-lt": (2000, 19_573, 500, 60),
    "breakhis": (100, 5000, 100, 30),
    "pneumonia-mnist": (100, 5000, 100, 30),
    "waterbird": (100, 4000, 100, 30),
}


@pytest.mark.parametrize("name", TABLE_5)
def test_bral_t_has_the_settings_of_its_table_5(name):
    experiment = config.load(EXPERIMENTS / "papers" / f"bral-t-{name}.toml")
    labels, epochs = experiment.initial.size, experiment.learner.model_extra["epochs"]
    assert (labels, labels + experiment.budget, experiment.batch, epochs) == TABLE_5[name]


@pytest.mark.parametrize(
    ("study", "parameters"),
    [
        ("ablation-cifar10", {"policy": "pseudo-score"}),
        ("ablation-cifar100", {"rank": 2, "lam": 0.25}),
        ("ablation-cifar10", {"curriculum": False}),
        ("agents", {"retrain_every": 20, "lam": 0.25}),
        *(("actions", {"actions": n, "lam": 0.25}) for n in (10, 50, 100)),
        *(("lambda", {"lam": value}) for value in (0.25, 1.0, 2.0)),
        ("ground-truth", {"policy": "truth", "importance": "grand", "curriculum": False}),
    ],
)
def test_the_studies_of_bral_t_are_options(study, parameters):
    experiment = config.load(EXPERIMENTS / "papers" / f"bral-t-{study}.toml")
    assert parameters in [spec.model_extra for spec in experiment.strategies if spec.name == "bral-t"]


@pytest.mark.parametrize("name", ["cifar10", "svhn", "fashion-mnist"])
def test_sral_goes_from_1000_to_7000_labels(name):
    experiment = config.load(EXPERIMENTS / "papers" / f"sral-{name}.toml")
    assert (experiment.initial.size, experiment.batch, experiment.budget) == (1000, 1000, 6000)
    ablation = next(spec for spec in experiment.strategies if spec.label == "SRAL+Random")
    assert (ablation.score.plugin, ablation.select.plugin) == ("random", "sral")


# -- the page ----------------------------------------------------------------------------------------------------


def made(strategy: str, seed: int, values: list[float], **more: float) -> RunResult:
    records = [
        CycleRecord(
            index=cycle,
            final=cycle == len(values) - 1,
            labeled=100 + 50 * cycle,
            paid=100 + 50 * cycle,
            position=cycle,
            validation={},
            test={"accuracy": value},
            selected=[7, 8] if cycle < len(values) - 1 else [],
            seconds={"fit": 2.0, "update": 4.0 if cycle < len(values) - 1 else 0.0, "score": 1.0},
            logs={"v.update.kl": [1.0 + cycle, 3.0 + cycle]} if strategy.startswith("vaal") else {},
        )
        for cycle, value in enumerate(values)
    ]
    return RunResult(strategy, seed, "accuracy", records, **more)


INFO = {
    "config": {
        "dataset": {"name": "digits", "root": "/somewhere/data"},
        "learner": {"name": "mlp"},
        "initial": {"strategy": {"name": "random"}, "size": 100},
        "budget": 100,
        "batch": 50,
        "threads": 1,
        "strategy": [
            {"label": "random", "name": "random"},
            {"label": "vaal, no VAE", "name": "vaal", "ablation": "no-vae"},
        ],
    },
    "samples": {"pool": 500, "validation": 0, "test": 50},
    "machine": {"processor": "a processor", "cores": 2, "device": "cpu", "jobs": 2},
    "versions": {"poolwright": "0"},
}


@pytest.fixture
def result() -> Result:
    runs = [
        *(made("random", seed, [0.5, 0.6, 0.7 + seed / 100]) for seed in range(3)),
        *(made("vaal", seed, [0.5, 0.7, 0.8 + seed / 50]) for seed in range(3)),
        *(made("vaal, no VAE", seed, [0.5, 0.6, 0.6]) for seed in range(3)),
    ]
    pools = [InitialPool(seed, [1, 2, 3], seconds={"update": 0.5, "select": 1.0}).as_dict() for seed in range(3)]
    return Result(runs, INFO | {"initial_pools": pools})


def rows(text: str, first: str) -> list[list[str]]:
    """Return the cells of all rows of Markdown tables that begin with ``first``."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cells[1:] for cells in lines]


def test_the_page_pairs_differences_by_seed(page, result):
    text = page.page({"made": result}, {})
    # Final differences are .10, .11, .12: mean .11, standard deviation .01, t(2) = 4.3027, over the root of 3.
    main, *_ = rows(text, "vaal")
    assert main[3] == "+0.1100 ± 0.0248 (p = 0.003)"
    assert ttest_rel([0.8, 0.82, 0.84], [0.7, 0.71, 0.72]).pvalue == pytest.approx(0.00274, abs=1e-5)
    assert rows(text, "random")[0][2:4] == ["—", "—"]
    # AUBC of random: (.5/2 + .6 + (.7 + s)/2)/2; of vaal .1 and s/4 more in the middle and at the end.
    assert main[2] == "+0.0775 ± 0.0062 (p < 0.001)"


def test_the_p_value_of_a_variant_is_that_against_its_base(page, result):
    differences = ttest_rel([0.6] * 3, [0.8, 0.82, 0.84]).pvalue
    variants = page.page({"made": result}, {}).split("### Variants of vaal")[1]
    variant, *_ = rows(variants, "vaal, no VAE")
    assert variant[3] == f"-0.2200 ± 0.0497 (p = {differences:.3f})"
    assert "p < 0.05 / k" in page.page({}, {}), "several comparisons"


def test_equal_differences_have_no_p_value_and_one_seed_no_interval(page, result):
    assert page.tested(result.of("random"), result.of("random"), "final") == "+0.0000 ± 0.0000 (no spread)"
    assert page.tested(result.of("vaal")[:1], result.of("random"), "final") == "+0.1000 (1 seed)"


def test_variants_are_compared_with_the_strategy_before_the_comma(page, result):
    text = page.page({"made": result}, {})
    assert "### Variants of vaal" in text
    variant, *_ = (cells for cells in rows(text, "vaal, no VAE") if len(cells) == 5 and "±" in cells[0] + cells[2])
    assert variant[3].startswith("-0.2200 ± ")
    assert [group.labels for group in page.groups(result)] == [["random", "vaal"], ["vaal", "vaal, no VAE"]]


def test_costs_are_those_of_cycles_that_asked(page, result):
    text = page.costs("made", result)
    assert rows(text, "vaal") == [["2.000", "4.000", "1.000", "0.000", "5.000"]]
    assert "Selecting the initial pool: 1.500 s." in text
    assert "(images/experiments-made-seconds.svg)" in text


def test_logged_series_are_shown_from_the_first_and_the_last_query(page, result, tmp_path):
    write_json(result, tmp_path / "made.json")
    text = page.logs(read_json(tmp_path / "made.json"))
    assert rows(text, "vaal") == [["`v.update.kl`", "2", "3"]]
    assert "random" not in text


def test_a_series_that_begins_late_is_shown_from_where_it_does(page):
    first, second, stopped = made("vaal", 0, [0.5] * 4), made("vaal", 1, [0.5] * 5), made("vaal", 2, [0.5])
    del first.records[0].logs["v.update.kl"], second.records[3].logs["v.update.kl"]
    for run in (first, second):
        for record in run.records:
            record.logs.update({name: values[:1] for name, values in record.logs.items()})
    # first: 2 and 3 in cycles 1 and 2; second: 1 in cycle 0, 3 in cycle 2; the third asked for nothing
    assert rows(page.logs(Result([first, second, stopped])), "vaal") == [["`v.update.kl`", "1.5", "3"]]


def test_runs_of_one_strategy_that_end_apart_are_shown_with_their_labels(page):
    runs = [made("random", seed, [0.5, 0.6, 0.7]) for seed in range(2)]
    runs += [made("own", seed, [0.5, 0.6, 0.7, 0.8][: 3 + seed]) for seed in range(2)]
    text = page.page({"made": Result(runs, INFO)}, {})
    assert next(cells[-2] for cells in rows(text, "own")) == "200 to 250"
    assert wording.THIN_LINES in text
    assert "do not compare directly" in text
    assert "labels paid for | seeds" not in page.page({"made": Result(runs[:2], INFO)}, {})


def test_hundreds_of_cycles_make_no_longer_page(page):
    short, long = (
        page.page({"made": Result([made("vaal", s, [0.5] * n) for s in range(2)], INFO)}, {}) for n in (5, 500)
    )
    assert len(long.splitlines()) == len(short.splitlines())
    drawn = page.figures({"made": Result([made("vaal", s, [0.5] * 500) for s in range(2)], INFO)})
    assert max(map(len, drawn.values())) < 100_000


def test_who_is_better_is_counted_in_each_group_and_over_all_experiments(page, result):
    third = [made("coreset", seed, [0.5, 0.5, 0.9]) for seed in range(3)]
    one = Result([*result.runs, *third], INFO)
    text = page.page({"one": one}, {})
    assert "Who is better, of 3 label counts:" in text
    # random .5 .6 .71, vaal .5 .7 .82, coreset .5 .5 .9
    assert rows(text, "1 random") == [["—", "0", "1", "1"]]
    assert rows(text, "2 vaal") == [["2", "—", "1", "3"]]
    assert rows(text, "3 coreset") == [["1", "1", "—", "2"]]
    assert "over all experiments" not in text
    other = Result(one.runs, INFO | {"config": INFO["config"] | {"budget": 200}})
    both = page.page({"one": one, "other": other}, {}).split("## Who is better, over all experiments")[1]
    assert "over the label counts of 2 settings" in both
    assert rows(both, "2 vaal") == [["4", "—", "2", "6"]]
    assert "no VAE" not in both


def test_what_failed_is_said_and_has_no_part_in_the_means(page, result):
    result.runs.append(made("vaal", 3, [0.1, 0.1], complete=False, error="out of luck"))
    text = page.page({"made": result}, {})
    assert "vaal, seed 3: failed and left out. out of luck" in text
    assert rows(text, "vaal")[0][-1] == "3 of 4"


def test_strategies_of_a_result_without_a_configuration_beside_it_are_listed(page, result):
    assert "- Strategies: `random`; `vaal, no VAE` (vaal, ablation no-vae).\n" in page.ran("made", result)
    known = page.ran("vaal-sraal-fashion-mnist", result)
    assert "- Configuration: `experiments/vaal-sraal-fashion-mnist.toml`" in known
    assert "- Strategies:" not in known


def test_results_are_those_of_the_configurations_that_they_are_named_after(page):
    for name, result in page.read_results(EXPERIMENTS / "results").items():
        for path in EXPERIMENTS.rglob(f"{name}.toml"):
            said, ran = config.load(path).as_dict(), result.info["config"]
            for spec in ran["strategy"]:
                if spec.get("name") == "abas-ral":
                    spec.pop("policy", None)  # a file that was trained ahead, named on the command line
            for key in ("strategy", "learner", "initial", "budget", "batch"):
                assert ran.get(key) == said.get(key), f"{name}: {key}"


def test_what_was_found_stands_under_the_heading(page, result):
    assert "## made\n\nNothing beats random.\n" in page.page({"made": result}, {"made": "Nothing beats random."})
    assert "No results are recorded" in page.page({}, {})


def test_experiments_that_differ_in_the_initial_pool_alone_are_laid_side_by_side(page, result):
    config = result.info["config"] | {"initial": {"strategy": {"name": "sraal-init"}, "size": 100}}
    better = Result(
        [made("random", seed, [0.6, 0.7, 0.8 + seed / 100]) for seed in range(3)], result.info | {"config": config}
    )
    text = page.page({"b": better, "c": result}, {}).split("## Initial pools")[1]
    assert "*A*: strategy random, size 100 (`c`). *B*: strategy sraal-init, size 100 (`b`)." in text
    assert rows(text, "random") == [["0.5000 ± 0.0000", "0.6000 ± 0.0000", "+0.1000 ± 0.0000", "+0.1000 ± 0.0000"]]
    retuned = config | {"strategy": [{"label": "random", "name": "random", "also": 1}]}
    tuned = Result(better.runs, result.info | {"config": retuned})
    assert "## Initial pools" not in page.page({"b": tuned, "c": result}, {}), "other parameters, another strategy"
    assert "## Initial pools" not in page.page({"b": result, "c": result}, {}), "they have the same initial pools"
    other = Result(better.runs, result.info | {"config": config | {"budget": 200}})
    assert "## Initial pools" not in page.page({"b": other, "c": result}, {})


def test_a_figure_follows_the_color_scheme_and_has_its_legend(page, result):
    import xml.etree.ElementTree as ET

    drawn = page.figures({"made": result})
    assert set(drawn) == {"experiments-made", "experiments-made-vaal", "experiments-made-seconds"}
    for svg in drawn.values():
        ET.fromstring(svg)
        assert "prefers-color-scheme: dark" in svg
        assert "#36363d" not in svg
    assert ">vaal, no VAE</text>" in drawn["experiments-made-vaal"]
    assert ">random</text>" not in drawn["experiments-made-vaal"]
    # fit 2, update 4, score 1
    assert "vaal, no VAE between 7.000 and 7.000 seconds" in drawn["experiments-made-seconds"]


def test_the_page_of_this_checkout_is_made_from_its_results(page):
    results = page.read_results(EXPERIMENTS / "results")
    assert (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8") == page.page(results, page.texts(results)), (
        "run python experiments/page.py"
    )
    kept = {path.stem for path in (ROOT / "docs" / "images").glob("experiments-*.svg")}
    assert kept == set(page.figures(results)), "run python experiments/page.py"
