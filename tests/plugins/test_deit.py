"""DeiT-Small: timm's network, the files of weights that it reads, what images become in front of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import poolwright as pw
from poolwright import ConfigError, LearnerError
from poolwright_plugins.datasets.pixels import IMAGENET_MEAN, IMAGENET_STD, normalize
from poolwright_plugins.learners.deit import DeiTSmall

from .learner_parts import Blobs, fit, logits, operations

timm = pytest.importorskip("timm")

SMALL: dict[str, Any] = {"size": 16, "patch": 8, "width": 16, "depth": 1}
STILL: dict[str, Any] = {"lr": 1e-12, "epochs": 1, "weight_decay": 0.0}


def small(**params: Any) -> Any:
    return DeiTSmall(**{"weights": "none", "epochs": 2, "batch_size": 20, **SMALL, **params})


def transformer(**params: Any) -> Any:
    """Return timm's own small transformer, whose names are those of DINO's files."""
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 1, "num_classes": 0}
    torch.manual_seed(5)
    return timm.models.vision_transformer.VisionTransformer(**{**sizes, **params}).eval()


def file_of(content: Any, folder: Path) -> str:
    torch.save(content, folder / "weights.pth")
    return str(folder / "weights.pth")


def loaded(weights: str, data: Blobs, **params: Any) -> Any:
    learner = small(weights=weights, **params)
    learner.load_pretrained(data.labeled())
    return learner


# -- the network -----------------------------------------------------------------------------------------------------


def test_it_is_timms_deit_small_with_384_embeddings_and_reads_a_file_named_as_dinos(tmp_path: Path) -> None:
    original = timm.create_model("deit_small_patch16_224", num_classes=0).eval()
    data = Blobs(n=2, shape=(3, 224, 224))
    learner = DeiTSmall(weights=file_of(original.state_dict(), tmp_path))
    learner.load_pretrained(data.labeled())
    found = learner.predict(data.inputs)["embeddings"]
    assert found.shape == (2, 384)
    torch.testing.assert_close(found, original(data.inputs).detach())
    assert sum(parameter.numel() for parameter in learner._network.body.parameters()) == 21_665_664


def test_the_defaults_are_those_of_bral_t() -> None:
    learner = DeiTSmall()
    assert (learner.optimizer, learner.schedule, learner.epochs, learner.batch_size, learner.size) == (
        "sgd", "cosine", 1000, 512, 224,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 9, 13)])
def test_a_small_one_learns(shape: tuple[int, ...]) -> None:
    data = Blobs(shape=shape)
    learner = fit(small(epochs=40, lr=0.05), data.labeled())
    assert (logits(learner, data.inputs).argmax(1) == torch.arange(40) % 3).float().mean() > 0.9
    assert learner.predict(data.inputs)["embeddings"].shape == (40, 16)
    torch.testing.assert_close(learner.head(learner.predict(data.inputs)["embeddings"]), logits(learner, data.inputs))


def test_dropout_is_in_front_of_the_head_alone() -> None:
    data = Blobs(shape=(3, 8, 8))
    learner = fit(small(dropout=0.5), data.labeled())
    assert "dropout" in learner.provides
    assert "dropout" not in small().provides
    kept = learner.predict(data.inputs)["embeddings"]
    sampled = learner.sample(data.inputs, torch.Generator().manual_seed(0))["embeddings"]
    assert torch.all((sampled == 0) | torch.isclose(sampled, 2 * kept, rtol=1e-4, atol=1e-5))
    assert 0.3 < (sampled == 0).float().mean() < 0.7


# -- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [9, 40])
def test_images_are_resized_as_pillow_does_bicubically(side: int) -> None:
    pixels = np.random.default_rng(0).random((side, side + 3)).astype(np.float32)
    expected = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC))
    network: Any = small().build((3, side, side + 3), 2)
    found = network.resized(torch.from_numpy(pixels).expand(1, 3, -1, -1))
    torch.testing.assert_close(found[0, 1], torch.from_numpy(expected.copy()), rtol=0, atol=1e-4)


def test_gray_images_are_repeated_at_first() -> None:
    network: Any = small().build((1, 8, 8), 2)
    gray = torch.randn(2, 1, 8, 8)
    resized = network.resized(gray)
    assert resized.shape == (2, 3, 16, 16)
    assert all(torch.equal(resized[:, 0], resized[:, channel]) for channel in (1, 2))


def test_with_the_data_sets_mean_and_deviation_images_come_to_imagenets() -> None:
    images = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    network: Any = small(mean=mean, std=std).build((3, 16, 16), 2)
    found = network.resized(normalize(images, mean, std))
    torch.testing.assert_close(found, normalize(images, IMAGENET_MEAN, IMAGENET_STD), rtol=1e-5, atol=1e-5)
    plain: Any = small().build((3, 16, 16), 2)
    assert torch.equal(plain.resized(normalize(images, mean, std)), normalize(images, mean, std))


def test_gray_images_come_to_imagenets_scale_of_each_color() -> None:
    images = torch.randint(256, (2, 1, 16, 16), dtype=torch.uint8)
    network: Any = small(mean=[0.3], std=[0.4]).build((1, 16, 16), 2)
    expected = normalize(images.expand(-1, 3, -1, -1), IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(network.resized(normalize(images, [0.3], [0.4])), expected, rtol=1e-5, atol=1e-5)


def test_no_gradient_goes_through_the_resizing() -> None:
    network: Any = small().build((1, 8, 8), 2)
    found = operations(network(torch.randn(2, 1, 8, 8)).sum())
    assert any("Convolution" in name for name in found)
    assert not any("Upsample" in name for name in found)


# -- weights ---------------------------------------------------------------------------------------------------------


def dino_checkpoint(body: dict[str, Tensor]) -> dict[str, Any]:
    teacher = {f"module.backbone.{name}": value for name, value in body.items()}
    teacher |= {"module.head.mlp.0.weight": torch.ones(3, 16), "module.head.last_layer.weight_v": torch.ones(2, 3)}
    student = {name: torch.zeros_like(value) for name, value in teacher.items()}
    return {"student": student, "teacher": teacher, "epoch": 100, "args": argparse.Namespace(arch="vit_small", lr=0.1)}


@pytest.mark.parametrize(
    "wrapped",
    [
        dict,
        dino_checkpoint,
        lambda body: {"model": body | {"head.weight": torch.ones(1000, 16), "head.bias": torch.ones(1000)}},
        lambda body: {"state_dict": {f"module.backbone.{name}": value for name, value in body.items()}},
        lambda body: {"teacher": {f"backbone.{name}": value for name, value in body.items()}},
    ],
    ids=["DINO", "DINO, whole", "DeiT", "module.backbone", "teacher"],
)
def test_a_file_gives_the_embeddings_of_the_network_that_it_came_from(wrapped: Any, tmp_path: Path) -> None:
    source, data = transformer(), Blobs(shape=(3, 16, 16), n=6)
    learner = loaded(file_of(wrapped(source.state_dict()), tmp_path), data)
    torch.testing.assert_close(learner.predict(data.inputs)["embeddings"], source(data.inputs).detach())
    assert learner.head.out_features == 3


def test_a_head_for_as_many_classes_is_taken_over(tmp_path: Path) -> None:
    source, data = transformer(num_classes=3), Blobs(shape=(3, 16, 16), n=6)
    learner = loaded(file_of(source.state_dict(), tmp_path), data)
    torch.testing.assert_close(logits(learner, data.inputs), source(data.inputs).detach())


@pytest.mark.parametrize("start", ["scratch", "warm", "pretrained"])
def test_every_fit_that_begins_anew_begins_from_the_file(start: str, tmp_path: Path) -> None:
    source, data = transformer(), Blobs(shape=(3, 16, 16))
    learner = fit(small(weights=file_of(source.state_dict(), tmp_path), **STILL), data.labeled(), start=start)
    torch.testing.assert_close(learner.predict(data.inputs)["embeddings"], source(data.inputs).detach())


def test_warm_goes_on_from_the_present_weights_and_scratch_from_the_file(tmp_path: Path) -> None:
    source, data = transformer(), Blobs(shape=(3, 16, 16))
    learner = fit(small(weights=file_of(source.state_dict(), tmp_path), lr=0.1, epochs=10), data.labeled())
    trained = logits(learner, data.inputs)
    learner.lr, learner.epochs = 1e-12, 1
    fit(learner, data.labeled(), start="warm")
    torch.testing.assert_close(logits(learner, data.inputs), trained, rtol=0, atol=1e-4)
    fit(learner, data.labeled())
    torch.testing.assert_close(learner.predict(data.inputs)["embeddings"], source(data.inputs).detach())


def test_a_saved_learner_is_restored_without_the_file_and_can_itself_be_begun_from(tmp_path: Path) -> None:
    data = Blobs(shape=(3, 8, 8))
    learner = fit(small(), data.labeled())
    path = file_of(learner.state_dict(), tmp_path)
    restored = small(weights="gone.pth")
    restored.load_state_dict(torch.load(path, weights_only=True))
    assert torch.equal(logits(restored, data.inputs), logits(learner, data.inputs))
    assert torch.equal(logits(loaded(path, data), data.inputs), logits(learner, data.inputs))


def test_random_weights_have_to_be_asked_for() -> None:
    data = Blobs(shape=(3, 8, 8))
    with pytest.raises(ConfigError, match=r"no pretrained weights: weights is not set; set it to a file such as dino"):
        fit(small(weights=None), data.labeled())
    for weights in ("none", False):
        assert fit(small(weights=weights), data.labeled()).head.out_features == 3
        with pytest.raises(
            ConfigError, match=r"leaves start = 'pretrained', or an initial pool, nothing to begin from"
        ):
            small(weights=weights).load_pretrained(data.labeled())


def test_files_that_cannot_serve_are_errors_that_name_them_and_the_way_out(tmp_path: Path) -> None:
    labeled = Blobs(shape=(3, 16, 16)).labeled()
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"PK\x03\x04 not a checkpoint")
    other = file_of(transformer(embed_dim=24).state_dict(), tmp_path)
    for weights, message in (
        (
            str(tmp_path / "missing.pth"),
            r"no weights file '.*missing.pth': change weights; set it to .* or to \"none\"",
        ),
        (str(damaged), r"'.*damaged.pth' cannot be read as weights"),
        (other, r"holds weights of another network; they differ in body.cls_token"),
    ):
        with pytest.raises(LearnerError, match=f"learner deit-small: .*{message}"):
            fit(small(weights=weights), labeled)


def test_other_objects_in_a_file_than_arguments_are_refused(tmp_path: Path) -> None:
    content = dino_checkpoint(transformer().state_dict()) | {"args": Path("x")}
    with pytest.raises(LearnerError, match="cannot be read as weights"):
        fit(small(weights=file_of(content, tmp_path)), Blobs(shape=(3, 16, 16)).labeled())


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"weights": True}, "weights must be the path of a file, not True"),
        ({"size": 20}, "size = 20 is no multiple of patch = 8"),
        ({"width": 200}, "width must be below 128 or a multiple of 64, not 200"),
        ({"depth": 0}, "depth must be an integer of at least 1"),
        ({"mean": [0.5]}, "mean and std are given together"),
        ({"mean": [0.5], "std": [0.0]}, "std must be a list of numbers, above 0"),
        ({"mean": "auto", "std": [1.0]}, "mean must be a list of numbers"),
        ({"mean": [0.5], "std": [0.1, 0.2, 0.3]}, "one number for each of the images' 3 channels"),
    ],
)
def test_unusable_parameters_are_errors_that_name_them(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"learner deit-small: .*{message}"):
        fit(small(**params), Blobs(shape=(3, 8, 8)).labeled())


def test_vectors_are_refused() -> None:
    with pytest.raises(LearnerError, match="samples must be images"):
        fit(small(), Blobs(shape=(64,)).labeled())


def test_without_timm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"deit-small needs timm: pip install 'poolwright\[deit\]'"):
        fit(small(), Blobs(shape=(3, 8, 8)).labeled())


# -- active finetuning -----------------------------------------------------------------------------------------------


def test_activeft_selects_the_initial_pool_in_the_pretrained_embeddings_and_each_cycle_finetunes(
    tmp_path: Path,
) -> None:
    pixels = torch.randn(60, 3, 8, 8).numpy()
    np.savez(tmp_path / "data.npz", x=pixels, y=np.arange(60) % 3)
    learner = {"name": "deit-small", "weights": file_of(transformer().state_dict(), tmp_path), "epochs": 2, **SMALL}
    experiment = pw.Experiment(
        dataset={"name": "arrays", "path": str(tmp_path / "data.npz"), "test": 0.2},
        learner=learner | {"start": "pretrained"},
        initial={"strategy": {"name": "activeft", "iterations": 20}, "size": 6, "learner": learner},
        strategies=["random", "activeft"],
        seeds=1,
        budget=4,
        batch=2,
        threads=1,
    )
    result = pw.run(experiment)
    (pool,) = result.info["initial_pools"]
    assert len(set(pool["selected"])) == 6
    assert len(pool["logs"]["activeft.select.loss"]) == 20
    assert all([record.labeled for record in run.records] == [6, 8, 10] for run in result.runs)
