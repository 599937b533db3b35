"""The noisy oracle as an experiment uses it: within superclasses of the data set, for classes only, the same again."""

from __future__ import annotations

import pytest
import torch

from poolwright import ConfigError, Store, hookimpl, run
from poolwright.folder import run_folder
from poolwright.preparation import load_dataset
from poolwright.spec import DatasetSpec

from .helpers.build import EMPTY, experiment
from .helpers.toys import Blobs, Masks, Random, Signs

SUPERCLASSES = (0, 0, 0, 1, 1, 2)


class Families(Blobs):
    """Six classes in three superclasses, the last one alone in its own."""

    superclasses = SUPERCLASSES

    def __init__(self, n_validation: int = 0) -> None:
        super().__init__(n=240, n_classes=6, n_validation=n_validation)


def told(folder, seed: int = 0) -> dict[int, int]:
    """Return what the oracle answered in a run."""
    store = Store(run_folder(folder, "random", seed))
    answers = {answer.id: answer.label for answer in store.answers()}
    store.close()
    return answers


def config(rate: float, **settings):
    settings = {"oracle": {"rate": rate, "superclass": True}, "dataset": {"name": Families}} | settings
    return experiment(Random, **({"budget": 180, "batch": 60} | settings))


@pytest.mark.parametrize("options", [{}, {"subset": 200, "validation": 0.1}])
def test_wrong_labels_stay_within_the_superclasses_of_the_data_set(tmp_path, options):
    dataset = {"name": Families, **options}
    run(config(1.0, dataset=dataset, budget=150), tmp_path / "x", catalog=EMPTY)
    data = load_dataset(DatasetSpec(**dataset), EMPTY)
    assert data.superclasses == SUPERCLASSES
    answers = told(tmp_path / "x")
    true = data.pool.labels(torch.tensor(list(answers))).tolist()
    wrong = [(a, b) for a, b in zip(answers.values(), true, strict=True) if a != b]
    assert all(SUPERCLASSES[a] == SUPERCLASSES[b] for a, b in wrong)
    assert len(wrong) == sum(b != 5 for b in true)  # whoever is alone in a superclass is never mislabeled


def test_the_share_of_wrong_labels_is_the_rate(tmp_path):
    run(config(0.3, oracle={"rate": 0.3}, budget=232, batch=232), tmp_path / "x", catalog=EMPTY)
    answers = told(tmp_path / "x")
    assert len(answers) == 240
    assert sum(label != i % 6 for i, label in answers.items()) / 240 == pytest.approx(0.3, abs=0.08)


class StopsOnce:
    """Fails in its second cycle, the first time."""

    stopped = False

    @hookimpl
    def score(self, cycle):
        if cycle.index == 1 and not StopsOnce.stopped:
            StopsOnce.stopped = True
            raise RuntimeError("stopped")
        return torch.rand(len(cycle.pool.unlabeled), generator=cycle.generator)


def test_a_resumed_run_hears_the_same_wrong_answers(tmp_path):
    def named(strategy):
        return config(0.5).model_copy(
            update={"strategies": experiment({"label": "random", "name": strategy}).strategies}
        )

    StopsOnce.stopped = True
    run(named(StopsOnce), tmp_path / "whole", catalog=EMPTY)
    StopsOnce.stopped = False
    run(named(StopsOnce), tmp_path / "halted", catalog=EMPTY, keep_going=True)
    halted = told(tmp_path / "halted")
    run(named(StopsOnce), tmp_path / "halted", catalog=EMPTY, resume=True)
    whole, resumed = told(tmp_path / "whole"), told(tmp_path / "halted")
    assert 0 < len(halted) < len(whole)
    assert whole == resumed
    assert halted.items() <= whole.items()
    assert any(label != i % 6 for i, label in whole.items())


def test_noise_differs_between_seeds_unless_it_is_given_its_own(tmp_path):
    whole = {"budget": 232, "batch": 232, "seeds": 2}
    run(config(0.5, **whole), tmp_path / "own", catalog=EMPTY)
    run(config(0.5, oracle={"rate": 0.5, "superclass": True, "seed": 3}, **whole), tmp_path / "fixed", catalog=EMPTY)
    assert told(tmp_path / "own", 0) != told(tmp_path / "own", 1)
    assert told(tmp_path / "fixed", 0) == told(tmp_path / "fixed", 1)


def test_segmentation_refuses_noise_before_anything_is_selected():
    class Never(Random):
        @hookimpl
        def score(self, cycle):
            raise AssertionError("the initial pool was selected")

    wanted = experiment(
        Random, dataset=Masks, learner=Signs, initial={"strategy": Never, "size": 3}, budget=4, oracle={"rate": 0.1}
    )
    with pytest.raises(ConfigError, match=r"oracle.rate = 0.1: .* segmentation has masks: leave it out") as caught:
        run(wanted, catalog=EMPTY)
    assert caught.value.key == ("oracle", "rate")
