"""advance and tell: budgets, batches, candidates, partial and late answers, the end of a run."""

from __future__ import annotations

import pytest
import torch

from poolwright import ConfigError, PoolError, hookimpl

from .helpers.build import picks, play, session
from .helpers.toys import Blobs, Flat, LeastConfident, Lowest, Masks, Random, Signs, load


def test_a_budget_of_zero_fits_once_and_selects_nothing():
    run = play(session(Lowest, budget=0))
    assert [(record.final, record.selected) for record in run.history] == [(True, [])]


@pytest.mark.parametrize(
    ("budget", "batch", "sizes"),
    [(10, 5, [5, 5, 0]), (12, 5, [5, 5, 2, 0]), (3, 5, [3, 0]), (1, 1, [1, 0]), (72, 30, [30, 30, 12, 0])],
)
def test_the_budget_is_spent_exactly_and_the_last_batch_may_be_smaller(budget, batch, sizes):
    run = play(session(Lowest, budget=budget, batch=batch))
    assert [len(selected) for selected in picks(run)] == sizes
    assert run.history[-1].paid == 8 + budget
    assert run.left == 0


@pytest.mark.parametrize(("batch", "sizes"), [(5, [5, 5, 2, 0]), (None, [12, 0])])
def test_update_knows_how_many_labels_select_will_be_asked_for(batch, sizes):
    seen, offered = [], []

    class Planning:
        @hookimpl
        def update(self, cycle):
            seen.append(cycle.batch_size)

        @hookimpl
        def select(self, cycle, budget):
            offered.append(budget)
            return cycle.pool.unlabeled[:budget]

    play(session(Planning, budget=12, batch=batch))
    assert seen == sizes
    assert offered == sizes[:-1]


def test_without_a_batch_the_strategy_decides_and_is_offered_all_that_is_left():
    offers: list = []

    class Own:
        @hookimpl
        def select(self, cycle, budget):
            offers.append((budget, cycle.budget))
            return cycle.pool.unlabeled[: min(7, budget)]

    run = play(session(Own, budget=20, batch=None))
    assert offers == [(20, 20), (13, 13), (6, 6)]
    assert [len(selected) for selected in picks(run)] == [7, 7, 6, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 73}, "budget = 73, but only 72 samples are left to label: lower it to 72"),
        ({"budget": -1}, "cannot be negative"),
        ({"batch": 0}, "batch = 0"),
        ({"candidates": 4}, "candidates = 4 is fewer than a batch of 5"),
        ({"start": "hot"}, "learner.start = 'hot': choose one of scratch, warm, pretrained"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message):
        session(Lowest, **settings)


def test_candidates_are_the_unlabeled_for_score_and_select_alike_and_drawn_anew():
    seen: list = []

    class Looking:
        @hookimpl
        def update(self, cycle):
            assert len(cycle.pool.unlabeled) == len(cycle.pool.all_unlabeled)

        @hookimpl
        def score(self, cycle):
            seen.append((cycle.index, cycle.pool.unlabeled.tolist(), cycle.pool.all_unlabeled.tolist()))
            return torch.zeros(len(cycle.pool.unlabeled))

        @hookimpl
        def select(self, cycle, scores, budget):
            assert cycle.pool.unlabeled.tolist() == seen[-1][1]
            assert len(scores) == 12
            return cycle.pool.unlabeled[:budget]

    run = play(session(Looking, candidates=12))
    labeled = set(range(8))
    for (index, drawn, everything), selected in zip(seen, picks(run), strict=False):
        assert len(drawn) == 12
        assert drawn == sorted(set(drawn))
        assert everything == sorted(set(range(80)) - labeled)
        assert set(drawn) <= set(everything), index
        assert selected == drawn[:5]
        labeled |= set(selected)
    assert len({tuple(drawn) for _, drawn, _ in seen}) == len(seen)


