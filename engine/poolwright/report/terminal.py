"""The table that a sweep ends with in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import wording
from .statistics import best, summarize

if TYPE_CHECKING:
    from rich.table import Table

    from ..results import Result


def table(result: Result, *, reasons: bool = True) -> Table:
    """Return the summary table of a result, best AUBC in bold green, notes below.

    ``reasons`` tells why a run failed, for those who have not been told. Labels and errors are shown as they are, not
    read as rich markup.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    summaries = summarize(result)
    winners = best(summaries)
    tested = any(item.versus_baseline is not None for item in summaries)
    metric = wording.metric_name(summaries[0].metric) if summaries else "metric"

    view = Table(box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False)
    view.add_column("strategy", overflow="fold")
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
