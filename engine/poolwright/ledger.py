"""What a session keeps: answers before they count, checkpoints, records of cycles; and the replay after a stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .errors import PluginError, StoreError
from .pool import Label, Pool
from .state import CycleRecord
from .store import Answer, Store, unreadable


class Ledger:
    """The journal and the checkpoints of one run; in memory only where there is no store.

    Parameters
    ----------
    store : Store, optional
    by_hand : bool
        A person chooses the samples; see :meth:`Pool.learn`.

    Attributes
    ----------
    position : int
        The number of the last answer that counts.
    """

    def __init__(self, store: Store | None, *, by_hand: bool = False) -> None:
        self.position = 0
        self._by_hand = by_hand
        self._store = store
        self._waiting: list[Answer] = []
        self._recorded = 0

    @property
    def durable(self) -> bool:
        """Whether anything outlives the process."""
        return self._store is not None

    @property
    def waiting(self) -> set[int]:
        """Ids that were answered before a stop, in answers that are still to be replayed."""
        return {answer.id for answer in self._waiting}

    def note(self, pool: Pool, ids: Tensor, values: list[Label]) -> None:
        """Journal answers first, then let them count (behind those that a resumed run still has to replay)."""
        if self._store is None:
            self.position += len(ids)
            pool.learn(ids.tolist(), values)
            return
        before = self._store.position
        after = self._store.append(ids.tolist(), values)
        if self._waiting:
            self._waiting += self._store.answers(before)
        else:
            pool.learn(ids.tolist(), values)
            self.position = after

    def identify(self, facts: dict[str, Any]) -> None:
        """Note what session this is, or refuse one that is another than was noted.

        Raises
        ------
        StoreError
            With the first fact that differs.
        """
        if self._store is None:
            return
        known = self._store.meta("session")
        if known is None:
            self._store.set_meta("session", facts)
            return
        for name, value in facts.items():
            if known.get(name) != value:
                raise StoreError(
                    f"{self._store.folder} holds a session with another {name} ({known.get(name)!r}, now {value!r}): "
                    f"use the same, or another folder"
                )

    def replay(self, pool: Pool, number: int) -> None:
        """Let waiting answers count: up to where cycle ``number`` was fitted before, if it was, else all."""
        if not self._waiting or self._store is None:
            return
        limit = self._store.cycle_position(number)
        while self._waiting and (limit is None or self._waiting[0].position <= limit):
            answer = self._waiting.pop(0)
            pool.learn([answer.id], [answer.label], by_hand=self._by_hand)
            self.position = answer.position

    def save(self, number: int, states: Mapping[str, Any], state: dict[str, Any]) -> None:
        """Write a checkpoint before cycle ``number``; only where there is a store.

        Parameters
        ----------
        states : dict
            State of each plugin by name, to be read again or to be refused now.
        state : dict
            Everything, ``states`` among it.

        Raises
        ------
        PluginError
            A plugin's state holds more than plain data.
        StoreError
            It cannot be written.
        """
        assert self._store is not None
        for name, own in states.items():
            if wrong := unreadable(own):
                raise PluginError(
                    f"the state_dict of {name!r} cannot be kept, since {wrong}: "
                    f"give tensors, numbers, strings, lists and dicts"
                )
        self._store.write_checkpoint(number, state | {"position": self.position})

    def unrecorded(self, history: Sequence[CycleRecord]) -> bool:
        """Tell whether cycles are not kept yet: the last one, or one for which there was no room at first."""
        return self._store is not None and self._recorded < len(history)

    def record(self, history: Sequence[CycleRecord]) -> None:
        """Keep the cycles that are not kept yet."""
        assert self._store is not None
        for record in history[self._recorded :]:
            self._store.write_cycle(record.index, record.position, record.as_dict())
            self._recorded += 1

    def restore(self, pool: Pool) -> tuple[dict[str, Any], list[CycleRecord]] | None:
        """Return the last whole checkpoint and its history, and line up the answers that came after it."""
        if self._store is None:
            return None
        state, journal = self._store.read_checkpoint(), self._store.answers()
        history = []
        if state is not None:
            history = [CycleRecord(**record) for record in state["history"]]
            self.position = state["position"]
            pool.load_state_dict(state["pool"])
            pool.recall((answer.id, answer.label) for answer in journal if answer.position <= self.position)
            for record in history:  # a stop between checkpoint and record leaves one out
                if self._store.cycle_position(record.index) is None:
                    self._store.write_cycle(record.index, record.position, record.as_dict())
            self._recorded = len(history)
        self._waiting = [answer for answer in journal if answer.position > self.position]
        return None if state is None else (state, history)