def test_outputs_are_those_of_the_candidates_also_after_update_has_read_all():
    class Reading:
        needs = frozenset({"probabilities"})

        @hookimpl
        def update(self, cycle):
            self.all = dict(zip(cycle.pool.unlabeled.tolist(), cycle.probabilities().tolist(), strict=True))

        @hookimpl
        def score(self, cycle):
            mine = [self.all[i] for i in cycle.pool.unlabeled.tolist()]
            assert torch.allclose(cycle.probabilities(), torch.tensor(mine))
            assert torch.allclose(cycle.probabilities(cycle.pool.unlabeled.flip(0)), torch.tensor(mine).flip(0))
            return torch.zeros(12)

    play(session(Reading, candidates=12))


def test_selecting_beyond_the_candidates_is_an_error():
    class Beyond:
        @hookimpl
        def select(self, cycle, budget):
            others = cycle.pool.all_unlabeled
            return others[~torch.isin(others, cycle.pool.unlabeled)][:budget]

    with pytest.raises(Exception, match=r"'beyond'.* selected 5 ids in cycle 0 that are not unlabeled"):
        play(session(Beyond, candidates=12))


def test_advance_without_answers_returns_the_same_ids_and_does_nothing():
    run = session(Random)
    first = run.advance()
    assert first.tolist() == list(range(8))
    assert run.advance().tolist() == first.tolist()
    run.answer()
    asked = run.advance()
    assert run.advance().tolist() == asked.tolist() == run.outstanding.tolist() == run.history[0].selected
    assert len(run.history) == 1


def test_with_partial_answers_the_run_goes_on_and_the_others_stay_asked():
    run = session(Lowest)
    run.advance()
    run.tell([1, 3, 5], [1, 3, 1])
    assert run.outstanding.tolist() == [0, 2, 4, 6, 7]
    assert run.advance().tolist() == [8, 9, 10, 11, 12]
    assert run.history[0].labeled == 3
    run.tell([9, 0], [1, 0])
    run.advance()
    assert run.history[1].labeled == 5
    assert run.outstanding.tolist() == [2, 4, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17]
    assert run.pool.spent == 10


def test_the_last_cycle_waits_for_every_answer():
    run = session(Lowest, budget=5)
    run.advance()
    run.answer()
    run.advance()
    run.tell([8, 9], [0, 1])
    assert run.advance().tolist() == [10, 11, 12]
    assert len(run.history) == 1
    run.answer()
    assert run.advance() is None
    assert run.history[-1].labeled == 13


def test_a_late_answer_comes_in_with_the_next_cycle():
    batches: list = []

    class Noting(Lowest):
        @hookimpl
        def reward(self, cycle, batch):
            batches.append(batch.tolist())
            return 0.0

    run = session(Noting)
    run.advance()
    run.tell(range(7), [i % 4 for i in range(7)])
    run.advance()
    run.tell([8, 7], [0, 3])
    run.advance()
    assert batches == [[7, 8]]


def test_a_revision_counts_at_the_next_fit_and_asks_for_no_cycle_of_its_own():
    run = session(Lowest)
    run.advance()
    run.answer()
    asked = run.advance()
    run.tell([0], [3])
    assert run.advance().tolist() == asked.tolist()
    run.tell([0], [2])
    assert run.pool.labels(torch.tensor([0])).tolist() == [2]
    assert run.pool.paid == 8


def test_skipped_samples_are_not_asked_again_and_their_money_is_spent_on_others():
    run = session(Lowest, budget=5)
    run.advance()
    run.answer()
    assert run.advance().tolist() == [8, 9, 10, 11, 12]
    run.skip([9, 12])
    run.tell([8, 10, 11], [0, 2, 3])
    assert run.advance().tolist() == [13, 14]
    run.answer()
    assert run.advance() is None
    assert run.history[-1].paid == 13
    assert run.history[-1].labeled == 13


def test_a_skipped_batch_is_followed_by_another_without_a_reward():
    run = session(Lowest, budget=5)
    run.advance()
    run.answer()
    run.skip(run.advance())
    assert run.advance().tolist() == [13, 14, 15, 16, 17]
    assert run.history[1].reward is None


