"""One cycle of a session: what is called when, rewards, the final cycle, and what is recorded."""

from __future__ import annotations

import pytest
import torch

from poolwright import LearnerError, PluginError, PoolError, hookimpl

from .helpers.build import picks, play, session
from .helpers.toys import Blobs, Lowest, Masks, Signs, Softmax, load


def noting(calls: list) -> type:
    """Return a strategy with all four hooks that notes each call."""

    class Noting:
        @hookimpl
        def reward(self, cycle, batch):
            calls.append(("reward", cycle.index, cycle.final, batch.tolist()))
            return float(cycle.index)

        @hookimpl
        def update(self, cycle, reward):
            calls.append(("update", cycle.index, cycle.final, reward))

        @hookimpl
        def score(self, cycle):
            calls.append(("score", cycle.index, cycle.final, len(cycle.pool.unlabeled)))
            return -cycle.pool.unlabeled.float()

        @hookimpl
        def select(self, cycle, scores, budget):
            calls.append(("select", cycle.index, cycle.final, budget))
            return cycle.pool.unlabeled[:budget]

    return Noting


def test_hooks_are_called_in_order_and_once_more_at_the_end():
    calls: list = []

    class Learner(Softmax):
        def fit(self, labeled, **options):
            calls.append(("fit", len(labeled)))
            super().fit(labeled, **options)

    run = play(session(noting(calls), learner=Learner, budget=7, batch=5, dataset=load(Blobs(n_validation=8))))
    assert calls == [
        ("fit", 8),
        ("update", 0, False, None),
        ("score", 0, False, 72),
        ("select", 0, False, 5),
        ("fit", 13),
        ("reward", 1, False, [8, 9, 10, 11, 12]),
        ("update", 1, False, 1.0),
        ("score", 1, False, 67),
        ("select", 1, False, 2),
        ("fit", 15),
        ("reward", 2, True, [13, 14]),
        ("update", 2, True, 2.0),
    ]
    assert [record.final for record in run.history] == [False, False, True]
    assert [record.reward for record in run.history] == [None, 1.0, 2.0]
    assert run.finished
    assert run.advance() is None


def test_records_count_labels_and_keep_what_was_selected_logged_and_timed():
    class Logging(Lowest):
        @hookimpl
        def update(self, cycle, reward):
            cycle.log("x", cycle.index)
            cycle.log("x", torch.tensor(2.5))

    run = play(session(Logging, budget=10))
    assert [(r.index, r.labeled, r.paid, r.position) for r in run.history] == [
        (0, 8, 8, 8),
        (1, 13, 13, 13),
        (2, 18, 18, 18),
    ]
    assert picks(run) == [[8, 9, 10, 11, 12], [13, 14, 15, 16, 17], []]
    assert run.history[1].logs == {"logging.update.x": [1.0, 2.5]}
    assert set(run.history[0].seconds) == {"fit", "evaluate", "report", "update", "select"}
    assert set(run.history[1].streams) == {"learner", "logging.update", "logging.select", "default metric-gain.reward"}
    assert set(run.history[0].test) == {"accuracy", "precision", "recall", "f1"}
    assert run.history[0].query_seconds == pytest.approx(
        run.history[0].seconds["update"] + run.history[0].seconds["select"]
    )


class Scripted:
    """A learner whose validation accuracy at each fit is given: it answers that share of the samples correctly."""

    provides = frozenset({"probabilities"})
    shares: tuple[float, ...] = ()

    def __init__(self) -> None:
        self.fits = -1

    def fit(self, labeled, *, unlabeled, start, generator):
        self.fits += 1

    def predict(self, inputs):
        true = torch.arange(len(inputs)) % 4
        right = torch.arange(len(inputs)) < round(self.shares[self.fits] * len(inputs))
        return {"predictions": torch.where(right, true, (true + 1) % 4)}


