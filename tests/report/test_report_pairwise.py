"""Who is better at how many budgets."""

from __future__ import annotations

import math

import pytest

from poolwright.report import merge, penalties, penalties_table, read_json, write_json
from poolwright.report.html import render
from poolwright.report.merging import apart
from poolwright.report.pairwise import settings
from poolwright.results import Result


def result(runs, **config):
    return Result(runs, {"config": {"dataset": {"name": "digits"}, **config}} if config else {})


@pytest.fixture
def three(run):
    """Give three strategies with two seeds; the first budget is shared."""
    runs = [run("a", seed, [0.5, 0.7, 0.8, 0.6 + seed / 10]) for seed in range(2)]
    runs += [run("b", seed, [0.5, 0.6, 0.8, 0.8]) for seed in range(2)]
    runs += [run("c", seed, [0.5, 0.5 + 0.4 * seed, 0.7, 0.9]) for seed in range(2)]
    return runs


def test_every_better_mean_counts_once_and_a_tie_for_nobody(three):
    found = penalties([result(three)])
    assert found.labels == ["a", "b", "c"]
    # means: a .5 .7 .8 .65; b .5 .6 .8 .8; c .5 .7 .7 .9
    assert found.wins == [[0, 1, 1], [1, 0, 1], [1, 2, 0]]
    assert found.budgets == [[0, 4, 4], [4, 0, 4], [4, 4, 0]]
    assert (found.equal, found.settings, found.left_out) == (4, 1, [])


def test_means_that_differ_by_rounding_alone_are_a_tie(run):
    assert 0.1 + 0.2 != 0.3
    runs = [run("a", seed, [value]) for seed, value in enumerate([0.1, 0.2])]
    runs += [run("b", seed, [value]) for seed, value in enumerate([0.3, math.ulp(0.3)])]
    assert penalties([result(runs)]).wins == [[0, 0], [0, 0]]


def test_only_seeds_that_both_have_are_averaged(run):
    runs = [run("a", 0, [0.5, 0.6]), run("a", 1, [0.5, 0.1]), run("b", 0, [0.5, 0.55]), run("b", 2, [0.5, 0.9])]
    runs += [run("c", 3, [0.5, 0.9])]
    found = penalties([result(runs)])
    assert found.wins[0][1] == 1
    assert found.wins[1][0] == 0
    assert found.budgets[0] == [0, 2, 0], "a and c share no seed"
    assert found.equal is None


def test_settings_add_up_over_the_strategies_that_both_have(run, three):
    other = [run("a", 0, [0.1, 0.9]), run("c", 0, [0.1, 0.2]), run("d", 0, [0.2, 0.3])]
    found = penalties([result(three, budget=75), result(other, budget=25)])
    assert found.labels == ["a", "b", "c", "d"]
    # a over c: 1 of 4 before, 1 of 2 now; c over a: 1 of 4 before
    assert (found.wins[0][2], found.wins[2][0], found.budgets[0][2]) == (2, 1, 6)
    assert (found.wins[3][0], found.wins[0][3], found.budgets[0][3], found.budgets[1][3]) == (1, 1, 2, 0)
    assert (found.settings, found.equal) == (2, None)


def test_folders_of_one_setting_are_compared_with_each_other(run):
    first = result([run("a", 0, [0.5, 0.6]), run("b", 0, [0.5, 0.7])], budget=25, seeds=1, strategy=["a", "b"])
    second = result([run("b", 0, [0.5, 0.8]), run("c", 0, [0.5, 0.9])], budget=25, seeds=3, strategy=["b", "c"])
    ((name, together),) = settings([first, second])
    assert name == ""
    assert together.strategies == ["a", "b [result 1]", "b [result 2]", "c"]
    # .6, .7, .8 and .9: each is better than those before
    assert [sum(row) for row in penalties([first, second]).wins] == [0, 1, 2, 3]


def test_strategies_with_other_label_counts_are_left_out_and_it_is_said_why(run, three):
    runs = [
        *three,
        run("small steps", 0, [0.9] * 7, labels=[50, 55, 60, 65, 70, 75, 80]),
        *(run("own steps", seed, [0.9] * 3, labels=[50, 60 + seed, 125]) for seed in range(2)),
        run("oracle", 0, [0.9] * 4, truth=True),
        run("late", 0, [0.9], complete=False),
    ]
    found = penalties([result(runs)])
    assert found.labels == ["a", "b", "c"]
    assert sorted(found.left_out) == [
        "late: no run is finished and has a test metric.",
        "oracle: it used hidden labels.",
        "own steps: its seeds were measured at different label counts.",
        "small steps: it was measured at other label counts (50, 55, ..., 80) than the others (50, 75, 100, 125).",
    ]


def test_merging_is_undone_for_the_matrix(three, run):
    first, second = result(three, budget=75), result([run("a", 0, [0.1]), run("c", 0, [0.3])], budget=0)
    merged = merge([first, second])
    assert merged.strategies[:3] == ["a [result 1]", "b", "c [result 1]"]
    back = apart(merged)
    assert [part.strategies for part in back] == [["a", "b", "c"], ["a", "c"]]
    assert penalties(back).wins == penalties([first, second]).wins
    assert apart(first) == [first]


def test_figures_that_were_read_back_give_the_same_matrix(three, tmp_path):
    before = result(three, budget=75)
    assert penalties([read_json(write_json(before, tmp_path / "a.json"))]) == penalties([before])


def test_the_page_shows_the_matrix_from_three_strategies_on(three):
    page = render(result(three))
    assert "Who is better at how many budgets" in page
    assert "At how many of 4 budgets" in page
    row = page.split('<th scope="row">c</th><td style="--share: 11%">1</td>')[1].split("</tr>")[0]
    assert row == '<td style="--share: 22%">2</td><td style="--share: 0%">—</td><td class="sum">3</td>'
    assert "Who is better" not in render(result([one for one in three if one.strategy != "c"]))


def test_the_terminal_shows_the_matrix_with_numbers_for_columns(three, shown):
    text = shown(penalties_table([result(three)]))
    rows = [line.split() for line in text.splitlines()]
    assert ["strategy", "1", "2", "3", "in", "all"] in rows
    assert ["3", "c", "1", "2", "—", "3"] in rows
    assert "of 4 budgets" in text
    assert "no two strategies" in shown(penalties_table([result(three[:2])]))


def test_cells_say_of_how_many_where_pairs_differ(run, three, shown):
    other = [run("a", 0, [0.1, 0.9]), run("c", 0, [0.1, 0.2])]
    text = shown(penalties_table([result(three, budget=75), result(other, budget=25)]))
    assert "2 of 6" in text
    assert "of 2 settings" in text
