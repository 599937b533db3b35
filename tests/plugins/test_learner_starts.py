"""Where a fit of a torch learner starts from, and what is kept of it."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from poolwright import ConfigError, LearnerError
from poolwright_plugins.learners.cnn import CNN
from poolwright_plugins.learners.mlp import MLP

from .learner_parts import TORCH_LEARNERS, Blobs, fit, logits, quick

STILL: dict[str, Any] = {"lr": 1e-12, "epochs": 1, "weight_decay": 0.0}
each_learner = pytest.mark.parametrize("kind", TORCH_LEARNERS)


def saved(learner: Any, folder: Path) -> str:
    path = folder / "weights.pt"
    torch.save(learner.state_dict(), path)
    return str(path)


def test_scratch_forgets_and_warm_goes_on_from_the_present_weights() -> None:
    data = Blobs()
    learner = fit(quick(MLP), data.labeled(), seed=1)
    before = logits(learner, data.inputs)
    learner.lr, learner.epochs = 1e-12, 1
    fit(learner, data.labeled(), seed=2, start="warm")
    torch.testing.assert_close(logits(learner, data.inputs), before, rtol=0, atol=1e-4)
    fit(learner, data.labeled(), seed=2)
    assert (logits(learner, data.inputs) - before).abs().max() > 0.01


def test_a_fit_that_goes_on_has_epochs_and_a_rate_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    data, paces = Blobs(), []
    train = MLP._train
    monkeypatch.setattr(MLP, "_train", lambda self, *given: (paces.append(given[3:5]), train(self, *given))[1])
    learner = quick(MLP, epochs=3, min_steps=0, lr=0.01, warm_epochs=2, warm_lr=0.001)
    for start in ("warm", "warm", "scratch"):  # the first has nothing to go on from
        fit(learner, data.labeled(), start=start)
    assert paces == [(3, 0.01), (2, 0.001), (3, 0.01)]


def test_the_rate_of_a_fit_that_goes_on_is_the_rate_of_its_steps() -> None:
    data = Blobs()
    learner = fit(quick(MLP, warm_lr=1e-12, weight_decay=0.0), data.labeled())
    before = logits(learner, data.inputs)
    torch.testing.assert_close(
        logits(fit(learner, data.labeled(), start="warm"), data.inputs), before, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"warm_epochs": 0}, "warm_epochs must be an integer of at least 1, not 0"),
        ({"warm_lr": 0.0}, "warm_lr must be above 0, not 0.0"),
    ],
)
def test_what_no_fit_could_go_on_with_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(quick(MLP, **params), Blobs().labeled())


def test_warm_begins_anew_where_there_is_nothing_to_go_on_from() -> None:
    data = Blobs()
    assert torch.equal(
        logits(fit(quick(MLP), data.labeled(), start="warm"), data.inputs),
        logits(fit(quick(MLP), data.labeled(), start="scratch"), data.inputs),
    )
    learner = fit(quick(MLP), Blobs(classes=4).labeled())
    assert logits(fit(learner, data.labeled(), start="warm"), data.inputs).shape == (40, 3)


@each_learner
def test_pretrained_begins_from_the_weights_in_the_file(kind: type, tmp_path: Path) -> None:
    data = Blobs()
    learner = fit(quick(kind, epochs=5), data.labeled(), seed=1)
    weights = saved(learner, tmp_path)
    again = fit(quick(kind, weights=weights, **STILL), data.labeled(), seed=2, start="pretrained")
    torch.testing.assert_close(again.head.weight, learner.head.weight, rtol=0, atol=1e-4)
    torch.save(learner.state_dict()["network"], tmp_path / "plain.pt")
    plain = fit(quick(kind, weights=str(tmp_path / "plain.pt"), **STILL), data.labeled(), seed=2, start="pretrained")
    assert torch.equal(plain.head.weight, again.head.weight)


def test_pretrained_weights_serve_another_number_of_classes_with_a_fresh_head(tmp_path: Path) -> None:
    source = fit(quick(MLP), Blobs(classes=5).labeled())
    learner = quick(MLP, weights=saved(source, tmp_path), **STILL)
    fit(learner, Blobs(classes=3).labeled(), start="pretrained")
    body = "body.1.weight"
    torch.testing.assert_close(
        learner.state_dict()["network"][body], source.state_dict()["network"][body], rtol=0, atol=1e-4
    )
    assert learner.head.out_features == 3


def test_pretrained_without_usable_weights_says_what_is_wrong(tmp_path: Path) -> None:
    labeled = Blobs().labeled()
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(b"not a checkpoint")
    other = saved(fit(quick(MLP, hidden=(9,)), labeled), tmp_path)
    for weights, message in (
        (None, "needs the parameter weights"),
        (str(tmp_path / "missing.pt"), "there is no weights file '.*missing.pt'"),
        (str(damaged), "cannot be read as weights"),
        (other, "holds weights of another network; they differ in body.1.weight"),
    ):
        with pytest.raises(LearnerError, match=message):
            fit(quick(MLP, weights=weights), labeled, start="pretrained")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_damaged_anywhere_is_one_kind_of_error(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    labeled = Blobs().labeled()
    torch.save(fit(quick(MLP), labeled).state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(8):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(LearnerError):  # damage among the numbers themselves cannot be seen
            quick(MLP, weights=str(path)).load_pretrained(labeled)


def test_parameters_are_checked_before_weights_are_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learner mlp: epochs must be"):
        quick(MLP, epochs=0, weights=str(tmp_path / "missing.pt")).load_pretrained(Blobs().labeled())


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"network": Path("x")}, path)
    with pytest.raises(LearnerError, match="cannot be read as weights"):
        fit(quick(MLP, weights=str(path)), Blobs().labeled(), start="pretrained")


def test_an_unknown_start_is_an_error() -> None:
    with pytest.raises(ConfigError, match="start is one of scratch, warm, pretrained, not 'cold'"):
        fit(quick(MLP), Blobs().labeled(), start="cold")


@each_learner
def test_a_restored_learner_predicts_and_goes_on_like_the_saved_one(kind: type, tmp_path: Path) -> None:
    data = Blobs()
    learner = fit(quick(kind), data.labeled())
    path = saved(learner, tmp_path)
    restored = quick(kind)
    generators = torch.get_rng_state()
    restored.load_state_dict(torch.load(path, weights_only=True))
    assert torch.equal(torch.get_rng_state(), generators)
    assert torch.equal(logits(restored, data.inputs), logits(learner, data.inputs))
    for each in (learner, restored):
        fit(each, data.labeled(), start="warm", seed=3)
    assert torch.equal(logits(restored, data.inputs), logits(learner, data.inputs))


def test_the_state_of_an_unfitted_learner_is_empty_and_makes_unfitted() -> None:
    learner = fit(quick(CNN), Blobs().labeled())
    learner.load_state_dict(quick(CNN).state_dict())
    with pytest.raises(LearnerError, match="has not been fitted"):
        learner.predict(Blobs().inputs)


def test_a_saved_state_does_not_follow_later_training() -> None:
    data = Blobs()
    learner = fit(quick(MLP), data.labeled())
    state = learner.state_dict()["network"]
    before = {name: value.clone() for name, value in state.items()}
    fit(learner, data.labeled(), start="warm")
    assert all(torch.equal(state[name], before[name]) for name in before)