def test_the_default_reward_is_the_gain_of_the_headline_metric_since_the_cycle_before():
    class Learner(Scripted):
        shares = (0.2, 0.5, 0.4)

    heard: list = []

    class Listening(Lowest):
        @hookimpl
        def update(self, cycle, reward):
            heard.append((reward, cycle.metrics["accuracy"]))

    play(session(Listening, learner=Learner, budget=10, dataset=load(Blobs(n_validation=20))))
    assert [metric for _, metric in heard] == pytest.approx([0.2, 0.5, 0.4])
    assert heard[0][0] is None
    assert [reward for reward, _ in heard[1:]] == pytest.approx([0.3, -0.1])


def test_the_default_reward_is_none_without_validation_data():
    heard: list = []

    class Listening(Lowest):
        @hookimpl
        def update(self, cycle, reward):
            heard.append(reward)

    run = play(session(Listening, budget=10))
    assert heard == [None, None, None]
    assert run.history[1].validation == {}


def test_after_a_released_batch_the_baseline_is_that_of_the_last_batch_that_was_kept():
    class Learner(Scripted):
        shares = (0.2, 0.5, 0.4, 0.8, 0.6)

    rewards: list = []

    class Releasing(Lowest):
        @hookimpl
        def update(self, cycle, reward):
            rewards.append(reward)
            if cycle.index == 1:
                cycle.pool.release(cycle.pool.batch)

        @hookimpl
        def select(self, cycle, budget):
            return cycle.pool.unlabeled[-budget:]

    run = session(Releasing, learner=Learner, budget=15, dataset=load(Blobs(n_validation=20)))
    play(run)
    # Cycle 1 gives its whole batch back after a gain of 0.5 - 0.2; cycle 2 is measured against 0.2 again.
    assert rewards[1:] == pytest.approx([0.3, 0.2, 0.4, -0.2])
    assert [record.released for record in run.history] == [0, 5, 0, 0, 0]


def test_a_batch_of_which_a_part_is_kept_moves_the_baseline():
    class Learner(Scripted):
        shares = (0.2, 0.5, 0.4, 0.6)

    rewards: list = []

    class Releasing(Lowest):
        @hookimpl
        def update(self, cycle, reward):
            rewards.append(reward)
            if cycle.index == 1:
                cycle.pool.release(cycle.pool.batch[:2])

    play(session(Releasing, learner=Learner, budget=10, dataset=load(Blobs(n_validation=20))))
    assert rewards[1:] == pytest.approx([0.3, -0.1, 0.2])


def test_released_samples_stay_paid_and_buying_them_again_is_free_and_needs_no_answer():
    class Releasing(Lowest):
        @hookimpl
        def update(self, cycle):
            if cycle.index == 1:
                cycle.pool.release(cycle.pool.batch[:3])

    run = session(Releasing, budget=10)
    told: list = []
    while (asked := run.advance()) is not None:
        told.append(asked.tolist())
        run.answer()
    # Cycle 1 gave 8, 9, 10 back and picks the lowest five: those three and two new ones.
    assert picks(run)[1] == [8, 9, 10, 13, 14]
    assert told == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12], [13, 14], [15, 16, 17]]
    assert [record.paid for record in run.history] == [8, 13, 15, 18]
    assert [record.labeled for record in run.history] == [8, 13, 15, 18]
    assert run.pool.spent == 10


def test_what_is_refunded_is_spent_again_also_after_the_last_of_the_budget():
    told: list = []

    class Refunding(Lowest):
        @hookimpl
        def update(self, cycle):
            told.append((cycle.index, cycle.final, cycle.budget))
            if cycle.index in (1, 2):
                cycle.pool.release(cycle.pool.batch[:3], charged=False)

        @hookimpl
        def select(self, cycle, budget):
            assert not cycle.final
            assert budget == min(5, cycle.budget)
            known = cycle.history[-1].selected if cycle.history else []
            fresh = cycle.pool.unlabeled
            return fresh[~torch.isin(fresh, torch.tensor(known, dtype=torch.int64))][:budget]

    run = play(session(Refunding, budget=10))
    # Cycle 1 refunds 8, 9, 10; cycle 2 spends the last of the budget but for three, and refunds three itself.
    assert picks(run) == [[8, 9, 10, 11, 12], [13, 14, 15, 16, 17], [8, 9, 10, 18, 19], [13], []]
    assert told == [(0, False, 10), (1, False, 5), (2, False, 3), (3, False, 1), (4, True, 0)]
    assert [record.paid for record in run.history] == [8, 13, 15, 17, 18]
    assert run.pool.spent == 10


