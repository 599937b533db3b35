"""docs/benchmarks.md, made from the JSON files in benchmarks/results: ``python -m poolwright_benchmarks.page``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from poolwright_benchmarks import results, wasserstein

INTRODUCTION = """\
# Benchmarks

<!-- Made by `python -m poolwright_benchmarks.page` from benchmarks/results/*.json; `make bench` runs it. -->

Each kernel is timed beside every peer that is installed: in one process, interleaved, at least five runs after one that
is not counted, on the same data. Losses are shown like wins.

```console
$ make bench
$ poolwright bench k-center --quick
```

`make bench` installs the peers, runs what fits its time (what does not is named below), and rewrites this page.
On a machine with a GPU, `make gpu-check` runs the GPU's part. The options
are those of [`bench`](command-line.md#bench).

How to read the tables:

- *median s* and *min-max* are seconds of wall time; *x ours* is the median over that of the first row: above 1, ours is
  faster.
- *one run*: five runs would have taken more than the cap, so that there is one. A contender that would take longer than
  the limit of a single run is not measured on that size and is named below the table: look for it on a smaller size.
- *MB* is the peak of the process beyond what it held before the run, from the first run. What other processes take (the
  pools of POT and scipy) is not in it.
- *of sgemm* is the floating-point rate on the distances that were evaluated, as a share of what torch's matrix product
  of the same width and type reached between the runs. Where ours multiplies another type (bfloat16 at the CPU level
  `amx` and on CUDA, and float32 for what that leaves open), the line below the table says so: the share then compares
  different products, and may be above 100 %.
- *full product*, for k-center and k-means++, is the time that this matrix product would need for all n k distances,
  over that of the contender: above 1, the contender is faster than computing all of them at that rate would be.
- *radius*, *potential* and *inertia* are computed in float64 from what each contender returned: lower is better.
  *picks of ours* is the share of picks that are the same as ours, in the same place.
"""


INTRODUCTION += f"""\
- The Wasserstein row of the targets is {wasserstein.PAIRS["cuda"]:,} pairs. That is what is timed on a GPU; on the CPU
  it is {wasserstein.PAIRS["cpu"]:,} pairs of the same sizes. The time grows with their number.
- *poolwright sinkhorn* on the CPU is slower than exact transport at these sizes. Where a run of it would take longer
  than the limit, the smaller size alone has it.
"""


def page(files: dict[str, dict[str, Any]], images: set[str]) -> str:
    """Return the page.

    Parameters
    ----------
    files : dict
        Name of a result file without suffix -> its contents.
    images : set of str
        Names of the plots that are there, without suffix.
    """
    parts = [INTRODUCTION]
    if not files:
        parts.append("No results are recorded in this checkout.\n")
    for stem, report in sorted(files.items()):
        facts = report["machine"]
        for kernel, records in report["kernels"].items():
            name = facts["gpu"]["name"] if "gpu" in facts and "-cuda-" in stem else facts["cpu"]
            parts.append(f"## {kernel} on {name}\n")
            parts.append(f"{results.describe_machine(facts)}. {results.describe_packages(facts)}.\n")
            if stem in images:
                parts.append(f"![Time against size, {kernel}](images/{stem}.svg)\n")
            for record in records:
                parts.append(f"### {record['title']}\n")
                parts += [_table(record, rung) for rung in reversed(record["sizes"])]
    return "\n".join(parts)


def _table(record: dict[str, Any], rung: dict[str, Any]) -> str:
    figures = results.columns(rung)
    names = [*results.HEADINGS, *(figure.replace("_", " ") for figure in figures)]
    lines = [f"{results.heading(record, rung)}:", ""]
    if rung["results"]:
        lines += ["| " + " | ".join(names) + " |", "|---" + "|---:" * (len(names) - 1) + "|"]
        lines += ["| " + " | ".join(results.cells(row, figures)) + " |" for row in rung["results"]]
        lines.append("")
    notes = [results.product_line(rung)] if results.product_line(rung) else []
    notes += [f"not measured: {name}: {reason}" for name, reason in rung["not_measured"].items()]
    lines += [f"- {note}" for note in notes]
    return "\n".join(lines) + "\n"


def read(root: Path) -> str:
    """Return the page of a checkout."""
    files = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in _files(root)}
    return page(files, {path.stem for path in (root / "docs" / "images").glob("*.svg")})


def _files(root: Path) -> list[Path]:
    """Return the result files of kernels; `make gpu-check` writes others beside them."""
    found = (root / "benchmarks" / "results").glob("*.json")
    return sorted(path for path in found if "kernels" in json.loads(path.read_text(encoding="utf-8")))


def main() -> int:
    """Write docs/benchmarks.md; return the exit status."""
    root = results.checkout()
    if root is None:
        sys.stderr.write("poolwright_benchmarks.page: this runs in a checkout of the sources only\n")
        return 2
    (root / "docs" / "benchmarks.md").write_text(read(root), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
