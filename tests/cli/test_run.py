"""``poolwright run`` and ``poolwright report``."""

from __future__ import annotations

import json

import pytest
import torch

import poolwright as pw
from poolwright import load_result
from poolwright.config import load

from .conftest import SMALL


def test_run_without_a_configuration_compares_the_demonstrations_strategies(poolwright, tmp_path):
    outcome = poolwright("run", "--out", tmp_path / "run", *SMALL)
    assert outcome.status == 0
    for name in ("random", "margin", "coreset", "badge", "bral-t"):
        assert name in outcome.out
    assert (tmp_path / "run" / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert "poolwright plugins" in outcome.out
    result = load_result(tmp_path / "run")
    assert [run.strategy for run in result.runs] == ["random", "margin", "coreset", "badge", "bral-t"]
    assert result.runs[0].curve()[0] == [50, 70, 90]


def test_runs_side_by_side_are_those_of_one_process(poolwright, tmp_path):
    for jobs in (1, 2):
        arguments = ["--strategy", "margin", "--strategy", "random", "--set", "threads=1", *SMALL]
        outcome = poolwright("run", "--out", tmp_path / str(jobs), "--jobs", jobs, *arguments)
        assert outcome.status == 0, outcome.err
        assert "run 2/2: " in outcome.out
    one, two = (load_result(tmp_path / str(jobs)) for jobs in (1, 2))
    assert [[r.selected for r in run.records] for run in two.runs] == [
        [r.selected for r in run.records] for run in one.runs
    ]
    assert (tmp_path / "2" / "report.html").exists()


def test_report_shows_a_run_again_and_merges_others(poolwright, tmp_path):
    for name in ("entropy", "random"):
        assert poolwright("run", "--strategy", name, "--out", tmp_path / name, *SMALL).status == 0
    outcome = poolwright("report", tmp_path / "entropy", tmp_path / "random", "--out", tmp_path / "both.html")
    assert outcome.status == 0
    assert "entropy" in outcome.out
    assert "random" in outcome.out
    page = (tmp_path / "both.html").read_text()
    assert "entropy" in page
    assert "random" in page


def test_report_shows_metrics_and_who_is_better_where_it_is_asked(poolwright, tmp_path):
    run = ["--strategy", "random", "--strategy", "margin", "--strategy", "entropy", "--out", tmp_path / "a", *SMALL]
    assert poolwright("run", *run).status == 0
    assert "precision" not in poolwright("report", tmp_path / "a").out
    outcome = poolwright("report", tmp_path / "a", "--metrics")
    assert outcome.status == 0
    heads = next(line.split() for line in outcome.out.splitlines() if "precision" in line)
    assert heads == ["strategy", "precision", "accuracy", "recall", "F1", "budget"]
    result = load_result(tmp_path / "a")
    budget = 100 * 90 / result.info["samples"]["pool"]
    assert f"{100 * result.runs[0].final:.2f}" in outcome.out
    assert f"{budget:.2f}" in outcome.out
    assert poolwright("report", tmp_path / "a", "--json", tmp_path / "b.json").status == 0
    (tmp_path / "a" / "report.html").unlink()

    matrix = poolwright("report", tmp_path / "a", tmp_path / "b.json", "--penalties")
    assert matrix.status == 0, matrix.err
    assert "of 3 budgets" in matrix.out
    assert "random [b]" in matrix.out
    assert not (tmp_path / "a" / "report.html").exists()
    refused = poolwright("report", tmp_path / "a", "--penalties", "--metrics")
    assert refused.status == 2
    assert "--penalties only shows the matrix" in refused.err


def test_the_figures_of_a_run_are_kept_in_a_file_and_reported_on_again(poolwright, tmp_path):
    for name in ("entropy", "random"):
        assert poolwright("run", "--strategy", name, "--out", tmp_path / name, *SMALL).status == 0
        kept = poolwright("report", tmp_path / name, "--json", tmp_path / f"{name}.json")
        assert kept.status == 0, kept.err
    outcome = poolwright("report", tmp_path / "entropy.json", tmp_path / "random", "--out", tmp_path / "both.html")
    assert outcome.status == 0, outcome.err
    assert "entropy" in outcome.out
    assert "random" in (tmp_path / "both.html").read_text()
    assert poolwright("report", tmp_path / "entropy.json").status == 0
    assert (tmp_path / "entropy.html").exists()
    refused = poolwright("report", tmp_path / "entropy", tmp_path / "random", "--json", tmp_path / "x.json")
    assert refused.status == 2
    assert "--json keeps the figures of one folder" in refused.err
    assert poolwright("report", tmp_path / "none.json").status == 2


def test_a_configuration_file_runs_with_roles_wrappers_and_labels(poolwright, tmp_path):
    (tmp_path / "a.toml").write_text(
        """
        seeds = [7]
        budget = 60
        batch = 20
        [dataset]
        name = "digits"
        validation = 0.1
        subset = 400
        [learner]
        name = "linear"
        epochs = 3
        [initial]
        size = 30
        [[strategy]]
        label = "margin picked by k-means"
        score = "margin"
        wrappers = [{ name = "stop-when", metric = "accuracy", threshold = 0.0 }]
        [[strategy]]
        label = "to the end"
        name = "entropy"
        """
    )
    outcome = poolwright("run", tmp_path / "a.toml", "--out", tmp_path / "run")
    assert outcome.status == 0, outcome.err
    stopped, whole = load_result(tmp_path / "run").runs
    assert (stopped.seed, len(stopped.records)) == (7, 1)
    assert whole.curve()[0] == [30, 50, 70, 90]


def test_resume_goes_on_with_the_saved_configuration_and_adds_strategies(poolwright, tmp_path):
    out = tmp_path / "run"
    poolwright("run", "--strategy", "margin", "--out", out, *SMALL)
    before = load_result(out).runs[0].records
    outcome = poolwright("run", "--resume", "--out", out, "--strategy", "margin", "--strategy", "random")
    assert outcome.status == 0, outcome.err
    result = load_result(out)
    assert [run.strategy for run in result.runs] == ["margin", "random"]
    assert result.runs[0].records == before
    alone = poolwright("run", "--resume", "--out", out, "--strategy", "random")
    assert "margin" in alone.out
    assert [run.strategy for run in load_result(out).runs] == ["margin", "random"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--strategy", "margn"], ["strategy 'margn'", "did you mean 'margin'"]),
        (["--dataset", "digit"], ["data set 'digit'", "did you mean 'digits'"]),
        (["--learner", "mpl"], ["learner 'mpl'", "did you mean 'mlp'"]),
        (["--strategy", "mlp"], ["it is the name of a learner"]),
        (["--budget", "5000"], ["budget = 5000", "lower it to"]),
        (["--set", "learner.start=wram"], ["learner.start = 'wram'", "'scratch'"]),
        (["--set", "report_learner.name=mlp", "--set", "report_learner.start=warm"], ["no parameter 'start'"]),
        (["--set", "batch=0"], ["batch = 0", "greater than or equal to 1"]),
        (["--set", "learner.epochz=3"], ["no parameter 'epochz'", "epochs"]),
        (["--set", "dataset.validaton=0.1"], ["no parameter 'validaton'", "validation"]),
        (["--set", "bugdet=3"], ["unknown key 'bugdet'", "did you mean 'budget'"]),
        (["--set", "budget"], ["write KEY=VALUE"]),
        (["--set", "bagde.x=3"], ["'bagde'", "did you mean 'badge'"]),
        (["--set", "dataset.validation=2.5"], ["dataset.validation = 2.5"]),
        (["--set", "initial.size=5000"], ["initial.size = 5000"]),
        (["--set", "initial.strategy=margin"], ["the initial pool", "probabilities"]),
        (["--set", "device=cuda:x"], ["device = 'cuda:x'"]),
        (["--set", "oracle.rate=2"], ["oracle.rate = 2"]),
        (["--set", "memory_limit=much"], ["memory size", "8GiB"]),
        (["--set", "reserve.state=2"], ["reserve", "share between 0 and 1"]),
    ],
)
def test_a_mistake_is_one_line_that_says_what_and_the_way_out(poolwright, tmp_path, arguments, words):
    outcome = poolwright("run", *arguments, "--out", tmp_path / "run")
    assert outcome.status == 2
    lines = (outcome.err + outcome.out).strip().splitlines()
    said = [line for line in lines if all(word in line for word in words)]
    assert len(said) >= 1, lines
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("budget = 10\nbugdet = 3\n[[strategy]]\nname = 'random'", ["a.toml, line 2", "'bugdet'", "'budget'"]),
        ("budget = -1\n[[strategy]]\nname = 'random'", ["a.toml, line 1", "budget = -1"]),
        ("[[strategy]]\nname = 'random'\n[[strategy]]\nname = 'margn'", ["a.toml, line 4", "'margn'", "'margin'"]),
        ("[[strategy]]\nname = 'random'\n\n[learner]\nname = 'mlp'\nepocs = 3", ["a.toml, line 6", "epocs", "epochs"]),
        ("[[strategy]]\nname = 'badge'\n[oracle]\nrat = 3", ["a.toml, line 4", "'rat'", "'rate'"]),
        ("[[strategy]]\nname = 'random'\n[[strategy]]\nname = 'random'", ["two strategies are labeled 'random'"]),
        ("[[strategy]]\nscor = 'random'", ["a.toml, line 1", "'scor'", "'score'"]),
        ("budget = 10", ["strategy is missing"]),
        ("budget = \nseeds = 3", ["a.toml is not valid TOML", "line 1"]),
    ],
)
def test_a_mistake_in_a_file_names_the_line(poolwright, tmp_path, text, words):
    (tmp_path / "a.toml").write_text(text)
    outcome = poolwright("run", tmp_path / "a.toml", "--out", tmp_path / "run")
    assert outcome.status == 2
    assert all(word in outcome.err for word in words), outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_another_run_is_left_alone(poolwright, tmp_path):
    out = tmp_path / "run"
    poolwright("run", "--strategy", "random", "--out", out, *SMALL)
    before = (out / "experiment.json").read_text()
    again = poolwright("run", "--strategy", "random", "--out", out, *SMALL)
    assert again.status == 2
    assert "--resume" in again.err
    other = poolwright("run", "--resume", "--out", out, "--budget", "60")
    assert other.status == 2
    assert "another budget (40, now 60)" in other.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    foreign = poolwright("run", "--strategy", "random", "--out", tmp_path / "full")
    assert foreign.status == 2
    assert "thesis.tex" in foreign.err
    assert (out / "experiment.json").read_text() == before
    assert json.loads(before)["config"]["budget"] == 40