@pytest.mark.parametrize(
    ("ids", "labels", "message"),
    [
        ([10, 8], [2, 4], "label 4 of id 8 is no class; there are 0..3"),
        ([10, 8], [2, -1], "label -1 of id 8 is no class"),
        ([10, 8], [2.0, 1.0], "labels must be integers"),
        ([10, 40], [2, 0], "which is unlabeled"),
        ([10, -1], [2, 0], "-1 is not an id"),
        ([8, 8], [0, 0], "repeated"),
        ([8, 9], [0], "2 ids but 1 labels"),
        ([8, 9], [[0], [1]], "one class index"),
    ],
)
def test_answers_that_do_not_fit_are_refused_and_nothing_of_them_is_taken(ids, labels, message):
    run = session(Lowest)
    run.advance()
    run.answer()
    run.advance()
    with pytest.raises(PoolError, match=message):
        run.tell(ids, labels)
    assert run.outstanding.tolist() == [8, 9, 10, 11, 12]


def test_a_class_index_is_no_answer_where_masks_are_wanted():
    run = session(Lowest, learner=Signs, dataset=load(Masks()), initial=torch.arange(3), budget=4)
    run.advance()
    with pytest.raises(PoolError, match="label array"):
        run.tell([0], [1])


def test_an_empty_selection_ends_the_run():
    class Enough(Lowest):
        @hookimpl
        def select(self, cycle, budget):
            return cycle.pool.unlabeled[: budget if cycle.index < 2 else 0]

    run = play(session(Enough))
    assert [len(selected) for selected in picks(run)] == [5, 5, 0]
    assert [record.final for record in run.history] == [False, False, False]
    assert run.finished


def test_without_a_strategy_the_caller_chooses():
    run = session(None, budget=4)
    assert run.advance().tolist() == list(range(8))
    run.answer()
    assert run.advance().tolist() == []
    assert run.ask([30, 20]).tolist() == [30, 20]
    run.answer()
    assert run.advance().tolist() == []
    assert run.history[-1].labeled == 10
    with pytest.raises(PoolError, match="3 labels, but only 2 are left of the budget"):
        run.ask([40, 41, 42])
    with pytest.raises(PoolError, match="which is labeled"):
        run.ask([30])
    run.ask([40, 41])
    run.answer()
    assert run.advance() is None
    assert run.history[-1].final


def test_there_are_no_answers_without_an_oracle():
    run = session(Lowest, oracle=None)
    run.advance()
    with pytest.raises(PoolError, match="no oracle: tell"):
        run.answer()


def test_given_outputs_serve_where_there_is_no_learner():
    p = torch.rand(80, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    run = session(LeastConfident, learner=None, given={"probabilities": p}, initial=torch.arange(8), budget=6)
    run.advance()
    run.answer()
    asked = run.advance()
    assert asked.tolist() == (8 + (1 - p[8:].amax(1)).topk(5).indices).tolist()
    with pytest.raises(ConfigError, match=r"'least-confident'.*needs 'probabilities'.*it provides: nothing"):
        session(LeastConfident, learner=None)


def test_ties_go_to_the_lowest_id():
    assert picks(play(session(Flat, budget=5)))[0] == [8, 9, 10, 11, 12]


def test_events_tell_phases_cycles_and_their_value():
    events: list = []
    run = play(session(Random, budget=5, listener=events.append, dataset=load(Blobs(n_validation=8))))
    cycles = [(e.cycle, e.done, e.total, e.value) for e in events if e.kind == "cycle"]
    assert cycles == [(0, 5, 5, run.history[0].test["accuracy"]), (1, 5, 5, run.history[1].test["accuracy"])]
    phases = [e.text for e in events if e.kind == "phase" and e.cycle == 0]
    assert phases == ["fit", "evaluate", "update", "score", "select"]
    assert {(e.strategy, e.seed) for e in events if e.kind in ("cycle", "phase")} == {("tested", 0)}
