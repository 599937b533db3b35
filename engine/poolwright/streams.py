"""Random streams keyed by what they are for, so that adding a plugin shifts no other.

Every stream of a run is a pure function of its key (run seed, plugin, role, cycle): nothing has to be saved to
resume it, and no stream can disturb another.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch

Key = tuple[str | int, ...]


def derive_seed(*key: str | int) -> int:
    """Return the 63-bit seed that belongs to ``key`` (blake2b of its parts; stable across versions)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*key: str | int) -> torch.Generator:
    """Return a fresh CPU generator for ``key``; equal keys give equal streams."""
    return torch.Generator().manual_seed(derive_seed(*key))


@cache
def _has_cuda() -> bool:
    return torch.cuda.is_available()


@contextmanager
def seeded(*key: str | int) -> Iterator[None]:
    """Seed the global generators of random, numpy and torch from ``key``, and put them back afterwards.

    Library code that draws from a global generator is thereby as reproducible as code that uses the generator it
    is given, and leaves no trace in the caller's own streams.
    """
    seed = derive_seed(*key)
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if _has_cuda():
        torch.manual_seed(seed)
    else:  # the same, without the stack trace that torch keeps for a device which may be initialized later
        torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)


def digest(*generators: torch.Generator) -> str:
    """Return a fingerprint of the global generators and of ``generators``: where every stream stands now.

    Recorded after each hook and fit, so that two runs can be compared stream by stream.
    """
    fingerprint = hashlib.blake2b(digest_size=8)
    fingerprint.update(repr(random.getstate()).encode())
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    fingerprint.update(np.asarray(keys).tobytes())
    fingerprint.update(f"{kind} {position} {has_gauss} {gauss}".encode())
    fingerprint.update(torch.get_rng_state().numpy().tobytes())
    for stream in generators:
        fingerprint.update(stream.get_state().numpy().tobytes())
    return fingerprint.hexdigest()
