from __future__ import annotations

import math

import pytest
from scipy.stats import ttest_rel

from poolwright.report import Estimate, summarize
from poolwright.report.details import mean_curves, mean_cycle_seconds
from poolwright.report.statistics import best, compare, cycle_seconds, estimate, mean_curve, phase_seconds
from poolwright.results import Result, RunResult


def by_label(result):
    return {item.label: item for item in summarize(result)}


def test_interval_of_three_seeds_by_hand():
    # mean 2, standard deviation 1, t(0.975; 2) = 4.302653 from a table
    found = estimate([1.0, 2.0, 3.0])
    assert found is not None
    assert found.mean == 2
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.n == 3


def test_one_seed_has_no_interval_and_none_no_mean():
    assert estimate([0.5]) == Estimate(0.5, None, 1)
    assert estimate([]) is None


def test_equal_seeds_have_an_interval_of_no_width():
    assert estimate([0.5, 0.5]) == Estimate(0.5, 0.0, 2)


def test_curves_of_different_batches_are_interpolated_in_their_common_span():
    curve = mean_curve([([0, 10, 20], [0.0, 1.0, 2.0]), ([5, 15, 25], [1.0, 3.0, 5.0])])
    assert curve is not None
    assert curve.labels == [5, 10, 15, 20]
    assert curve.mean == pytest.approx([0.75, 1.5, 2.25, 3.0])
    # at 10: 1 and 2, standard deviation sqrt(0.5), t(0.975; 1) = 12.706205
    assert curve.half_width is not None
    assert curve.half_width[1] == pytest.approx(12.706205 * math.sqrt(0.5) / math.sqrt(2), rel=1e-6)
    assert curve.seeds == 2


def test_a_curve_is_not_extrapolated_beyond_the_shortest():
    curve = mean_curve([([0, 10, 20, 30], [0.0, 1.0, 2.0, 3.0]), ([0, 10], [0.0, 3.0])])
    assert curve is not None
    assert curve.labels == [0, 10]
    assert curve.runs == [([0, 10, 20, 30], [0.0, 1.0, 2.0, 3.0]), ([0, 10], [0.0, 3.0])], "nothing is hidden"


def test_a_run_that_stopped_at_once_leaves_the_others_to_be_seen(run):
    runs = [run("a", 0, [0.5, 0.6, 0.8], labels=[50, 60, 90]), run("a", 1, [0.4], labels=[50])]
    curve, finished = mean_curves(Result(runs))[0]
    assert finished
    assert (curve.labels, curve.mean) == ([50], [pytest.approx(0.45)])
    assert curve.runs[0] == ([50, 60, 90], [0.5, 0.6, 0.8])


def test_seeds_between_the_same_label_counts_need_no_line_each():
    curve = mean_curve([([0, 10, 20], [0.0, 1.0, 2.0]), ([0, 5, 20], [0.0, 4.0, 2.0])])
    assert curve is not None
    assert curve.runs == []
    # seed 0 by interpolation: .5 at 5; seed 1: 4 - 2 * 5 / 15 at 10
    assert curve.mean == pytest.approx([0.0, (0.5 + 4.0) / 2, (1.0 + 4 - 10 / 15) / 2, 2.0])


def test_unequal_batches_weigh_in_the_area_by_their_size(run):
    # trapezoids over 10, 20 and 70 labels: 10 * .55 + 20 * .65 + 70 * .75 = 71, over a span of 100
    item = summarize(Result([run("a", 0, [0.5, 0.6, 0.7, 0.8], labels=[50, 60, 80, 150])]))[0]
    assert item.aubc == Estimate(pytest.approx(0.71), None, 1)
    # a batch that was paid for before moves the curve and adds no area
    again = summarize(Result([run("a", 0, [0.5, 0.6, 0.9, 0.8], labels=[50, 150, 150, 250])]))[0]
    assert again.aubc == Estimate(pytest.approx((0.55 + 0.85) / 2), None, 1)


def test_the_seconds_of_a_cycle_are_all_but_the_test_evaluation_at_the_labels_it_began_with(run):
    labels, seconds = cycle_seconds(run("a", 0, [0.5, 0.6, 0.7], labels=[50, 60, 90], query=0.25))
    assert labels == [50, 60], "the last cycle asks for nothing"
    assert seconds == pytest.approx([0.5 + 0.125 + 0.25] * 2)


def test_cycles_that_began_with_the_same_labels_are_one_point(run):
    asked = run("a", 0, [0.5, 0.6, 0.7, 0.8], labels=[50, 60, 60, 90], query=0.25)
    asked.records[2].seconds["fit"] = 1.5
    assert cycle_seconds(asked) == ([50, 60], pytest.approx([0.875, (0.875 + 1.875) / 2]))


def test_seconds_of_seeds_with_other_batches_are_interpolated(run):
    runs = [
        run("a", 0, [0.5, 0.6, 0.7, 0.8], labels=[50, 60, 90, 99]),
        run("a", 1, [0.5, 0.6, 0.7], labels=[50, 90, 99]),
    ]
    runs[1].records[1].seconds["fit"] = 0.9
    curve, finished = mean_cycle_seconds(Result([*runs, run("b", 0, [0.5])]))[0]
    assert finished
    assert curve.labels == [50, 60, 90]
    assert curve.mean == pytest.approx([0.635, 0.635 + 0.1 / 2, 0.635 + 0.4 / 2])
    assert set(mean_cycle_seconds(Result([*runs, run("b", 0, [0.5])]))) == {0}, "b asked for nothing"


