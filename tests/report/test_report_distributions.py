"""Where runs end, in percent, and how large their batches are."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde
from tests.engine.helpers.build import play, session

import poolwright as pw
from poolwright.report import merge, metrics_table, outcomes, read_json, write_json
from poolwright.report.distributions import (
    batch_sizes,
    batches_differ,
    columns,
    differing_batches,
    histograms,
    round_width,
    samples_to_choose_from,
)
from poolwright.report.html import render
from poolwright.results import Result, RunResult

SAMPLES = {"samples": {"pool": 1000}}


class Growing:
    """Select one sample, then two, then three: batches of its own."""

    @pw.hookimpl
    def select(self, cycle, budget):
        return cycle.pool.unlabeled[: min(cycle.index + 1, budget)]


@pytest.fixture(scope="module")
def grown() -> RunResult:
    """Return a run of :class:`Growing`: 20 labels, then 10 more."""
    made = session(Growing, initial=torch.arange(20), budget=10, batch=None)
    play(made)
    return RunResult("growing", 0, "accuracy", made.history)


# -- metrics and budget ------------------------------------------------------------------------------------------


def test_mean_and_maximum_are_those_of_the_last_point_in_percent(run):
    runs = [run("a", seed, [0.9, 0.5 + seed / 10], labels=[50, 100 + 50 * seed]) for seed in range(3)]
    runs.append(run("a", 3, [0.99], complete=False))
    (found,) = outcomes(Result(runs, SAMPLES))
    assert (found.label, found.runs) == ("a", 3)
    assert (found.mean("accuracy"), found.most("accuracy")) == (pytest.approx(60), pytest.approx(70))
    assert (found.mean("precision"), found.most("f1")) == (pytest.approx(50), pytest.approx(50))
    assert found.values["budget"] == pytest.approx([10, 15, 20])
    assert (found.mean("recall"), found.most("recall")) == (None, None)


def test_the_budget_is_a_share_of_what_could_be_chosen():
    info = {"samples": {"pool": 1000}, "config": {"reserve": {"state": 0.1, "warm": 0.0333}}}
    assert samples_to_choose_from(info) == 1000 - 100 - 33
    assert samples_to_choose_from({"config": {}}) is None


def test_a_result_that_does_not_say_how_large_its_pool_is_has_no_budget_in_percent(run):
    assert columns(outcomes(Result([run("a", 0, [0.5])]))) == ["precision", "accuracy", "f1"]


def test_metrics_of_a_segmentation_stand_as_they_were_recorded(run):
    result = Result([run("a", 0, [0.5], headline="miou")], SAMPLES)
    assert columns(outcomes(result)) == ["precision", "f1", "miou", "budget"]


def test_folders_shown_together_keep_their_own_pools(run):
    small, large = (Result([run("a", 0, [0.5], labels=[50])], {"samples": {"pool": pool}}) for pool in (100, 200))
    assert [item.values["budget"] for item in outcomes(merge([small, large]))] == [[50.0], [25.0]]


def test_the_file_keeps_means_and_maxima_and_is_the_same_when_written_again(run, tmp_path):
    runs = [run("a", seed, [0.5, 1 / 3 + seed / 7]) for seed in range(3)]
    path = write_json(Result(runs, SAMPLES), tmp_path / "a.json")
    (kept,) = json.loads(path.read_text())["outcomes"]
    assert (kept["strategy"], kept["runs"]) == ("a", 3)
    assert kept["mean_percent"]["accuracy"] == pytest.approx(100 * (1 / 3 + 1 / 7), rel=1e-5)
    assert kept["max_percent"] == pytest.approx(
        {"accuracy": 61.9048, "precision": 51.9048, "f1": 41.9048, "budget": 7.5}, rel=1e-5
    )
    again = json.loads(write_json(read_json(path), tmp_path / "b.json").read_text())
    assert again["outcomes"] == [kept]


def test_the_terminal_and_the_page_show_means_and_maxima(run, shown):
    result = Result([run("a", seed, [0.5, 0.6 + seed / 10]) for seed in range(2)], SAMPLES)
    lines = [line.split() for line in shown(metrics_table(result)).splitlines()]
    assert ["a", "mean", "55.00", "65.00", "45.00", "7.50"] in lines
    assert ["max", "60.00", "70.00", "50.00", "7.50"] in lines
    page = render(result)
    for cell in ("mean of 2", "<td>65.00</td>", "<td>70.00</td>", "<td>7.50</td>"):
        assert cell in page


def test_without_a_finished_run_there_is_no_table(run, shown):
    result = Result([run("a", 0, [0.5], complete=False)], SAMPLES)
    assert outcomes(result) == []
    assert "No run is finished." in shown(metrics_table(result))
    assert "Metrics at the end" not in render(result)


# -- batches -----------------------------------------------------------------------------------------------------


def test_a_strategy_that_chooses_its_batches_is_told_by_its_records(grown):
    assert batch_sizes(grown) == [1, 2, 3, 4]
    assert grown.curve()[0] == [20, 21, 23, 26, 30]
    assert differing_batches(Result([grown])) == {"growing": [1, 2, 3, 4]}
    page = render(Result([grown]))
    assert "Sizes of 4 batches of growing, from 1 to 4" in page
    assert "Spread of the metrics" not in page, "one run has no spread"


@pytest.mark.parametrize(
    ("batches", "differ"), [([25, 25, 10], False), ([25, 10, 25], True), ([25, 10], False), ([], False)]
)
def test_the_last_batch_takes_what_is_left_and_does_not_make_batches_differ(run, batches, differ):
    assert batches_differ(run("a", 0, [0.5] * (len(batches) + 1), batches=batches)) is differ


def test_strategies_with_batches_of_one_size_have_no_histogram(run):
    assert differing_batches(Result([run("a", 0, [0.5] * 4)])) == {}
    assert "Batch sizes" not in render(Result([run("a", seed, [0.5] * 4) for seed in range(3)]))


def test_where_batches_differ_the_page_shows_the_spread_of_every_strategy(run):
    runs = [run("a", seed, [0.5, 0.6, 0.7 + seed / 50]) for seed in range(3)]
    runs += [run("b", s, [0.5] * 4, labels=[50, 53, 60, 90 + s], batches=[3, 7, 30 + s]) for s in range(12)]
    page = render(Result(runs, SAMPLES))
    assert "Sizes of 36 batches of b, from 3 to 41" in page
    assert "batches of a" not in page
    for label, several in (("a", 3), ("b", 12)):
        for metric in ("precision", "accuracy", "F1", "budget"):
            assert f"{metric} at the end of {several} runs of {label}, from" in page
    assert "accuracy at the end of 3 runs of a, from 70.00 % to 74.00 %" in page


# -- histograms --------------------------------------------------------------------------------------------------


def test_bins_are_round_common_to_all_and_hold_every_value():
    first, second = histograms([[1, 2, 2, 30], [12, 40]], whole=True)
    assert first.edges == second.edges == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert first.counts == [3, 0, 0, 0, 0, 0, 1, 0, 0]
    assert second.counts == [0, 0, 1, 0, 0, 0, 0, 0, 1]


def test_equal_values_stand_between_empty_bins_and_have_no_density():
    (only,) = histograms([[25.0] * 50])
    assert only.counts == [0, 50, 0]
    assert only.density is None
    (zeros,) = histograms([[0.0, 0.0]])
    assert zeros.counts == [0, 2, 0]


def test_the_density_is_the_kernel_estimate_on_the_scale_of_the_counts():
    draw = random.Random(3)
    values = [draw.gauss(70, 2) for _ in range(50)]
    (found,) = histograms([values])
    x, y = np.array(found.density).T
    width = found.edges[1] - found.edges[0]
    assert y == pytest.approx(gaussian_kde(values)(x) * 50 * width)
    assert np.trapezoid(y, x) == pytest.approx(sum(found.counts) * width, rel=0.1)
    assert (x[0], x[-1]) == (found.edges[0], found.edges[-1])


def test_few_values_have_no_density():
    assert [some.density is None for some in histograms([list(range(9)), list(range(10))])] == [True, False]


@pytest.mark.parametrize(
    ("least", "whole", "width"),
    [(0.3, False, 0.5), (0.3, True, 1), (7.0, True, 10), (2.0, False, 2), (0.011, False, 0.02)],
)
def test_widths_are_one_two_or_five_times_a_power_of_ten(least, whole, width):
    assert math.isclose(round_width(least, whole=whole), width)
