"""What a sweep says: figures per strategy, a table for the terminal, a page for the browser.

``summarize`` gives the numbers, ``table`` and ``write_html`` show them, ``merge`` puts results of several
folders side by side. ``outcomes`` and ``metrics_table`` say where runs ended, in percent; ``penalties`` and
``penalties_table`` who is better at how many budgets. ``write_json`` keeps the figures in a small file, ``read_json``
reads them back. Importing this package imports neither matplotlib, scipy nor jinja2: each is imported when
it is needed.
"""

from __future__ import annotations

from .archive import read_json, write_json
from .distributions import Outcome, outcomes
from .html import write_html
from .merging import merge
from .pairwise import Penalties, penalties
from .statistics import Comparison, Estimate, StrategySummary, summarize
from .terminal import metrics_table, penalties_table, table

__all__ = [
    "Comparison",
    "Estimate",
    "Outcome",
    "Penalties",
    "StrategySummary",
    "merge",
    "metrics_table",
    "outcomes",
    "penalties",
    "penalties_table",
    "read_json",
    "summarize",
    "table",
    "write_html",
    "write_json",
]
