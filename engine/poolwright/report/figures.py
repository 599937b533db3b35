"""Figures of the page, as SVG to be placed inside HTML.

Every color is a CSS variable, so that a figure follows the page's light or dark scheme. Text stays text.
Labels of strategies stay outside: the legend is HTML beside the figure, with :func:`swatch` for the lines.
The same data gives the same bytes.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from .distributions import Histogram
from .statistics import MeanCurve

SERIES = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8f4d"),
    ("#00896b", "#3ccf9f"),
    ("#a3296f", "#e58bc6"),
    ("#26262b", "#f2f2f5"),
    ("#3f97d3", "#f0e442"),
)
"""(light, dark) colors, told apart with any color blindness; contrast with the page 3:1 and more."""

INK, GRID = "#36363d", "#dcdce3"
"""Stand-ins of text and grid in the SVG; not shown, the variables are."""

DASHES = ("-", "--", "-.", (0, (1, 1.4)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

VARIABLES = {INK: "var(--ink)", GRID: "var(--grid)"} | {
    light: f"var(--series-{place})" for place, (light, _) in enumerate(SERIES)
}

MAX_POINTS = 400
"""A logged series with more is drawn as means of blocks."""


def learning_curves(curves: Mapping[int, MeanCurve], metric: str, alt: str) -> str:
    """Draw mean curves with 95 % bands.

    Parameters
    ----------
    curves : mapping of int to MeanCurve
        Place of the strategy (its color, line and marker) -> curve.
    metric : str
        Name of the vertical axis.
    alt : str
        What the figure shows, for those who cannot see it.
    """
    with _drawing("learning", (6.6, 4.1), alt) as drawing:
        for place, whole in curves.items():
            color = SERIES[place % len(SERIES)][0]
            curve = _shortened(whole)
            _draw_runs(drawing.axes, curve, color)
            if curve.half_width is not None:
                band = list(zip(curve.mean, curve.half_width, strict=True))
                low, high = [m - h for m, h in band], [m + h for m, h in band]
                if len(curve.labels) == 1:
                    drawing.axes.errorbar(curve.labels, curve.mean, yerr=curve.half_width, color=color, capsize=4)
                else:
                    drawing.axes.fill_between(curve.labels, low, high, color=color, alpha=0.16, linewidth=0)
            drawing.axes.plot(curve.labels, curve.mean, markevery=_every(len(curve.labels)), **_style(place))
        _fit_to_lines(drawing.axes, curves.values())
        drawing.axes.set_xlabel("labels paid for (samples)")
        drawing.axes.set_ylabel(f"{metric} on test data")
    return drawing.svg


def cycle_seconds(curves: Mapping[int, MeanCurve], alt: str) -> str:
    """Draw mean seconds of a cycle over labels paid for; ``curves`` is place of the strategy -> curve."""
    with _drawing("seconds", (6.6, 3.4), alt) as drawing:
        for place, whole in curves.items():
            curve = _shortened(whole)
            _draw_runs(drawing.axes, curve, SERIES[place % len(SERIES)][0])
            drawing.axes.plot(curve.labels, curve.mean, markevery=_every(len(curve.labels)), **_style(place))
        _time_axis(drawing.axes, [value for curve in curves.values() for value in curve.mean])
        drawing.axes.set_xlabel("labels paid for (samples)")
        drawing.axes.set_ylabel("time of a cycle (seconds)")
    return drawing.svg


def query_times(times: Mapping[int, Mapping[int, float]], alt: str) -> str:
    """Draw seconds of a query over cycles; ``times`` is place of the strategy -> cycle -> mean seconds."""
    with _drawing("query", (6.6, 3.4), alt) as drawing:
        for place, by_cycle in times.items():
            cycles = sorted(by_cycle)
            values = [by_cycle[cycle] for cycle in cycles]
            drawing.axes.plot(cycles, values, markevery=_every(len(cycles)), **_style(place))
        _time_axis(drawing.axes, [value for by_cycle in times.values() for value in by_cycle.values()])
        _whole_cycles(drawing.axes)
        drawing.axes.set_xlabel("cycle")
        drawing.axes.set_ylabel("query time (seconds)")
    return drawing.svg


def logged(series: Sequence[Sequence[tuple[float, float]]], alt: str, across: str = "cycle") -> str:
    """Draw one logged quantity, small: a thin line of (cycle, value) for each seed; ``across`` names the cycle."""
    most = max(MAX_POINTS // 8, MAX_POINTS * 5 // max(len(series), 5))
    with _drawing(alt, (3.3, 2.2), alt) as drawing:
        for place, points in enumerate(series):
            shown = thinned([(x, y) for x, y in points if math.isfinite(y)], most)
            style = _style(place) | {"linewidth": 1.1, "marker": "." if len(shown) < 30 else ""}
            drawing.axes.plot([x for x, _ in shown], [y for _, y in shown], **style)
        drawing.axes.locator_params(axis="y", nbins=5)
        _whole_cycles(drawing.axes)
        drawing.axes.set_xlabel(across)
    return drawing.svg


def histogram(
    shown: Histogram,
    place: int,
    alt: str,
    *,
    across: str = "",
    counted: str = "runs",
    inches: tuple[float, float] = (2.5, 1.9),
) -> str:
    """Draw a histogram, small: bars, a mark for each value where they are few, and the density curve.

    Parameters
    ----------
    shown : Histogram
    place : int
        Of the strategy: its color.
    alt : str
        What the figure shows, for those who cannot see it; other figures of the page have another.
    across, counted : str
        Names of the horizontal axis, and of what is counted.
    inches : (float, float)
    """
    color = SERIES[place % len(SERIES)][0]
    with _drawing(alt, inches, alt) as drawing:
        width = shown.edges[1] - shown.edges[0]
        left = [edge for edge, count in zip(shown.edges, shown.counts, strict=False) if count]
        heights = [count for count in shown.counts if count]
        drawing.axes.bar(left, heights, width, align="edge", color=color, alpha=0.45, linewidth=0)
        if shown.density is None:
            drawing.axes.plot(shown.values, [0] * len(shown.values), "|", color=color, markersize=12, clip_on=False)
        else:
            x, y = zip(*shown.density, strict=True)
            drawing.axes.plot(x, y, color=color, linewidth=1.8)
        drawing.axes.set_xlim(shown.edges[0], shown.edges[-1])
        drawing.axes.set_ylim(bottom=0)
        drawing.axes.locator_params(axis="x", nbins=5)
        _whole(drawing.axes.yaxis, 5)
        drawing.axes.set_xlabel(across)
        drawing.axes.set_ylabel(counted)
    return drawing.svg


def thinned(points: Sequence[tuple[float, float]], most: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Return at most ``most`` points: means of blocks of neighbors where there are more."""
    size = math.ceil(len(points) / most)
    if size <= 1:
        return list(points)
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in blocks]