def test_curves_without_a_common_span_or_points_have_no_mean():
    assert mean_curve([([0, 10], [0.0, 1.0]), ([20, 30], [0.0, 1.0])]) is None
    assert mean_curve([([], [])]) is None


def test_last_of_several_points_at_one_label_count_is_taken():
    curve = mean_curve([([10, 20, 20], [0.1, 0.2, 0.4])])
    assert curve is not None
    assert curve.mean == [0.1, 0.4]
    assert curve.half_width is None


def test_paired_test_agrees_with_scipy_over_common_seeds_only():
    ours = {0: 0.80, 1: 0.83, 2: 0.81, 9: 0.1}
    random = {2: 0.75, 1: 0.79, 0: 0.77, 7: 0.9}
    found = compare(ours, random)
    assert found is not None
    assert found.p == pytest.approx(ttest_rel([0.80, 0.83, 0.81], [0.77, 0.79, 0.75]).pvalue)
    assert found.difference == pytest.approx((0.03 + 0.04 + 0.06) / 3)
    assert found.seeds == 3


def test_paired_test_needs_two_common_seeds_and_a_spread():
    assert compare({0: 0.8, 1: 0.9}, {0: 0.7, 2: 0.9}) is None
    same = compare({0: 0.8, 1: 0.9}, {0: 0.7, 1: 0.8})
    assert same is not None
    assert same.p is None
    assert same.difference == pytest.approx(0.1)


def test_summary_holds_hand_values(sweep):
    margin = by_label(sweep)["margin"]
    # trapezoids: (0.5 + 0.7) / 2 and (0.7 + last) / 2, halved
    aubc = [(0.6 + (0.7 + last) / 2) / 2 for last in (0.8, 0.82, 0.84)]
    assert margin.aubc is not None
    assert margin.aubc.mean == pytest.approx(sum(aubc) / 3)
    assert margin.final is not None
    assert margin.final.mean == pytest.approx(0.82)
    assert margin.final.half_width == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-6)
    assert margin.query_seconds == pytest.approx(0.02)
    assert margin.fit_seconds == 0.5
    assert (margin.paid, margin.span, margin.seeds) == ([100], (50, 100), [0, 1, 2])


def test_failed_and_unfinished_runs_are_counted_and_left_out(sweep):
    item = by_label(sweep)["<b>sral & co</b>"]
    assert (item.seeds, item.runs) == ([0], 3)
    assert item.errors == [(1, "margin <gave> NaN")]
    assert item.incomplete == [2]
    assert item.final == Estimate(0.65, None, 1)
    late = by_label(sweep)["late"]
    assert (late.aubc, late.final, late.query_seconds, late.paid) == (None, None, None, [])


def test_baseline_is_not_compared_with_itself_and_others_are(sweep):
    items = by_label(sweep)
    assert items["random"].versus_baseline is None
    assert items["late"].versus_baseline is None
    assert items["<b>sral & co</b>"].versus_baseline is None, "one common seed"
    found = items["margin"].versus_baseline
    assert found is not None
    aubc = {name: [run.aubc for run in sweep.of(name)] for name in ("margin", "random")}
    assert found.p == pytest.approx(ttest_rel(aubc["margin"], aubc["random"]).pvalue)


def test_without_random_nothing_is_compared(run):
    assert by_label(Result([run("a", 0, [0.5]), run("a", 1, [0.6])]))["a"].versus_baseline is None


def test_best_leaves_upper_bounds_out_and_keeps_ties(sweep, run):
    assert best(summarize(sweep)) == {"margin"}
    assert best(summarize(Result([run("a", 0, [0.5]), run("b", 0, [0.5])]))) == {"a", "b"}
    assert best([]) == set()


def test_one_cycle_gives_its_value_and_no_query_time(run):
    item = summarize(Result([run("a", 0, [0.5])]))[0]
    assert (item.aubc, item.final) == (Estimate(0.5, None, 1), Estimate(0.5, None, 1))
    assert item.query_seconds is None


def test_runs_without_a_usable_test_metric_are_told_apart(run):
    runs = [RunResult("a", 0, "accuracy", []), run("a", 1, [0.5, math.nan]), run("a", 2, [0.5, 0.6])]
    item = summarize(Result(runs))[0]
    assert (item.unmeasured, item.seeds, item.final) == ([0, 1], [2], Estimate(0.6, None, 1))


def test_seeds_that_stopped_at_different_label_counts_have_no_common_span(run):
    item = summarize(Result([run("a", 0, [0.5, 0.6]), run("a", 1, [0.5, 0.6, 0.7])]))[0]
    assert (item.paid, item.span) == ([75, 100], None)


def test_phases_are_averaged_over_cycles_and_runs(run):
    phases = phase_seconds([run("a", 0, [0.5, 0.6]), run("a", 1, [0.5, 0.6, 0.7, 0.8])])
    assert phases["fit"] == (0.5, 1.5)


def test_an_empty_result_has_no_summary():
    assert summarize(Result([])) == []
