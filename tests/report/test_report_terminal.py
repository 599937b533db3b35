from __future__ import annotations

import io
import subprocess
import sys

from rich.console import Console

from poolwright.report import table
from poolwright.results import Result


def printed(result, width=100, color=False):
    console = Console(file=io.StringIO(), width=width, force_terminal=color, color_system="standard" if color else None)
    console.print(table(result))
    return console.file.getvalue()


def test_table_shows_intervals_seeds_and_tests(sweep):
    text = printed(sweep)
    line = next(line for line in text.splitlines() if "margin" in line)
    assert "0.8200 ± 0.0497" in line
    assert "0.020" in line
    assert "p < 0.001" in line
    assert "0.6500 (1 seed)" in text
    assert "1 of 3" in text


def test_table_tells_what_failed_and_what_is_missing(sweep):
    text = " ".join(printed(sweep).split())
    assert "<b>sral & co</b>, seed 1: failed and left out. margin <gave> NaN" in text
    assert "late: not finished and left out: 1 of 1 run (seed 0)" in text
    assert "oracle †" in text
    assert "upper bound, not a result" in text
    assert "do not compare" not in text


def test_only_the_best_row_is_highlighted(sweep):
    highlighted = [line for line in printed(sweep, color=True).splitlines() if "\x1b[1;32m" in line]
    assert len(highlighted) == 1
    assert "margin" in highlighted[0]


def test_labels_are_not_read_as_markup(run):
    assert "[red]a[/red]" in printed(Result([run("[red]a[/red]", 0, [0.5], error="[bold]no[/nope]")]))


def test_numbers_stay_whole_in_eighty_columns(sweep):
    assert "0.8200 ± 0.0497" in printed(sweep, width=80)


def test_different_spans_are_pointed_out(run):
    text = printed(Result([run("a", 0, [0.5, 0.6]), run("b", 0, [0.5, 0.6, 0.7])]))
    assert "do not compare directly" in " ".join(text.split())


def test_no_comparison_column_without_random(run):
    assert "vs random" not in printed(Result([run("a", 0, [0.5])]))


def test_empty_result_says_so():
    assert "No run has been recorded" in printed(Result([]))


def test_importing_the_package_is_cheap():
    code = (
        "import sys, poolwright.report; "
        "assert not {'matplotlib', 'jinja2', 'scipy', 'numpy', 'torch', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
