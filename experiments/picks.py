"""What the strategies of a finished run picked: ``python experiments/picks.py runs/NAME [ROOT]``.

For each strategy, over all seeds: the entropy of the classes of its picks (log C where all are alike), and how far out
the picks lie, as the mean rank of the distance to the tenth nearest neighbor among the pool's prepared inputs (0.5: as
a random sample). ROOT is the folder of the data where it is not the configuration's.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

import poolwright as pw

NEIGHBOR = 10


def outlyingness(x: Tensor) -> Tensor:
    """Return the rank, in [0, 1], of each row's distance to its tenth nearest neighbor, ``(n,)``."""
    blocks = (torch.cdist(block, x).kthvalue(min(NEIGHBOR + 1, len(x)), dim=1).values for block in x.split(512))
    return torch.cat(list(blocks)).argsort().argsort().float() / max(1, len(x) - 1)


def main(folder: str, root: str | None = None) -> None:
    """Print a line for each strategy."""
    result = pw.load_result(folder)
    options = dict(result.info["config"]["dataset"])
    if root is not None:
        options["root"] = root
    dataset = pw.load_dataset(options.pop("name"), **options)
    everything = torch.arange(len(dataset.pool))
    labels = dataset.pool.labels(everything)
    far = outlyingness(dataset.prepare(dataset.pool.inputs(everything)).flatten(1))
    sys.stdout.write("| strategy | seeds | entropy of classes | outlyingness |\n|---|---|---|---|\n")
    for strategy in result.strategies:
        picks = [torch.tensor([i for record in run.records for i in record.selected]) for run in result.of(strategy)]
        shares = [torch.bincount(labels[ids], minlength=len(dataset.classes)) / len(ids) for ids in picks]
        entropy = float(torch.stack([torch.special.entr(share).sum() for share in shares]).mean())
        outer = float(torch.stack([far[ids].mean() for ids in picks]).mean())
        sys.stdout.write(f"| {strategy} | {len(picks)} | {entropy:.3f} | {outer:.3f} |\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
