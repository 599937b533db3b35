"""Replay buffers: a ring of transitions, drawn uniformly or by priority."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Field = tuple[tuple[int, ...], torch.dtype]
"""Shape and stored type of one entry of a transition."""


class ReplayBuffer:
    """The last ``capacity`` transitions, drawn uniformly with replacement (Mnih et al., Nature 2015).

    Parameters
    ----------
    capacity : int
        Transitions kept; the oldest makes room for the next.
    fields : dict of str to (shape, dtype)
        What a transition consists of and how it is stored, e.g. ``{"state": ((10, 64), torch.bfloat16), "reward":
        ((), torch.float32)}``. A compact type saves memory; bfloat16 has the range of float32, float16 has not.
    """

    def __init__(self, capacity: int, fields: Mapping[str, Field]) -> None:
        if capacity < 1:
            raise ValueError(f"a replay buffer holds at least one transition, not {capacity}")
        self.capacity = capacity
        self._fields = dict(fields)
        self._stored = {name: torch.empty((capacity, *shape), dtype=dtype) for name, (shape, dtype) in fields.items()}
        self._size = 0
        self._cursor = 0

    def __len__(self) -> int:
        return self._size

    def add(self, **transition: Tensor | float) -> int:
        """Store one transition and return its slot.

        Parameters
        ----------
        transition : Tensor or float
            One entry for each field, of the field's shape.

        Raises
        ------
        ValueError
            A field is missing, unknown, of another shape, not finite, or too large for its stored type.
        """
        if transition.keys() != self._fields.keys():
            raise ValueError(f"a transition has the fields {', '.join(self._fields)}, not {', '.join(transition)}")
        entries = {name: self._fitting(name, value) for name, value in transition.items()}
        slot = self._cursor
        for name, entry in entries.items():
            self._stored[name][slot] = entry
        self._cursor = (slot + 1) % self.capacity
        self._size = min(self._size + 1, self.capacity)
        return slot

    def _fitting(self, name: str, value: Tensor | float) -> Tensor:
        shape, dtype = self._fields[name]
        given = torch.as_tensor(value)
        if given.shape != shape:
            raise ValueError(f"field {name!r} has shape {shape}, not {tuple(given.shape)}")
        entry = given.detach().to("cpu", dtype)
        if not torch.isfinite(given).all():
            raise ValueError(f"field {name!r} holds NaN or infinity")
        if not torch.isfinite(entry).all():
            raise ValueError(f"field {name!r} holds {float(given.abs().max()):g}, too large for {dtype}")
        return entry

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Draw ``n`` transitions with replacement.

        Returns
        -------
        slots : Tensor
            int64 ``(n,)``.
        transitions : dict of str to Tensor
            Each field, ``(n, ...)``; floating point as float32 (float64 stays what it is).
        """
        if not self._size:
            raise ValueError("nothing is stored yet, so nothing can be drawn")
        slots = self._draw(n, generator)
        return slots, {name: _widened(stored[slots]) for name, stored in self._stored.items()}

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self._size, (n,), generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Return what is stored, in its stored type, and where the ring stands."""
        stored = {name: values[: self._size].clone() for name, values in self._stored.items()}
        return {"stored": stored, "cursor": self._cursor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises
        ------
        ValueError
            It is of a buffer with other fields, or of a larger one.
        """
        sizes = {len(values) for values in state["stored"].values()}
        fields = {name: (tuple(values.shape[1:]), values.dtype) for name, values in state["stored"].items()}
        if fields != self._fields or len(sizes) != 1 or max(sizes) > self.capacity:
            raise ValueError(f"this buffer holds {self.capacity} of {self._fields}, the saved one {sizes} of {fields}")
        self._size, self._cursor = sizes.pop(), int(state["cursor"])
        for name, values in state["stored"].items():
            self._stored[name][: self._size] = values


class PrioritizedReplay(ReplayBuffer):
    """A replay buffer that draws in proportion to a power of the last temporal-difference error.

    The priority of a transition is max(|td|, floor)^exponent, in float64: the third power of an error of 1e-6 is lost
    beside others in float32. A new transition has the largest priority that is stored (1 in an empty buffer), so that
    it is drawn before its error is known. Drawn with replacement; no importance weights, as in ABAS-RAL.

    Source: Schaul, Quan, Antonoglou and Silver, *Prioritized Experience Replay*, ICLR 2016, section 3.3; the exponent
    3 is ABAS-RAL's (section 3.10).

    Parameters
    ----------
    capacity, fields
        As for :class:`ReplayBuffer`.
    exponent : float
        0 draws uniformly.
    floor : float
        The least |td| that counts, above 0, so that every transition can be drawn.
    """

    def __init__(
        self, capacity: int, fields: Mapping[str, Field], *, exponent: float = 3.0, floor: float = 1e-6
    ) -> None:
        super().__init__(capacity, fields)
        if not (exponent >= 0 and math.isfinite(exponent)) or not (floor > 0 and math.isfinite(floor)):
            raise ValueError(f"exponent must be 0 or more and floor above 0, both finite, not {exponent} and {floor}")
        self.exponent = exponent
        self.floor = floor
        self._priorities = torch.zeros(capacity, dtype=torch.float64)

    @property
    def priorities(self) -> Tensor:
        """Priorities by slot, float64 ``(len(self),)``."""
        return self._priorities[: self._size].clone()

    def add(self, **transition: Tensor | float) -> int:
        """Store one transition with the largest priority that is stored, and return its slot; see the base class."""
        largest = float(self.priorities.max()) if self._size else 1.0
        slot = super().add(**transition)
        self._priorities[slot] = largest
        return slot

    def update(self, slots: Tensor, td_errors: Tensor) -> None:
        """Note the temporal-difference errors of transitions that were drawn.

        Parameters
        ----------
        slots : Tensor
            int64 ``(n,)``, as :meth:`sample` gave them.
        td_errors : Tensor
            ``(n,)``, of either sign.

        Raises
        ------
        ValueError
            Another shape, a slot where nothing is stored, NaN or infinity.
        """
        errors = td_errors.detach().cpu().double()
        if errors.shape != slots.shape or slots.ndim != 1:
            raise ValueError(f"one error a slot: {tuple(slots.shape)} slots, {tuple(errors.shape)} errors")
        if len(slots) and not 0 <= int(slots.min()) <= int(slots.max()) < self._size:
            raise ValueError(f"slots lie in 0..{self._size - 1}, not {int(slots.min())}..{int(slots.max())}")
        priorities = errors.abs().clamp(min=self.floor) ** self.exponent
        if not torch.isfinite(priorities).all():
            raise ValueError("temporal-difference errors hold NaN or infinity, or their power does: training diverged")
        self._priorities[slots] = priorities

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        drawn: Tensor = torch.multinomial(self.priorities, n, replacement=True, generator=generator)
        return drawn

    def state_dict(self) -> dict[str, Any]:
        """Return what is stored, its priorities and where the ring stands."""
        return super().state_dict() | {"priorities": self.priorities}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave; see the base class."""
        super().load_state_dict(state)
        self._priorities.zero_()
        self._priorities[: self._size] = state["priorities"]


def _widened(values: Tensor) -> Tensor:
    """Return compact floating point numbers as float32."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
