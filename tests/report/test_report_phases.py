"""Query time by phase, the initial pool, logged losses and the name of mIoU on the page."""

from __future__ import annotations

import re

import pytest
from test_report_html import Page

from poolwright import run as run_experiment
from poolwright.report import figures, table, wording
from poolwright.report.html import render
from poolwright.report.statistics import query_phases
from poolwright.results import Result
from poolwright.spec import Experiment
from poolwright.state import InitialPool
from poolwright.testing import MadeDataset, MadeLearner


def cells(source: str, heading: str) -> list[list[str]]:
    """Return the rows of the table in the section ``heading`` as text."""
    part = source[source.index(f">{heading}</h2>") :]
    rows = re.findall(r"<tr>(.*?)</tr>", part[: part.index("</table>")], re.DOTALL)
    found = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in found]


HOOKS = ["training (update)", "scoring (score)", "selecting (select)"]


def test_phases_of_a_query_are_averaged_over_the_queries_that_there_were(run):
    runs = [run("a", 0, [0.5, 0.6, 0.7], query=1.0), run("a", 1, [0.5, 0.6], query=4.0)]
    assert query_phases(runs) == {"reward": 0.0, "update": 0.5, "score": 0.5, "select": 1.0}
    assert query_phases([run("a", 0, [0.5])]) is None


def test_the_page_says_for_each_strategy_how_long_training_scoring_and_selecting_took(run, info):
    runs = [run("vaal", seed, [0.5, 0.6, 0.7], query=8.0) for seed in range(2)]
    runs += [run("late", 0, [0.5, 0.6], query=4.0, complete=False), run("never", 0, [0.5])]
    rows = cells(render(Result(runs, info)), "Query time by phase")
    assert rows[0] == ["strategy", "reward", *HOOKS, "whole query"]
    assert rows[1] == ["vaal", "0.000", "2.000", "2.000", "4.000", "8.000"]
    assert rows[2] == ["late (not finished)", "0.000", "1.000", "1.000", "2.000", "4.000"]
    assert len(rows) == 3


def test_phases_of_each_strategy_are_named_by_what_happens(run, info):
    page = Page(render(Result([run("vaal", 0, [0.5, 0.6])], info)))
    for words in ("training (update)", "fitting the learner", "evaluating it on validation data"):
        assert words in page.text


# -- the initial pool --------------------------------------------------------------------------------------------


def with_pools(info, *pools):
    return info | {"initial_pools": [pool.as_dict() for pool in pools]}


def test_the_page_shows_how_the_initial_pools_were_selected(run, info):
    pools = [
        InitialPool(
            seed=seed,
            selected=[3, 1, 2],
            held_out=["cat", "<dog>"],
            seconds={"update": 7.5, "score": 0.25, "select": 0.5},
            logs={"sraal-init.update.kl": [3.0, 2.0, 1.0]},
        )
        for seed in (0, 4)
    ]
    result = Result([run("random", seed, [0.5, 0.6]) for seed in (0, 4)], with_pools(info, *pools))
    source = render(result)
    rows = cells(source, "Initial pool")
    assert rows[0] == ["seed", "samples", "classes held out", *HOOKS]
    assert rows[1:] == [[seed, "3", "cat, &lt;dog&gt;", "7.500", "0.250", "0.500"] for seed in ("0", "4")]
    page = Page(source)
    assert "Selected by random before anything was labeled" in page.text
    labels = [value for name, value in page.attributes if name == "aria-label" and "init.update.kl" in value]
    assert labels == ["sraal-init.update.kl of the initial selection, a line for each of 2 seeds"]


def test_without_classes_held_out_there_is_no_column_for_them(run, info):
    pool = InitialPool(seed=0, selected=[1], seconds={"select": 0.5})
    rows = cells(render(Result([run("random", 0, [0.5, 0.6])], with_pools(info, pool))), "Initial pool")
    assert rows == [["seed", "samples", "selecting (select)"], ["0", "1", "0.500"]]


def test_results_of_before_show_no_initial_pool(run, info):
    assert "Initial pool</h2>" not in render(Result([run("random", 0, [0.5, 0.6])], info))


# -- segmentation and long series --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes():
    """Return a run on scenes whose strategy logs a hundred losses a cycle."""
    from poolwright import hookimpl

    class Verbose:
        @hookimpl
        def update(self, cycle):
            for step in range(100):
                cycle.log("vae_loss", 100 - step + cycle.index)
                cycle.log("active_units", 7)

        @hookimpl
        def select(self, cycle, budget):
            return cycle.pool.unlabeled[:budget]

    class Scenes(MadeDataset):
        def __init__(self) -> None:
            super().__init__(task="segmentation")

    return run_experiment(
        Experiment(
            dataset=Scenes,
            learner=MadeLearner,
            strategies=[{"label": "verbose", "name": Verbose}],
            initial={"strategy": Verbose, "size": 6},
            seeds=2,
            budget=12,
            batch=4,
            threads=1,
            device="cpu",
        )
    )


def test_logged_losses_are_figures_with_a_point_a_value(scenes, monkeypatch):
    drawn: list = []
    logged = figures.logged

    def noted(series, *args, **options):
        drawn.append(series)
        return logged(series, *args, **options)

    monkeypatch.setattr(figures, "logged", noted)
    source = render(scenes)
    lines = {len(series[0]) for series in drawn}
    assert lines == {100, 400}  # the initial selection, and four cycles
    assert [len(series) for series in drawn] == [2, 2, 2, 2]
    assert drawn[-2][0][100:102] == [(1.0, 101.0), (1.01, 100.0)]
    for name in ("verbose.update.vae_loss", "verbose.update.active_units"):
        assert source.count(f"<figcaption>{name}</figcaption>") == 2
    Page(source)


def test_miou_is_named_as_the_field_writes_it(scenes):
    source = render(scenes)
    assert "mIoU on test data" in source  # the axis
    assert "final mIoU" in Page(source).text.replace("\xa0", " ")
    assert "miou" not in re.sub(r"<pre>.*?</pre>", "", source, flags=re.DOTALL)
    assert "pixel accuracy" in source
    assert wording.metric_name("miou") == "mIoU"
    from rich.console import Console

    console = Console(width=200, record=True)
    console.print(table(scenes))
    assert "mIoU" in console.export_text()
