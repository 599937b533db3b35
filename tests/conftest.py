"""Fixtures of all tests."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import torch


def pytest_configure() -> None:
    """Hear Ctrl-C also where the tests were begun in the background, which programs they start would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def global_generators() -> Iterator[None]:
    """Seed the global generators before each test and put them back after it: no test hangs on another's draws."""
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    torch.set_rng_state(torch_state)