def swatch(place: int, figure: str) -> str:
    """Draw the line and marker of a strategy, for the legend of ``figure``."""
    with _drawing(f"{figure} {place}", (0.56, 0.2), "") as drawing:
        drawing.axes.plot([0, 1, 2], [0, 0, 0], markevery=[1], **_style(place))
        drawing.axes.set_axis_off()
    return drawing.svg


def standalone(svg: str, labels: Mapping[int, str], alt: str) -> str:
    """Return a figure with its legend as a document of its own, which follows the reader's color scheme.

    Parameters
    ----------
    svg : str
        What a function of this module drew.
    labels : mapping of int to str
        Place of the strategy -> text of the legend.
    alt : str
        What the figure shows, for those who cannot see it.
    """
    width, height = _size(svg)
    columns, row = 2, 17.0
    entries = []
    for number, (place, label) in enumerate(labels.items()):
        x = 12 + number % columns * width / columns
        y = height + 4 + number // columns * row
        mark = swatch(place, "standalone")
        entries.append(_placed(mark, x, y, *_size(mark)))
        entries.append(f'<text x="{x + 48:g}" y="{y + 11:g}" font-size="10">{html.escape(label)}</text>')
    total = height + 12 + math.ceil(len(labels) / columns) * row
    light = {"ink": "#1d1d22", "grid": "#d9d9e1", "page": "#ffffff"}
    dark = {"ink": "#ececf1", "grid": "#3a3e48", "page": "#16181d"}
    for place, colors in enumerate(SERIES):
        light[f"series-{place}"], dark[f"series-{place}"] = colors
    rules = [" ".join(f"--{name}: {value};" for name, value in scheme.items()) for scheme in (light, dark)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {total:g}" role="img" aria-label="{html.escape(alt)}">\n'
        f"<style>svg {{ {rules[0]} font-family: system-ui, sans-serif; }}\n"
        f"@media (prefers-color-scheme: dark) {{ svg {{ {rules[1]} }} }}\n"
        f"text {{ fill: var(--ink); }} * {{ stroke-linejoin: round; stroke-linecap: butt; }}</style>\n"
        f'<rect width="100%" height="100%" fill="var(--page)"/>\n'
        f"{_placed(svg, 0, 0, width, height)}\n" + "\n".join(entries) + "\n</svg>\n"
    )


