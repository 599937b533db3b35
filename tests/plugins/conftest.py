"""Small parts for the tests of built-in plugins."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from poolwright import Cycle, testing


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute on one thread: on tensors this small, several spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cycle_of(
    *, labeled: int = 0, role: str = "select", seed: int = 0, index: int = 0, needs: Any = None, **given: Tensor
) -> Cycle:
    """Return a cycle whose ids below ``labeled`` are labeled, with the ``given`` outputs for every sample."""
    return testing.make_cycle(
        plugin="tested",
        role=role,
        needs=needs or frozenset(given),
        given=given,
        labeled=labeled,
        index=index,
        seed=seed,
    )


def through(wrapper: Generator[None, Any, Any], inner: Any) -> Any:
    """Return what a wrapper makes of the ``inner`` result."""
    next(wrapper)
    try:
        wrapper.send(inner)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a wrapper yields once")


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.numel())
        return result


def distributions(n: int, classes: int, seed: int = 0) -> Tensor:
    """Return random class distributions, float32 ``(n, classes)``."""
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(1)


def points(n: int, d: int, seed: int = 0) -> Tensor:
    """Return Gaussian vectors, float32 ``(n, d)``."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
