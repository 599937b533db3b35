"""The pool: states of samples and the answers that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poolwright import PoolError
from poolwright.pool import ASKED, LABELED, OUTSIDE, RESERVED, SKIPPED, UNLABELED, Pool, as_ids, plain


def ids(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def answered(n: int = 10, *asked: int) -> Pool:
    pool = Pool(n)
    pool.ask(ids(*asked))
    pool.learn(asked, [i % 2 for i in asked])
    return pool


def test_every_sample_begins_unlabeled_and_ids_are_ascending():
    pool = Pool(5)
    assert pool.ids(UNLABELED).tolist() == [0, 1, 2, 3, 4]
    assert pool.ids(UNLABELED).dtype == torch.int64
    assert all(len(pool.ids(state)) == 0 for state in (ASKED, LABELED, RESERVED, SKIPPED, OUTSIDE))


def test_members_leave_all_others_outside():
    pool = Pool(6, members=ids(4, 1))
    assert pool.ids(UNLABELED).tolist() == [1, 4]
    assert pool.ids(OUTSIDE).tolist() == [0, 2, 3, 5]
    with pytest.raises(PoolError, match="which is outside the pool"):
        pool.ask(ids(0))


def test_asking_moves_to_asked_and_keeps_the_order_of_the_question():
    pool = Pool(6)
    assert pool.ask(ids(5, 2)).tolist() == [5, 2]
    assert pool.ids(ASKED).tolist() == [2, 5]
    assert pool.ids(UNLABELED).tolist() == [0, 1, 3, 4]


def test_an_answer_labels_pays_and_is_fresh_until_the_fit():
    pool = answered(10, 7, 3)
    assert pool.ids(LABELED).tolist() == [3, 7]
    assert pool.fresh.tolist() == [3, 7]
    assert pool.paid == 2
    assert pool.labels(ids(7, 3)).tolist() == [1, 1]
    pool.fitted()
    assert pool.fresh.tolist() == []
    assert pool.ids(LABELED).tolist() == [3, 7]


def test_partial_answers_leave_the_rest_asked():
    pool = Pool(10)
    pool.ask(ids(1, 2, 3))
    pool.learn([2], [0])
    assert pool.ids(ASKED).tolist() == [1, 3]
    assert pool.ids(LABELED).tolist() == [2]
    assert pool.fresh.tolist() == [2]


def test_the_last_revision_counts_and_costs_nothing_more():
    pool = answered(10, 4)
    pool.fitted()
    pool.learn([4, 4], [1, 3])
    assert pool.labels(ids(4)).tolist() == [3]
    assert pool.paid == pool.spent == 1
    assert pool.fresh.tolist() == []


def test_skipping_costs_nothing_and_leaves_the_pool():
    pool = Pool(10)
    pool.ask(ids(1, 2))
    assert pool.spent == 2
    pool.learn([1], [None])
    assert pool.ids(SKIPPED).tolist() == [1]
    assert 1 not in pool.ids(UNLABELED)
    assert (pool.spent, pool.paid) == (1, 0)


def test_a_late_answer_to_a_skipped_sample_is_taken_and_paid():
    pool = Pool(10)
    pool.ask(ids(1))
    pool.learn([1], [None])
    pool.learn([1], [3])
    assert pool.ids(LABELED).tolist() == [1]
    assert pool.labels(ids(1)).tolist() == [3]
    assert pool.fresh.tolist() == [1]
    assert pool.paid == 1


def test_skipping_a_sample_that_is_labeled_changes_nothing():
    pool = answered(10, 1)
    pool.learn([1], [None])
    assert pool.ids(LABELED).tolist() == [1]
    assert pool.labels(ids(1)).tolist() == [1]


def test_the_initial_pool_is_paid_but_not_taken_from_the_budget():
    pool = Pool(10)
    pool.ask(ids(0, 1), initial=True)
    assert pool.spent == 0
    pool.learn([0, 1], [0, 0])
    assert (pool.paid, pool.spent) == (2, 0)
    pool.ask(ids(5))
    assert pool.spent == 1
    pool.learn([5], [0])
    assert (pool.paid, pool.spent) == (3, 1)


def test_reserved_samples_are_known_and_never_unlabeled_again():
    pool = Pool(6)
    pool.reserve("state", ids(4, 1), ids(3, 2))
    assert pool.ids(RESERVED).tolist() == [1, 4]
    assert pool.ids(UNLABELED).tolist() == [0, 2, 3, 5]
    assert pool.reserved("state").tolist() == [4, 1]
    assert pool.labels(ids(1, 4)).tolist() == [2, 3]
    assert pool.known.tolist() == [1, 4]
    assert (pool.paid, pool.spent) == (0, 0)
    with pytest.raises(PoolError, match="which is reserved"):
        pool.ask(ids(4))
    with pytest.raises(PoolError, match="which is reserved"):
        pool.reserve("more", ids(1), ids(0))


def test_an_unknown_reserve_is_an_error_that_names_those_there_are():
    pool = Pool(6)
    pool.reserve("state", ids(4), ids(3))
    with pytest.raises(PoolError, match=r"no ids are reserved as 'stat' .reserved: state."):
        pool.reserved("stat")


def test_released_samples_return_stay_paid_and_keep_their_label_hidden_from_the_labeled():
    pool = answered(10, 1, 2, 3)
    assert pool.release(ids(2, 1), batch=ids(1, 2, 3)).tolist() == [2, 1]
    assert pool.ids(UNLABELED).tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert pool.ids(LABELED).tolist() == [3]
    assert (pool.paid, pool.spent) == (3, 3)
    assert pool.known.tolist() == [1, 2, 3]


def test_buying_a_released_sample_again_is_free_and_answered_at_once():
    pool = answered(10, 1, 2, 3)
    pool.fitted()
    pool.release(ids(2, 1), batch=ids(1, 2, 3))
    assert pool.ask(ids(5, 2)).tolist() == [5]
    assert pool.ids(LABELED).tolist() == [2, 3]
    assert pool.ids(ASKED).tolist() == [5]
    assert pool.fresh.tolist() == [2]
    assert (pool.paid, pool.spent) == (3, 4)


def test_refunded_samples_are_charged_when_they_are_bought_again_and_answered_at_once():
    pool = answered(10, 1, 2, 3)
    pool.release(ids(2, 1), batch=ids(1, 2, 3), charged=False)
    assert (pool.paid, pool.spent) == (1, 1)
    assert pool.known.tolist() == [1, 2, 3]
    assert pool.ask(ids(5, 2)).tolist() == [5]
    assert pool.ids(LABELED).tolist() == [2, 3]
    assert (pool.paid, pool.spent) == (2, 3)
    again = Pool(10)
    again.load_state_dict(pool.state_dict())
    assert (again.paid, again.spent) == (2, 3)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([4], "id 4 is not of the last batch"),
        ([0], "which is unlabeled"),
        ([5], "which is asked"),
        ([10], "10 is not an id of this pool"),
        ([1, 1], "1 ids are repeated, the first is 1"),
    ],
)
def test_only_labeled_samples_of_the_last_batch_can_be_released(wanted, message):
    pool = answered(10, 1, 4)
    pool.ask(ids(5))
    with pytest.raises(PoolError, match=message):
        pool.release(wanted, batch=ids(1))
    assert pool.ids(LABELED).tolist() == [1, 4]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([-1], "-1 is not an id of this pool .0..9."),
        ([3, 10], "10 is not an id of this pool"),
        ([6, 3, 6], "1 ids are repeated, the first is 6"),
        ([8, 1], "1 of 2 ids may not be used here, the first is 1, which is labeled"),
        ([0.5], "must be integers, not float64"),
        ([True], "must be integers, not bool"),
        (torch.tensor([1.0]), "must be integers of shape"),
        (torch.tensor([[2]]), "must be integers of shape"),
        (["2"], "must be integers"),
        (2, "must be integers"),
        ([[1], [2, 3]], "must be integers"),
    ],
)
def test_ids_that_do_not_fit_are_refused_and_nothing_is_asked(wanted, message):
    pool = answered(10, 1)
    with pytest.raises(PoolError, match=message):
        pool.ask(wanted)
    assert len(pool.ids(ASKED)) == 0


@pytest.mark.parametrize(
    "given",
    [[3, 1], (3, 1), np.array([3, 1], dtype=np.int32), torch.tensor([3, 1], dtype=torch.int16), {3: 0, 1: 0}.keys()],
)
def test_ids_may_come_in_any_integer_form(given):
    taken = as_ids(given)
    assert taken.tolist() == [3, 1]
    assert taken.dtype == torch.int64


def test_no_ids_are_no_error():
    assert as_ids([]).tolist() == []
    assert as_ids(torch.empty(0, dtype=torch.int64)).dtype == torch.int64


@pytest.mark.parametrize(
    ("wanted", "labels", "message"),
    [
        ([1, 2], [0], "2 ids but 1 labels"),
        ([3], [0], "which is unlabeled"),
        ([1], [0.0], "labels must be integers .class indices., not"),
        ([1], [True], "labels must be integers"),
        ([1], 0, "one a sample"),
        ([1], ["cat"], "labels must be integers"),
        ([1], [None], "labels must be integers"),
        ([1, 1], [0, 0], "repeated"),
    ],
)
def test_answers_that_do_not_fit_are_refused(wanted, labels, message):
    pool = Pool(5)
    pool.ask(ids(1, 2))
    with pytest.raises(PoolError, match=message):
        pool.check_answers(wanted, labels)
    assert pool.ids(ASKED).tolist() == [1, 2]


def test_label_arrays_are_kept_one_a_sample():
    masks = torch.arange(12, dtype=torch.uint8).reshape(2, 2, 3)
    values = plain(masks)
    assert [value.tolist() for value in values] == masks.tolist()
    pool = Pool(4)
    pool.ask(ids(3, 0))
    pool.learn([3, 0], values)
    assert pool.labels(ids(0, 3)).dtype == torch.int64
    assert torch.equal(pool.labels(ids(0, 3)), masks.long().flip(0))
    masks.zero_()
    assert pool.labels(ids(3)).sum() == 15  # not the caller's own


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 255, torch.uint8),
        (-1, 18, torch.int16),
        (0, 256, torch.int16),
        (0, 40000, torch.int32),
        (-(2**40), 0, torch.int64),
    ],
)
def test_masks_are_kept_in_the_smallest_type_that_holds_them(low, high, expected):
    masks = torch.tensor([[[low, high]], [[0, 1]]])
    first, second = plain(masks)
    assert (first.dtype, second.dtype) == (expected, torch.uint8)
    pool = Pool(3)
    pool.ask(ids(0, 1))
    pool.learn([0, 1], [first, second])
    assert torch.equal(pool.labels(ids(0, 1)), masks)


@pytest.mark.parametrize("form", [list, tuple, lambda masks: [mask.numpy() for mask in masks]])
def test_masks_may_come_as_a_list(form):
    masks = torch.tensor([[[0, 1]], [[2, 255]]])
    assert [mask.tolist() for mask in plain(form(masks))] == masks.tolist()


def test_masks_of_floating_point_are_refused():
    with pytest.raises(PoolError, match=r"labels must be integers .*not torch.float32"):
        plain([torch.zeros(2, 3), torch.zeros(2, 3)])


def test_state_dict_restores_states_payment_and_fresh_samples():
    pool = Pool(8)
    pool.reserve("state", ids(7), ids(1))
    pool.ask(ids(0, 1), initial=True)
    pool.ask(ids(2, 3))
    pool.learn([0, 1, 2], [1, 0, 1])
    pool.release(ids(2), batch=ids(2))
    other = Pool(8)
    other.load_state_dict(pool.state_dict())
    other.recall([(0, 1), (1, 0), (2, 1), (3, None)])
    for state in range(6):
        assert torch.equal(other.ids(state), pool.ids(state))
    assert (other.paid, other.spent) == (pool.paid, pool.spent) == (3, 2)
    assert torch.equal(other.fresh, pool.fresh)
    assert other.reserved("state").tolist() == [7]
    assert other.labels(ids(2, 0)).tolist() == [1, 1]
    assert other.ask(ids(2)).tolist() == []


def test_state_of_a_pool_of_another_size_is_refused():
    with pytest.raises(PoolError, match="this pool has 9 samples, the saved one 8"):
        Pool(9).load_state_dict(Pool(8).state_dict())