def _size(svg: str) -> tuple[float, float]:
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert found is not None, "every figure has a viewBox"
    return float(found[1]), float(found[2])


def _placed(svg: str, x: float, y: float, width: float, height: float) -> str:
    return svg.replace("<svg ", f'<svg x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" ', 1)


def _style(place: int) -> dict[str, Any]:
    """Return color, dashes and marker of the strategy at ``place``; the first 84 differ."""
    return {
        "color": SERIES[place % len(SERIES)][0],
        "linestyle": DASHES[place % len(DASHES)],
        "marker": MARKERS[place % len(MARKERS)],
        "linewidth": 1.8,
        "markersize": 5,
    }


def _every(n: int) -> int:
    return max(1, n // 10)


def _whole_cycles(axes: Any) -> None:
    _whole(axes.xaxis, 8)


def _whole(axis: Any, most: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=most, integer=True, min_n_ticks=1))


def _time_axis(axes: Any, seconds: Sequence[float]) -> None:
    """Scale to seconds: by their logarithm where they differ by more than a factor of 30."""
    if min(seconds) > 0 and max(seconds) > 30 * min(seconds):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)


def _shortened(curve: MeanCurve) -> MeanCurve:
    """Return a curve with at most :data:`MAX_POINTS` of its points, evenly chosen, its ends among them."""
    n = len(curve.labels)
    if n <= MAX_POINTS:
        return curve
    kept = [round(place * (n - 1) / (MAX_POINTS - 1)) for place in range(MAX_POINTS)]
    half_width = None if curve.half_width is None else [curve.half_width[k] for k in kept]
    return replace(
        curve, labels=[curve.labels[k] for k in kept], mean=[curve.mean[k] for k in kept], half_width=half_width
    )


def _draw_runs(axes: Any, curve: MeanCurve, color: str) -> None:
    """Draw each seed thinly, where the mean leaves a part of them out."""
    style = {
        "color": color,
        "linewidth": 0.8,
        "alpha": min(0.45, max(0.15, 4 / max(len(curve.runs), 1))),
        "zorder": 1.5,
    }
    for labels, values in curve.runs:
        shown = thinned(list(zip(labels, values, strict=True)), MAX_POINTS // 4)
        marker = "." if len(shown) == 1 else ""
        axes.plot([x for x, _ in shown], [y for _, y in shown], marker=marker, **style)


def _fit_to_lines(axes: Any, curves: Iterable[MeanCurve]) -> None:
    """Scale to the lines: bands of two seeds can be many times as high, and would flatten every curve."""
    lines = [line for curve in curves for line in (curve.mean, *(values for _, values in curve.runs))]
    values = [value for line in lines for value in line]
    low, high = min(values), max(values)
    margin = 0.12 * (high - low) or 0.05
    axes.set_ylim(low - margin, high + margin)


@dataclass
class _Drawing:
    axes: Any
    svg: str = ""


@contextmanager
def _drawing(salt: str, inches: tuple[float, float], alt: str) -> Iterator[_Drawing]:
    """Give axes to draw on; afterwards ``svg`` is there.

    ``salt`` enters the ids inside the SVG: figures of one page need different ones.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": f"poolwright {salt}",
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    }
    with matplotlib.style.context(["default", settings]):
        figure = Figure(figsize=inches, layout="constrained")
        drawing = _Drawing(figure.add_subplot())
        drawing.axes.grid(color=GRID, linewidth=0.7)
        yield drawing
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        drawing.svg = _inline(buffer.getvalue(), alt)


def _inline(svg: str, alt: str) -> str:
    """Make an SVG document part of a page: no prolog or fixed size, colors by variable, with alt text."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</defs>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<g id=\"[^\"]*\">", "<g>", body)
    view_box = re.search(r'viewBox="([^"]+)"', body)
    assert view_box is not None, "matplotlib writes a viewBox"
    role = f'role="img" aria-label="{html.escape(alt)}"' if alt else 'aria-hidden="true"'
    body = re.sub(r"<svg[^>]*>", f'<svg viewBox="{view_box[1]}" {role}>', body, count=1).strip()
    for color, variable in VARIABLES.items():
        body = body.replace(color, variable)
    return re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", body)
