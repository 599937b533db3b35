"""A pytest plugin: the kernels run on several threads while torch itself runs on one."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer 4 to the kernels, which ask torch how many threads they may use."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
