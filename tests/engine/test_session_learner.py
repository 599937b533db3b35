"""The learners of a session: how they start, the one for the report, and simulated episodes."""

from __future__ import annotations

import pytest
import torch

from poolwright import ConfigError, LabelLeakError, PluginError, PoolError, Store, hookimpl

from .helpers.build import picks, play, session
from .helpers.toys import Blobs, LeastConfident, Lowest, Random, Softmax, Stateless, load


def noting(starts: list, base: type = Softmax) -> type:
    """Return a learner that notes how each fit starts and on how many samples."""

    class Noting(base):
        def fit(self, labeled, *, unlabeled, start, generator):
            starts.append((start, len(labeled), len(unlabeled)))
            assert unlabeled.labels is None
            assert labeled.labels.tolist() == [i % 4 for i in labeled.ids.tolist()]
            super().fit(labeled, unlabeled=unlabeled, start=start, generator=generator)

    return Noting


def test_each_fit_is_from_scratch_on_all_labels_unless_told_otherwise():
    starts: list = []
    play(session(Lowest, learner=noting(starts), budget=10))
    assert starts == [("scratch", 8, 72), ("scratch", 13, 67), ("scratch", 18, 62)]


def test_a_warm_start_goes_on_from_the_weights_after_the_first_fit():
    starts: list = []
    play(session(Lowest, learner=noting(starts), budget=10, start="warm"))
    assert [start for start, *_ in starts] == ["scratch", "warm", "warm"]


def test_pretrained_is_passed_on():
    starts: list = []
    play(session(Lowest, learner=noting(starts), budget=5, start="pretrained"))
    assert [start for start, *_ in starts] == ["pretrained", "pretrained"]


def test_refit_every_fits_anew_only_when_so_many_labels_came():
    starts: list = []
    play(session(Lowest, learner=noting(starts), budget=30, batch=5, refit_every=12))
    # Labels: 8 (first), 13, 18, 23 (15 since 8), 28, 33, 38 (15 since 23).
    assert [start for start, *_ in starts] == ["scratch", "warm", "warm", "scratch", "warm", "warm", "scratch"]


@pytest.mark.parametrize("settings", [{"start": "warm"}, {"refit_every": 10}])
def test_a_learner_without_a_state_cannot_go_on_from_its_weights(settings):
    with pytest.raises(ConfigError, match="learner Stateless keeps no state"):
        session(Lowest, learner=Stateless, **settings)


def test_the_report_learner_is_for_the_figures_only():
    starts: list = []

    class Constant:
        provides = frozenset()

        def fit(self, labeled, *, unlabeled, start, generator):
            starts.append((start, len(labeled)))

        def predict(self, inputs):
            return {"predictions": torch.zeros(len(inputs), dtype=torch.int64)}

    dataset = load(Blobs(n_validation=8))
    plain = play(session(LeastConfident, dataset=dataset))
    reported = play(session(LeastConfident, dataset=dataset, report_learner=Constant))
    assert [record.test["accuracy"] for record in reported.history] == [0.25] * 5
    assert picks(reported) == picks(plain)
    assert [record.validation for record in reported.history] == [record.validation for record in plain.history]
    assert starts == [("scratch", 8), ("scratch", 13), ("scratch", 18), ("scratch", 23), ("scratch", 28)]


def test_test_data_are_read_at_the_start_at_the_end_and_when_enough_labels_were_paid_for():
    starts: list = []
    run = session(Lowest, budget=30, batch=5, report_every=12, report_learner=noting(starts))
    # Labels paid for: 8 (first), 13, 18, 23 (15 since 8), 28, 33, 38 (15 since 23, and the last).
    assert [bool(record.test) for record in play(run).history] == [True, False, False, True, False, False, True]
    assert [labels for _, labels, *_ in starts] == [8, 23, 38]
    last = play(session(Lowest, budget=30, batch=5, report_every=100)).history
    assert [bool(record.test) for record in last] == [True, False, False, False, False, False, True]


def test_when_test_data_were_read_last_is_kept(tmp_path):
    def begun(cycles):
        run = session(Lowest, budget=30, batch=5, report_every=12, store=Store(tmp_path / "run"))
        for _ in range(cycles):
            run.advance()
            run.answer()
        return run

    begun(2)
    assert [bool(record.test) for record in play(begun(0)).history] == [True, False, False, True, False, False, True]


def test_without_a_report_there_are_no_test_metrics():
    assert [record.test for record in play(session(Random, budget=5, report=False)).history] == [{}, {}]


# -- simulated episodes ------------------------------------------------------------------------------------------


