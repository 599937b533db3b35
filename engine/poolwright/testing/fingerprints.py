"""Fingerprints of values, to see whether something has changed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor


def fingerprint(value: Any) -> str:
    """Return a digest that is equal for equal values.

    Tensors and arrays count by content, containers by their elements, objects by ``state_dict()`` where they have one
    and by their attributes where not; functions, classes and objects that show neither, by name.
    """
    digest = hashlib.blake2b(digest_size=16)
    _feed(digest, value, set())
    return digest.hexdigest()


def attributes(instance: Any) -> dict[str, Any]:
    """Return the attributes of an instance, those in ``__slots__`` included."""
    slots = [name for cls in type(instance).__mro__ for name in np.atleast_1d(getattr(cls, "__slots__", ())).tolist()]
    held = {name: getattr(instance, name) for name in slots if hasattr(instance, name) and not name.startswith("__")}
    return held | getattr(instance, "__dict__", {})


def fingerprints(instance: Any) -> dict[str, str]:
    """Return a digest for each attribute of an instance."""
    return {name: fingerprint(value) for name, value in attributes(instance).items()}


def _feed(digest: Any, value: Any, above: set[int]) -> None:
    digest.update(f"<{type(value).__qualname__}>".encode())
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous()
        digest.update(f"{flat.dtype} {tuple(flat.shape)}".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
    elif isinstance(value, (str, bytes, int, float, complex, type(None), np.generic, torch.dtype, torch.device, range)):
        digest.update(repr(value).encode())
    elif isinstance(value, (type, ModuleType)) or hasattr(value, "__code__"):
        digest.update(getattr(value, "__qualname__", value.__name__).encode())
    elif id(value) not in above:
        for part in _parts(value):
            _feed(digest, part, above | {id(value)})


def _parts(value: Any) -> list[Any]:
    """Return what a container or an object is made of."""
    if isinstance(value, torch.Generator):
        return [value.get_state()]
    if isinstance(value, random.Random):
        return [repr(value.getstate())]
    if isinstance(value, np.random.Generator):
        return [value.bit_generator.state]
    if isinstance(value, np.random.RandomState):
        return [repr(value.get_state())]
    if callable(getattr(value, "state_dict", None)):
        return [value.state_dict()]
    if isinstance(value, Mapping):
        return [part for item in value.items() for part in item]
    if isinstance(value, AbstractSet):
        return sorted(fingerprint(element) for element in value)
    if isinstance(value, np.ndarray):
        return [value.tolist()]
    if hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        return [value[i] for i in range(len(value))]
    return [part for item in attributes(value).items() for part in item]
