from __future__ import annotations

from pathlib import Path

import pytest

from poolwright.errors import ConfigError
from poolwright.report import merge, summarize
from poolwright.report.html import render
from poolwright.results import Result


def on(dataset, runs, folder=None):
    return Result(runs, {"config": {"dataset": dataset}}, folder)


def test_only_labels_found_twice_get_their_folder_in_brackets(run):
    first = on("digits", [run("random", 0, [0.5]), run("margin", 0, [0.6])], Path("out/one"))
    second = on("digits", [run("random", 0, [0.5]), run("badge", 0, [0.7])], Path("out/two"))
    assert merge([first, second]).strategies == ["random [one]", "margin", "random [two]", "badge"]


def test_folders_of_one_name_are_told_apart_by_their_parents(run):
    results = [on("digits", [run("a", 0, [0.5])], Path(f"{parent}/out")) for parent in ("x", "y")]
    assert merge(results).strategies == ["a [x/out]", "a [y/out]"]


def test_renamed_random_is_still_the_baseline(run):
    runs = [run("random", seed, [0.5 + seed / 100]) for seed in range(2)]
    more = [run("margin", seed, [0.6 + seed / 50]) for seed in range(2)]
    merged = merge([on("digits", runs, Path("one")), on("digits", runs + more, Path("two"))])
    assert [item.versus_baseline is None for item in summarize(merged)] == [True, False, False]


def test_page_of_merged_results_tells_what_ran_in_each(run):
    merged = merge([on("digits", [run("a", 0, [0.5])], Path(name)) for name in ("one", "two")])
    text = render(merged)
    assert "<h3>one</h3>" in text
    assert "<h3>two</h3>" in text


def test_one_result_is_returned_as_it_is(sweep):
    assert merge([sweep]) is sweep


def test_different_data_sets_are_refused_and_both_named(run):
    with pytest.raises(ConfigError, match=r"one has digits .*0\.1.*two has letters"):
        merge(
            [
                on({"name": "digits", "validation": 0.1}, [run("a", 0, [0.5])], Path("one")),
                on("letters", [run("a", 0, [0.5])], Path("two")),
            ]
        )


def test_different_headline_metrics_are_refused_and_both_named(run):
    with pytest.raises(ConfigError, match=r"headline metrics.*has accuracy.*has miou"):
        merge([Result([run("a", 0, [0.5])]), Result([run("a", 0, [0.5], headline="miou")])])


def test_a_folder_given_twice_and_nothing_at_all_are_refused(run):
    with pytest.raises(ConfigError, match="twice"):
        merge([on("digits", [run("a", 0, [0.5])], Path("one"))] * 2)
    with pytest.raises(ConfigError, match="no result"):
        merge([])
