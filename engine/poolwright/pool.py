"""Who is labeled: the state of every sample and the answers that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import PoolError
from .masks import compact

UNLABELED, ASKED, LABELED, RESERVED, SKIPPED, OUTSIDE = range(6)
STATES = ("unlabeled", "asked", "labeled", "reserved", "skipped", "outside the pool")

Label = int | Tensor | None
"""A class index, or a mask in its smallest type where the task has one a sample; None: nobody can tell."""

ANSWER_BLOCK = 16
"""Masks that are widened to int64 at a time while labels are taken in."""


def as_ids(ids: Any, what: str = "ids") -> Tensor:
    """Return ``ids`` as an int64 tensor of shape ``(n,)`` on the CPU.

    Raises
    ------
    PoolError
        Not integers, or not one-dimensional.
    """
    if isinstance(ids, Tensor):
        tensor = ids.detach().cpu()
    else:
        try:
            array = np.asarray(ids if isinstance(ids, (np.ndarray, Sequence)) else list(ids))
        except (TypeError, ValueError):
            raise PoolError(f"{what} must be integers of shape (n,), not {type(ids).__name__}") from None
        if array.size == 0:
            array = array.astype(np.int64).reshape(-1)
        if array.dtype.kind not in "iu":
            raise PoolError(f"{what} must be integers, not {array.dtype}")
        tensor = torch.from_numpy(array.astype(np.int64))
    if tensor.ndim != 1 or tensor.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise PoolError(f"{what} must be integers of shape (n,), not {tensor.dtype} {tuple(tensor.shape)}")
    return tensor.long()


class Pool:
    """The states and answers of ``n`` samples.

    Parameters
    ----------
    n : int
        Samples are numbered 0 to n - 1.
    members : Tensor, optional
        Only these ids belong to the pool (a simulated session on labels that are known); all by default.
    """

    def __init__(self, n: int, members: Tensor | None = None) -> None:
        self.n = n
        self._state = torch.full((n,), UNLABELED if members is None else OUTSIDE, dtype=torch.uint8)
        if members is not None:
            self._state[members] = UNLABELED
        self._paid = torch.zeros(n, dtype=torch.bool)
        self._initial = torch.zeros(n, dtype=torch.bool)
        self._reserved: dict[str, Tensor] = {}
        self._known = torch.zeros(n, dtype=torch.bool)
        self._classes = torch.full((n,), -1, dtype=torch.int64)
        self._arrays: dict[int, Tensor] = {}
        self._fresh: set[int] = set()
        self._ids: dict[int, Tensor] = {}

    # -- reading -------------------------------------------------------------------------------------------------

    def ids(self, state: int) -> Tensor:
        """Return the ids in ``state``, int64, ascending; computed on demand from the byte mask."""
        if state not in self._ids:
            self._ids[state] = (self._state == state).nonzero().squeeze(1)
        return self._ids[state]

    def state_of(self, ids: Tensor) -> Tensor:
        """Return the states of ``ids``, uint8."""
        return self._state[ids]

    @property
    def reserves(self) -> tuple[str, ...]:
        """Names under which ids are reserved."""
        return tuple(self._reserved)

    def reserved(self, name: str) -> Tensor:
        """Return the ids set aside under ``name``."""
        if name not in self._reserved:
            known = ", ".join(sorted(self._reserved)) or "none"
            raise PoolError(f"no ids are reserved as {name!r} (reserved: {known}): add it to [reserve]")
        return self._reserved[name]

    @property
    def fresh(self) -> Tensor:
        """Ids that came into the labeled set since the last fit, ascending."""
        return torch.tensor(sorted(self._fresh), dtype=torch.int64)

    @property
    def paid(self) -> int:
        """How many different samples have been paid for, the initial pool included."""
        return int(self._paid.sum())

    @property
    def spent(self) -> int:
        """How much of the budget is paid or promised: labels bought or asked after the initial pool."""
        bought = self._paid & ~self._initial
        bought |= (self._state == ASKED) & ~self._initial
        return int(bought.sum())

    @property
    def known(self) -> Tensor:
        """Ids whose label is known (labeled, released or reserved), ascending."""
        return self._known.nonzero().squeeze(1)

    def is_paid(self, ids: Tensor) -> Tensor:
        """Return which of ``ids`` have been paid for."""
        return self._paid[ids]

    def labels(self, ids: Tensor) -> Tensor:
        """Return the known labels of ``ids``, int64; the caller has checked that they may be seen."""
        if not self._arrays or not len(ids):
            return self._classes[ids]
        masks = [self._arrays[i] for i in ids.tolist()]
        labels = torch.empty(len(masks), *masks[0].shape, dtype=torch.int64)
        for row, mask in zip(labels, masks, strict=True):
            row.copy_(mask)
        return labels

    def _write(self, answers: Mapping[int, int | Tensor]) -> Tensor:
        """Keep labels by id; return the ids."""
        ids = torch.tensor(list(answers), dtype=torch.int64)
        self._known[ids] = True
        if any(isinstance(label, Tensor) for label in answers.values()):
            self._arrays.update((i, label) for i, label in answers.items() if isinstance(label, Tensor))
        else:
            self._classes[ids] = torch.tensor(list(answers.values()), dtype=torch.int64)
        return ids

    # -- changing ------------------------------------------------------------------------------------------------

    def check(self, ids: Any, what: str, *, allowed: Iterable[int]) -> Tensor:
        """Return ``ids`` as unique int64 ids that are in one of the ``allowed`` states, or raise PoolError."""
        checked = as_ids(ids, what)
        outside = (checked < 0) | (checked >= self.n)
        if outside.any():
            raise PoolError(f"{what}: {int(checked[outside][0])} is not an id of this pool (0..{self.n - 1})")
        if len(checked.unique()) != len(checked):
            values, counts = checked.unique(return_counts=True)
            raise PoolError(
                f"{what}: {int((counts > 1).sum())} ids are repeated, the first is {int(values[counts > 1][0])}"
            )
        states = self._state[checked]
        wrong = ~torch.isin(states, torch.tensor(list(allowed), dtype=torch.uint8))
        if wrong.any():
            first = checked[wrong][0]
            raise PoolError(
                f"{what}: {int(wrong.sum())} of {len(checked)} ids may not be used here, "
                f"the first is {int(first)}, which is {STATES[int(self._state[first])]}"
            )
        return checked

    def _set(self, ids: Tensor, state: int) -> None:
        self._state[ids] = state
        self._ids.clear()

    def reserve(self, name: str, ids: Tensor, labels: Any) -> None:
        """Set unlabeled ``ids`` aside for good; their labels are known to every plugin that needs labels."""
        ids = self.check(ids, f"reserve {name!r}", allowed=[UNLABELED])
        self._set(ids, RESERVED)
        self._reserved[name] = ids
        self.recall(zip(ids.tolist(), plain(labels), strict=True))

    def ask(self, ids: Tensor, *, initial: bool = False) -> Tensor:
        """Ask for ``ids``; return those whose answer is not known yet.

        Released ones come back at once: free, or charged again where they were refunded.
        """
        ids = self.check(ids, "ask", allowed=[UNLABELED])
        if initial:
            self._initial[ids] = True
        known = self._known[ids]
        self._set(ids[known], LABELED)
        self._paid[ids[known]] = True
        self._fresh.update(ids[known].tolist())
        self._set(ids[~known], ASKED)
        return ids[~known]

    def check_answers(self, ids: Any, labels: Any, answered: Iterable[int] = ()) -> tuple[Tensor, list[Label]]:
        """Return ids and labels of an answer in plain form, or raise PoolError; changes nothing.

        ``answered`` were answered before a stop, in answers that do not count yet: they can be revised.
        """
        checked = as_ids(ids, "tell")
        waiting = torch.isin(checked, torch.tensor(sorted(answered), dtype=torch.int64))
        self.check(checked[~waiting], "tell", allowed=[ASKED, LABELED, SKIPPED])
        values = plain(labels)
        if len(values) != len(checked):
            raise PoolError(f"tell: {len(checked)} ids but {len(values)} labels")
        return checked, values

    def learn(self, ids: Iterable[int], labels: Iterable[Label], *, by_hand: bool = False) -> None:
        """Note answers: to open questions they bring the sample into the labeled set, to others they revise or wait.

        None skips a sample that was asked: it costs nothing and is not asked again; a late answer is still taken.
        ``by_hand``: a person chose the samples; where the question was lost with a checkpoint, the answer counts.
        """
        answers = dict(zip(ids, labels, strict=True))
        skipped = torch.tensor([i for i, label in answers.items() if label is None], dtype=torch.int64)
        self._state[skipped[self._state[skipped] == ASKED]] = SKIPPED
        told = self._write({i: label for i, label in answers.items() if label is not None})
        self._paid[told] = True
        states = self._state[told]
        enter = told[(states == ASKED) | (states == SKIPPED) | (by_hand & (states == UNLABELED))]
        self._state[enter] = LABELED
        self._fresh.update(enter.tolist())
        self._ids.clear()

    def release(self, ids: Any, batch: Tensor, *, charged: bool = True) -> Tensor:
        """Return labeled ``ids`` of the last ``batch`` to the unlabeled; their label is kept.

        They stay paid, or are refunded where not ``charged``.
        """
        released = self.check(ids, "release", allowed=[LABELED])
        first = released[self._initial[released]]
        if len(first):
            raise PoolError(
                f"release: id {int(first[0])} is of the initial pool; only bought samples can be given back"
            )
        foreign = released[~torch.isin(released, batch)]
        if len(foreign):
            raise PoolError(f"release: id {int(foreign[0])} is not of the last batch; only that can be given back")
        self._set(released, UNLABELED)
        self._paid[released] = charged
        return released

    def recall(self, answers: Iterable[tuple[int, Label]]) -> None:
        """Note answers whose effect on the states is already there (they came before a checkpoint)."""
        self._write({i: label for i, label in answers if label is not None})

    def fitted(self) -> None:
        """Forget which ids are fresh: the learner has seen them."""
        self._fresh.clear()

    # -- keeping -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the answers, which are the journal's."""
        return {
            "state": self._state.clone(),
            "paid": self._paid.clone(),
            "initial": self._initial.clone(),
            "reserved": {name: ids.clone() for name, ids in self._reserved.items()},
            "fresh": sorted(self._fresh),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, for a pool of the same size."""
        if len(state["state"]) != self.n:
            raise PoolError(f"this pool has {self.n} samples, the saved one {len(state['state'])}")
        self._state = state["state"].clone()
        self._paid = state["paid"].clone()
        self._initial = state["initial"].clone()
        self._reserved = dict(state["reserved"])
        self._fresh = set(state["fresh"])
        self._ids.clear()


def read_labels(read: Callable[[Tensor], Any], ids: Tensor) -> list[Label]:
    """Return the labels of ``ids`` in plain form, read a few at a time: masks would fill the memory as int64."""
    return [label for part in ids.split(ANSWER_BLOCK) for label in plain(read(part))]


def plain(labels: Any) -> list[Label]:
    """Return labels as a list of ints, or of tensors in their smallest integer type where each label is an array.

    Raises
    ------
    PoolError
        They are not integers.
    """
    if isinstance(labels, (list, tuple)) and any(getattr(label, "ndim", 0) for label in labels):
        arrays = (mask if isinstance(mask, Tensor) else np.asarray(mask) for mask in labels)
        return [label for array in arrays for label in plain(array[None])]
    try:
        tensor = labels.detach().cpu() if isinstance(labels, Tensor) else torch.as_tensor(np.asarray(labels))
    except (TypeError, ValueError):
        raise PoolError("labels must be integers (class indices), one each and none missing") from None
    if tensor.numel() == 0:
        return []
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise PoolError(f"labels must be integers (class indices), not {tensor.dtype}")
    if tensor.ndim == 0:
        raise PoolError("labels must come as a list or array, one a sample")
    return [int(value) for value in tensor.tolist()] if tensor.ndim == 1 else [compact(mask) for mask in tensor]
