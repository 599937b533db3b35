"""Samples and metrics on CUDA: data live there, and nothing is copied or waited for at each step."""

from __future__ import annotations

import pytest
import torch

from poolwright import Samples
from poolwright.dataset import whole
from poolwright.metrics import evaluate
from poolwright.testing import make_dataset, make_learner

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_on_cuda_rows_that_live_there_cost_no_copy_from_the_host():
    device = torch.device("cuda", 0)
    data = make_dataset(n=64, task="segmentation")
    samples = Samples(data, data.pool, torch.arange(8, 64), data.pool.labels)
    expected = [(x, y) for x, y in samples.batches(16)]
    for x, y in samples.batches(16, device="cuda"):  # copies inputs, ids and masks there, once
        assert x.device == y.device == device
    rows = torch.arange(56, device=device)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        x = samples.inputs(rows, device="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(x.cpu(), torch.cat([a for a, _ in expected]))
    got = [(x.cpu(), y.cpu()) for x, y in samples.batches(16, device="cuda")]
    for (x, y), (a, b) in zip(got, expected, strict=True):
        assert torch.equal(x, a)
        assert torch.equal(y, b)
    assert data.pool.resident(device) is data.pool.resident(device)
    assert samples.labels.resident(device).dtype == torch.uint8


def test_on_cuda_the_metrics_are_those_of_the_cpu():
    data = make_dataset(task="segmentation")
    learner = make_learner()
    labeled = Samples(data, data.pool, torch.arange(12), data.pool.labels)
    learner.fit(labeled, unlabeled=labeled, start="scratch", generator=torch.Generator().manual_seed(0))

    class OnCuda:
        provides = learner.provides

        def predict(self, inputs):
            return {name: values.cuda() for name, values in learner.predict(inputs.cpu()).items()}

    test = whole(data, data.test)
    assert evaluate(OnCuda(), test, device="cuda") == evaluate(learner, test)