def test_release_is_refused_outside_update_and_of_older_batches():
    class InScore:
        @hookimpl
        def score(self, cycle):
            cycle.pool.release(cycle.pool.batch)

    with pytest.raises(PoolError, match=r"'in-score' called pool.release in score: only update may do that"):
        play(session(InScore))

    class Older(Lowest):
        @hookimpl
        def update(self, cycle):
            if cycle.index == 2:
                cycle.pool.release([8])

    with pytest.raises(PoolError, match="id 8 is not of the last batch"):
        play(session(Older))


@pytest.mark.parametrize("charged", [True, False])
def test_a_strategy_that_only_picks_what_it_released_is_stopped(charged, monkeypatch):
    monkeypatch.setattr("poolwright.session.IDLE_LIMIT", 5)

    class Stuck(Lowest):
        @hookimpl
        def update(self, cycle):
            if cycle.index:
                cycle.pool.release(cycle.pool.batch, charged=charged)

    with pytest.raises(PluginError, match="'tested' bought no label in 5 cycles"):
        play(session(Stuck))


def test_segmentation_masks_go_through_a_whole_run():
    class Mean:
        needs = frozenset({"probabilities", "labels"})

        @hookimpl
        def score(self, cycle):
            assert cycle.labels(cycle.pool.labeled).shape == (len(cycle.pool.labeled), 2, 3)
            assert cycle.probabilities().shape == (len(cycle.pool.unlabeled), 2)
            return cycle.probabilities()[:, 0]

    run = play(session(Mean, learner=Signs, dataset=load(Masks()), initial=torch.arange(3), budget=4, batch=2))
    assert run.history[-1].test == {"miou": 1.0, "pixel_accuracy": 1.0}
    assert [record.paid for record in run.history] == [3, 5, 7]
    # Probabilities of masks are the mean over the pixels: the darkest images come first.
    inputs = run.dataset.pool.inputs(torch.arange(3, 12))
    means = torch.cat([-inputs, inputs], 1).softmax(1).flatten(2).mean(2)[:, 0]
    assert picks(run)[0] == (3 + means.topk(2).indices).tolist()


def test_an_error_of_the_learner_names_it_and_the_cycle():
    class Broken(Softmax):
        def fit(self, labeled, **options):
            raise RuntimeError("out of paper\nsecond line")

    with pytest.raises(
        LearnerError, match=r"learner Broken failed in fit on 8 samples \(cycle 0\): RuntimeError: out of paper$"
    ):
        play(session(Lowest, learner=Broken))


def test_nan_of_the_learner_is_an_error_that_says_how_many():
    class Diverged(Softmax):
        def predict(self, inputs):
            outputs = super().predict(inputs)
            return outputs | {"probabilities": outputs["probabilities"].index_fill(0, torch.tensor([1]), torch.nan)}

    class Reading(Lowest):
        needs = frozenset({"probabilities"})

        @hookimpl
        def update(self, cycle):
            cycle.probabilities()

    with pytest.raises(LearnerError, match="Diverged gave NaN in 'probabilities' for 1 of 72 samples"):
        play(session(Reading, learner=Diverged))


def test_nothing_labeled_is_an_error_that_says_what_to_give():
    run = session(Lowest, initial=None)
    with pytest.raises(PoolError, match=r"nothing is labeled.*initial"):
        run.advance()