def test_resume_needs_a_folder_with_a_run(poolwright, tmp_path):
    assert "--out DIR" in poolwright("run", "--resume").err
    outcome = poolwright("run", "--resume", "--out", tmp_path / "nothing")
    assert outcome.status == 2
    assert "holds no Poolwright run" in outcome.err
    assert poolwright("report", tmp_path / "nothing").status == 2


def test_a_data_folder_that_is_not_there_is_named_with_the_way_to_get_it(poolwright, tmp_path):
    outcome = poolwright(
        "run", "--dataset", "fashion-mnist", "--set", f"dataset.root={tmp_path / 'none'}", "--out", tmp_path / "run"
    )
    assert outcome.status == 2
    assert str(tmp_path / "none") in outcome.err
    assert "download" in outcome.err


def test_the_initial_pool_can_be_selected_on_a_pretrained_learner(poolwright, tmp_path):
    dataset = pw.load_dataset("digits")
    oracle = pw.DatasetOracle(dataset.pool)
    session = pw.Session(dataset, learner="linear", strategy="random", initial=100, budget=0, oracle=oracle)
    while session.advance() is not None:
        session.answer()
    torch.save(session.training.learner.state_dict(), tmp_path / "weights.pt")

    learner = f'initial.learner={{name = "linear", weights = "{tmp_path / "weights.pt"}"}}'
    changes = ["--set", "initial.strategy=coreset", "--set", learner, "--strategy", "random", *SMALL]
    outcome = poolwright("run", "--out", tmp_path / "run", *changes)
    assert outcome.status == 0, outcome.err
    refused = poolwright("run", "--out", tmp_path / "other", *changes, "--set", "initial.learner.weights=none.pt")
    assert refused.status == 2
    assert "none.pt" in refused.err + refused.out


def test_a_table_without_a_name_means_the_demonstrations_plugin(tmp_path):
    (tmp_path / "a.toml").write_text("[learner]\nhidden = [8]\n[dataset]\nsubset = 300\n[[strategy]]\nname = 'random'")
    experiment = load(tmp_path / "a.toml")
    assert (experiment.learner.name, experiment.dataset.name) == ("mlp", "digits")


def test_a_mistake_in_python_is_a_config_error_with_its_key():
    with pytest.raises(pw.ConfigError, match="unknown key 'bugdet': did you mean 'budget'") as caught:
        pw.Experiment(strategies=["random"], bugdet=3)
    assert caught.value.key == ("bugdet",)
    with pytest.raises(pw.ConfigError, match="budget = -1"):
        pw.Experiment(strategies=["random"], budget=-1)
    with pytest.raises(pw.ConfigError, match=r"unknown key 'scor'.*'score'"):
        pw.Session(pw.load_dataset("digits"), strategy={"scor": "margin"}, budget=3)