class Simulating(Random):
    """Plays an episode on the labeled samples in each update."""

    episodes: list = []  # noqa: RUF012 - emptied by the tests

    @hookimpl
    def update(self, cycle):
        episode = cycle.simulate(cycle.pool.labeled, start=4, budget=3, seed=1)
        first = episode.advance()
        assert len(first) == 0
        known = episode.pool.ids(0)
        episode.ask(known[:3])
        episode.answer()
        assert episode.advance() is None
        torch.rand(5)
        self.episodes.append(episode)

    @hookimpl
    def score(self, cycle):
        return torch.rand(len(cycle.pool.unlabeled), generator=cycle.generator)


class Plain(Random):
    @hookimpl
    def score(self, cycle):
        return torch.rand(len(cycle.pool.unlabeled), generator=cycle.generator)


def test_a_simulated_episode_leaves_the_outer_run_unchanged():
    Simulating.episodes.clear()

    class simulating(Plain):
        pass

    dataset = load(Blobs(n_validation=8))
    plain = play(session(simulating, dataset=dataset, start="warm"))
    outer = play(session(Simulating, dataset=dataset, start="warm"))
    assert picks(outer) == picks(plain)
    for mine, theirs in zip(outer.history, plain.history, strict=True):
        assert (mine.validation, mine.test, mine.paid) == (theirs.validation, theirs.test, theirs.paid)
        assert {key: mine.streams[key] for key in theirs.streams} == theirs.streams


def test_a_simulated_episode_has_a_fresh_learner_known_labels_and_streams_of_its_own():
    Simulating.episodes.clear()
    outer = play(session(Simulating, dataset=load(Blobs(n_validation=8)), budget=5))
    first, second = Simulating.episodes
    assert first.training.learner is not outer.training.learner
    assert [(record.labeled, record.paid) for record in first.history] == [(4, 4), (7, 7)]
    assert set(first.pool.known.tolist()) <= set(range(8))
    assert first.pool.ids(5).tolist() == list(range(8, 80))
    assert first.history[0].test == {}
    assert first.history[0].validation
    assert first.seed != second.seed != outer.seed


def test_episodes_of_different_seeds_differ_and_equal_ones_agree():
    starts: list = []

    class Twice(Random):
        @hookimpl
        def update(self, cycle):
            for seed in (1, 1, 2):
                episode = cycle.simulate(cycle.pool.labeled, start=4, budget=1, seed=seed)
                starts.append(episode.pool.ids(2).tolist())

    play(session(Twice, budget=0, initial=torch.arange(30)))
    assert starts[0] == starts[1] != starts[2]


def test_an_episode_may_use_released_and_reserved_labels_but_no_hidden_ones():
    class Releasing(Random):
        @hookimpl
        def update(self, cycle):
            if cycle.index == 1:
                batch = cycle.pool.batch
                cycle.pool.release(batch)
                ids = torch.cat([batch, cycle.pool.reserved("state")])
                episode = cycle.simulate(ids, start=batch, budget=2, seed=0)
                episode.advance()
                assert episode.history[0].labeled == len(batch)
                with pytest.raises(PoolError, match="outside the pool"):
                    episode.ask([0])

    one = session(Releasing, budget=10, reserve={"state": torch.tensor([70, 71, 72])})
    play(one)

    class Peeking(Random):
        @hookimpl
        def update(self, cycle):
            cycle.simulate(cycle.pool.unlabeled, start=4, budget=2, seed=0)

    with pytest.raises((PoolError, LabelLeakError), match="id 8 has no known label"):
        play(session(Peeking))


def test_an_episode_may_have_reserves_of_its_run_beside_its_pool():
    seen: list = []

    class Reserving(Random):
        needs = frozenset({"labels", "probabilities"})

        @hookimpl
        def update(self, cycle):
            episode = cycle.simulate(cycle.pool.labeled, start=4, budget=2, seed=0, reserve=["state"])
            episode.advance()
            inner = episode.view({"labels", "probabilities"})
            ids = inner.pool.reserved("state")
            seen.append((ids.tolist(), inner.labels(ids).tolist(), tuple(inner.probabilities(ids).shape)))
            assert not set(ids.tolist()) & set(inner.pool.unlabeled.tolist())
            with pytest.raises(PoolError, match="no ids are reserved as 'other'"):
                inner.pool.reserved("other")
            with pytest.raises(PoolError, match="an id is named twice"):
                cycle.simulate(torch.cat([cycle.pool.labeled, ids]), start=4, budget=2, seed=0, reserve=["state"])

    reserve = {"state": torch.tensor([70, 71, 72]), "other": torch.tensor([3])}
    play(session(Reserving, budget=0, initial=torch.arange(10, 30), reserve=reserve))
    assert seen == [([70, 71, 72], [2, 3, 0], (3, 4))]


def test_without_a_learner_nothing_can_be_simulated():
    class Peeking(Lowest):
        @hookimpl
        def update(self, cycle):
            cycle.simulate(cycle.pool.labeled, start=4, budget=2, seed=0)

    with pytest.raises((PoolError, PluginError), match="wants to simulate, but this selection has no learner"):
        play(session(Peeking, learner=None))
