from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest

from poolwright.errors import StoreError
from poolwright.report import figures, summarize, wording, write_html
from poolwright.report.details import details, logged_series
from poolwright.report.html import plain, render
from poolwright.report.statistics import mean_curve
from poolwright.results import Result, RunResult

VOID = {"meta", "br", "link", "img", "path", "use", "rect"}


class Page(HTMLParser):
    """Check that tags nest, and keep text, attributes and ids."""

    def __init__(self, source):
        super().__init__()
        self.open, self.words, self.attributes, self.tags = [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def page(run, info):
    runs = [run("random", seed, [0.5, 0.6, 0.7 + 0.01 * seed]) for seed in range(3)]
    runs += [run("margin", seed, [0.5, 0.7, 0.8 + 0.02 * seed], query=0.5) for seed in range(3)]
    runs += [run("<b>&\"'</b>", 0, [0.5, 0.6, 0.8], logs={"p.update.<loss>": [2.0, 1.0]}, truth=True)]
    runs += [run("<b>&\"'</b>", 1, [0.5], complete=False, error="<script>alert(1)</script>")]
    runs += [run(f"sral {b}", 0, [0.5, 0.6], complete=False, logs={"sral.update.loss": [b, 1.0]}) for b in (2, 3)]
    runs += [run("late", 0, [0.5, 0.6], complete=False)]
    result = Result(runs, info)
    source = render(result)
    return result, source, Page(source)


def test_page_holds_every_number_of_the_table(page):
    result, _, parsed = page
    for item in summarize(result):
        for text in (
            wording.interval(item.aubc),
            wording.interval(item.final),
            wording.seconds(item.query_seconds),
            wording.p_value(item.versus_baseline),
            wording.seeds(item),
        ):
            assert text in parsed.text
    assert "0.8200 ± 0.0497" in parsed.text


def test_page_tells_what_ran(page):
    text = page[2].text
    for words in (
        "Active learning on digits",
        "digits (validation 0.1)",
        "mlp (epochs 30)",
        "Budget 300",
        "Batch 25",
    ):
        assert words in text
    for words in ("Seeds 0, 1, 2", "Threads 2", "memory 24 GiB", "torch 2.15", "area under the budget curve"):
        assert words in text


def test_page_loads_nothing(page):
    _, source, parsed = page
    assert "http://" not in source
    assert "https://" not in source
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    assert "@import" not in source
    assert set(re.findall(r"url\((.)", source)) <= {"#"}
    links = [value for name, value in parsed.attributes if name in ("href", "src", "xlink:href")]
    assert all(value.startswith("#") for value in links)


def test_labels_logs_and_errors_are_escaped(page):
    _, source, parsed = page
    assert "<b>" not in source
    assert "<script" not in source
    assert "<loss>" not in source
    assert "Seed 1 failed: <script>alert(1)</script>" in parsed.text
    assert "p.update.<loss>" in parsed.text


def test_figures_have_alt_text_and_follow_the_color_scheme(page):
    _, source, parsed = page
    alts = [value for name, value in parsed.attributes if name == "aria-label"]
    assert any("random from 0.500 at 50 labels to 0.710 at 100" in alt for alt in alts)
    assert any("Query time over cycles" in alt and "margin between 0.500 and 0.500 seconds" in alt for alt in alts)
    drawn = "".join(re.findall(r"<svg.*?</svg>", source, flags=re.DOTALL))
    assert "var(--series-1)" in drawn
    assert not re.findall(r"#[0-9a-f]{6}\b", drawn)
    assert "prefers-color-scheme: dark" in source


def test_the_time_of_a_cycle_is_drawn_over_the_labels(page):
    alts = [value for name, value in page[2].attributes if name == "aria-label"]
    (alt,) = [alt for alt in alts if "Time of a cycle over labels paid for" in alt]
    # fit 0.5, evaluation 0.125, and a query of 0.01 or 0.5
    assert "random between 0.635 and 0.635 seconds" in alt
    assert "margin between 1.125 and 1.125 seconds" in alt
    assert "late (not finished)" in page[2].text


def test_seeds_that_end_at_other_label_counts_are_drawn_one_by_one(run):
    runs = [run("a", seed, [0.5, 0.6, 0.7], labels=[50, 60, 80 + 10 * seed]) for seed in range(3)]
    source = render(Result(runs))
    assert source.count(wording.THIN_LINES) == 1, "the curves end apart, the last queries begin together"
    assert wording.THIN_LINES not in render(Result([run("a", seed, [0.5, 0.6, 0.7]) for seed in range(3)]))
    thin = figures.learning_curves({0: mean_curve([one.curve() for one in runs])}, "accuracy", "thin")
    assert thin.count("stroke-opacity: 0.45") == 3


def test_hundreds_of_cycles_and_dozens_of_seeds_leave_a_page_that_loads(run):
    runs = [
        run("sral", s, [0.5 + c / 1200 for c in range(500)], labels=[50 + c + s for c in range(500)], logs={"x": [1.0]})
        for s in range(20)
    ]
    source = render(Result(runs))
    assert len(source) < 1_500_000
    longest = max(len(re.findall(r"[ML] ", path)) for path in re.findall(r' d="([^"]*)"', source))
    assert figures.MAX_POINTS // 2 <= longest <= 2 * figures.MAX_POINTS + 2, "a band has two edges"


def test_ids_are_unique(page):
    ids = [value for name, value in page[2].attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_unfinished_strategies_are_drawn_and_marked(page):
    assert "late (not finished)" in page[2].text


def test_same_results_give_the_same_bytes(sweep, tmp_path):
    first = write_html(sweep, tmp_path / "new" / "folder" / "report.html")
    second = write_html(sweep, str(tmp_path / "second.html"))
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == ["report.html"]


def test_a_place_that_cannot_be_written_is_named(sweep, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write the report .*report\.html"):
        write_html(sweep, tmp_path / "file" / "report.html")


def test_details_carry_every_metric_at_the_final_point(sweep):
    found = details(sweep, summarize(sweep)[1])
    assert found.metrics == ["accuracy", "precision", "f1"]
    assert found.means["precision"] is not None
    assert found.means["precision"].mean == pytest.approx(0.72)
    assert found.rows[2].values == pytest.approx({"accuracy": 0.84, "precision": 0.74, "f1": 0.64})


def test_details_tell_failed_and_unfinished_seeds(sweep):
    found = details(sweep, summarize(sweep)[3])
    assert [row.state for row in found.rows] == ["finished", "failed", "not finished"]
    assert [row.aubc is None for row in found.rows] == [False, True, True]
    assert details(sweep, summarize(sweep)[4]).timed == "1 run, none of them finished"


def test_logged_values_are_spread_over_their_cycle(run):
    series = logged_series(
        [run("a", 0, [0.5, 0.6], logs={"x": [4.0, 2.0]}), run("a", 1, [0.5], logs={"x": [math.nan]})]
    )
    assert series == {"x": [[(0.0, 4.0), (0.5, 2.0), (1.0, 4.0), (1.5, 2.0)]]}


def test_long_logs_are_drawn_as_means_of_blocks():
    points = [(float(i), float(i % 2)) for i in range(2 * figures.MAX_POINTS)]
    shown = figures.thinned(points)
    assert len(shown) == figures.MAX_POINTS
    assert set(shown) == {(2 * i + 0.5, 0.5) for i in range(figures.MAX_POINTS)}
    assert figures.thinned(points[:3]) == points[:3]


@pytest.mark.parametrize(
    "values",
    [[0.5], [0.5, 0.5], [0.5, 0.6, 0.7]],
    ids=["one-cycle", "constant", "rising"],
)
@pytest.mark.parametrize("seeds", [1, 2])
def test_small_sweeps_give_a_whole_page(run, values, seeds):
    text = Page(render(Result([run("a", seed, values, query=0.0) for seed in range(seeds)]))).text
    assert f"{values[-1]:.4f}" in text
    assert "nan" not in text.lower()


@pytest.mark.parametrize("info", [{}, {"config": None, "machine": "mine"}, {"config": {"dataset": "digits"}}])
def test_missing_information_is_left_out(run, info):
    assert "Seeds 0" in Page(render(Result([run("a", 0, [0.5])], info))).text


def test_no_runs_and_runs_without_records_give_a_page():
    assert "No run has been recorded" in Page(render(Result([]))).text
    failed = RunResult("a", 0, "accuracy", [], complete=False, error="no data")
    text = Page(render(Result([failed]))).text
    assert "Seed 0 failed: no data" in text
    assert "Learning curves" not in text


def test_configuration_values_read_as_phrases():
    assert plain({"name": "mlp", "hidden_size": 3, "layers": [1, 2], "x": None}) == "mlp (hidden size 3, layers 1, 2)"
    assert plain({"name": "mlp"}) == "mlp"
    assert plain({"size": 50}) == "size 50"
