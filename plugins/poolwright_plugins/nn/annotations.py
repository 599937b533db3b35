"""Labels of the labeled samples, for losses."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from poolwright import Cycle

from ..learners.segmentation import IGNORED, pixel_cross_entropy
from .images import resident_bytes


class Annotations:
    """Labels, or masks, of a cycle's labeled samples, kept on the device where they fit.

    Labels outside the classes become ``IGNORED``, which losses leave out.
    """

    def __init__(self, cycle: Cycle) -> None:
        self._cycle = cycle
        self._ids = cycle.pool.labeled
        self._device = torch.device(cycle.device)
        first = self._read(self._ids[:1])
        self._kept: Tensor | None = None
        dtype = torch.int16 if cycle.n_classes <= torch.iinfo(torch.int16).max else torch.int32
        if len(self._ids) * math.prod(first.shape[1:]) * dtype.itemsize <= resident_bytes(self._device):
            self._kept = torch.empty(len(self._ids), *first.shape[1:], dtype=dtype, device=self._device)
            for rows in torch.arange(len(self._ids)).split(32):
                self._kept[rows[0] : rows[-1] + 1] = self._read(self._ids[rows])

    def _read(self, ids: Tensor) -> Tensor:
        labels = self._cycle.labels(ids).to(self._device)
        return torch.where((labels >= 0) & (labels < self._cycle.n_classes), labels, IGNORED)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the labels of ``rows`` (positions among the labeled ids), int64 ``(n,)`` or ``(n, height, width)``."""
        if self._kept is not None:
            return self._kept[rows].long()
        return self._read(self._ids[rows.cpu()])


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy, the mean over the labels that name a class; 0 where none does.

    Parameters
    ----------
    logits : Tensor
        float ``(n, classes)`` or ``(n, classes, height, width)``.
    labels : Tensor
        int64 ``(n,)`` or ``(n, height, width)``.
    """
    if labels.ndim == 3:
        return pixel_cross_entropy(logits, labels)
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)
