"""The table that a sweep ends with in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import wording
from .distributions import columns, outcomes
from .pairwise import penalties
from .statistics import best, summarize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group
    from rich.table import Table

    from ..results import Result


def table(result: Result, *, reasons: bool = True) -> Table:
    """Return the summary table of a result, best AUBC in bold green, notes below.

    ``reasons`` tells why a run failed, for those who have not been told. Labels and errors are shown as they are, not
    read as rich markup.
    """
    from rich.text import Text

    summaries = summarize(result)
    winners = best(summaries)
    tested = any(item.versus_baseline is not None for item in summaries)
    metric = wording.metric_name(summaries[0].metric) if summaries else "metric"

    view = _plain_table("strategy")
    for title in ("AUBC\n± 95 %", f"final {metric}\n± 95 %", "query\nseconds", "seeds"):
        view.add_column(Text(title), justify="right", no_wrap=True)
    if tested:
        view.add_column("vs random", justify="right", no_wrap=True)
    for item in summaries:
        label = item.label + (f" {wording.UPPER_BOUND}" if item.truth else "")
        cells = [
            label,
            wording.interval(item.aubc),
            wording.interval(item.final),
            wording.seconds(item.query_seconds),
            wording.seeds(item),
        ]
        if tested:
            cells.append(wording.p_value(item.versus_baseline))
        style = "bold green" if item.label in winners else ""
        view.add_row(*(Text(cell) for cell in cells), style=style)
    lines = wording.notes(summaries, reasons=reasons) if summaries else ["No run has been recorded."]
    if any(item.aubc is not None for item in summaries):
        lines.insert(0, f"AUBC: mean test {metric} over the labels paid for (area under the budget curve).")
    view.caption = Text("\n".join(lines), style="dim")
    return view


def metrics_table(result: Result) -> Group:
    """Return mean and maximum of every metric, and of the budget, at the end of the runs of each strategy."""
    from rich.text import Text

    found = outcomes(result)
    view = _plain_table("strategy", "")
    for name in columns(found):
        view.add_column(Text(wording.metric_name(name)), justify="right", no_wrap=True)
    for item in found:
        for place, (title, figure) in enumerate((("mean", item.mean), ("max", item.most))):
            cells = [item.label if place == 0 else "", title]
            cells += [wording.percent(figure(name)) for name in columns(found)]
            view.add_row(*(Text(cell) for cell in cells), end_section=place == 1)
    return _explained(view, [wording.outcomes(columns(found)) if found else "No run is finished."])


def penalties_table(results: Sequence[Result]) -> Group:
    """Return the pairwise penalty matrix over the settings of several results, none of them merged."""
    from rich.text import Text

    matrix = penalties(results)
    view = _plain_table("strategy")
    for number in range(1, len(matrix.labels) + 1):
        view.add_column(str(number), justify="right", no_wrap=True)
    view.add_column("in all", justify="right", no_wrap=True)
    for row, label in enumerate(matrix.labels):
        cells = [wording.wins(matrix, row, column) for column in range(len(matrix.labels))]
        view.add_row(*(Text(cell) for cell in (f"{row + 1} {label}", *cells, str(sum(matrix.wins[row])))))
    lines = [wording.penalties(matrix)] if matrix.labels else ["There are no two strategies to compare."]
    return _explained(view, [*lines, *(f"Left out: {reason}" for reason in matrix.left_out)])


def _explained(view: Table, lines: Sequence[str]) -> Group:
    """Return a table with lines below that may be wider than it."""
    from rich.console import Group
    from rich.text import Text

    return Group(view, Text("\n".join(lines), style="dim"))


def _plain_table(*titles: str) -> Table:
    """Return an empty table whose first columns hold text."""
    from rich import box
    from rich.table import Table

    view = Table(box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False)
    for title in titles:
        view.add_column(title, overflow="fold")
    return view
