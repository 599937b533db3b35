"""The journal and the checkpoints of one run."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from poolwright import PluginError, Session, Store, StoreError, hookimpl
from poolwright.store import KEEP, locked, read_journal, write_atomically

from .helpers.build import picks, play, session
from .helpers.toys import Lowest, Random


@pytest.fixture
def store(tmp_path):
    with_run = Store(tmp_path / "run")
    yield with_run
    with_run.close()


def test_answers_come_back_in_order_with_their_revision(store):
    assert store.position == 0
    assert store.append([5, 3], [1, 0]) == 2
    assert store.append([5], [2]) == 3
    assert [(a.position, a.id, a.label, a.revision) for a in store.answers()] == [
        (1, 5, 1, 0),
        (2, 3, 0, 0),
        (3, 5, 2, 1),
    ]
    assert [a.id for a in store.answers(after=2)] == [5]
    times = [a.time for a in store.answers()]
    assert times == sorted(times)


def test_masks_and_given_up_samples_survive_the_journal(store):
    mask = torch.tensor([[0, 1], [255, 1]])
    store.append([1, 2], [mask, None])
    first, second = store.answers()
    assert torch.equal(first.label, mask)
    assert first.label.dtype == torch.int64
    assert second.label is None


def test_answers_are_taken_all_or_none(store):
    store.append([1], [0])
    with pytest.raises(ValueError, match="no label"):
        store.append([2, 3], [0, _Unwritable()])
    assert [a.id for a in store.answers()] == [1]
    assert store.append([4], [0]) == 2


class _Unwritable:
    def __int__(self) -> int:
        raise ValueError("no label")


def test_cycles_and_facts_are_kept_and_replaced(store):
    store.write_cycle(0, 4, {"a": 1})
    store.write_cycle(1, 6, {"a": 2})
    store.write_cycle(1, 7, {"a": 3})
    assert store.cycles() == [{"a": 1}, {"a": 3}]
    assert (store.cycle_position(1), store.cycle_position(2)) == (7, None)
    store.set_meta("x", {"y": [1]})
    assert store.meta("x") == {"y": [1]}
    assert store.meta("z", 5) == 5


def test_a_journal_can_be_read_while_the_run_goes_on(store):
    store.write_cycle(0, 0, {"a": 1})
    store.set_meta("x", 1)
    assert read_journal(store.folder) == ({"x": 1}, [{"a": 1}])


def test_the_last_checkpoints_are_kept_and_the_newest_is_read(store):
    for number in range(6):
        store.write_checkpoint(number, {"number": number, "x": torch.arange(number)})
    assert len(list(store.checkpoints.glob("*.ckpt"))) == KEEP == 3
    state = store.read_checkpoint()
    assert state["number"] == 5
    assert state["x"].tolist() == [0, 1, 2, 3, 4]
    assert Store(store.folder / "other").read_checkpoint() is None


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "a flipped byte": lambda content: content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
    "a flipped byte in the checksum": lambda content: content[:30] + bytes([content[30] ^ 1]) + content[31:],
    "empty": lambda content: b"",
    "another file": lambda content: b"PK" + content,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(damage, store, caplog):
    store.write_checkpoint(1, {"number": 1})
    path = store.write_checkpoint(2, {"number": 2})
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert store.read_checkpoint() == {"number": 1}
    assert str(path) in caplog.text
    assert "the checkpoint before it is used" in caplog.text


def test_a_half_written_checkpoint_is_named_and_ignored(store, caplog):
    path = store.write_checkpoint(1, {"number": 1})
    leftover = path.with_name("000002.ckpt.tmp")
    leftover.write_bytes(path.read_bytes()[:50])
    with caplog.at_level(logging.WARNING):
        assert store.read_checkpoint() == {"number": 1}
    assert str(leftover) in caplog.text
    assert "half-written" in caplog.text


@pytest.mark.parametrize(
    "content", [b"this is not a database, it is a text of some length" * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_damaged_journal_is_an_error_that_names_the_file_and_promises_nothing(content, tmp_path):
    (tmp_path / "journal.sqlite").write_bytes(content)
    with pytest.raises(StoreError, match=r"journal\.sqlite") as caught:
        Store(tmp_path)
    assert "safe" not in str(caught.value)
    with pytest.raises(StoreError, match=r"journal\.sqlite"):
        read_journal(tmp_path)


def test_a_missing_journal_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(StoreError, match="holds no journal"):
        read_journal(tmp_path)


def test_a_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(StoreError, match="cannot open the run"):
        Store(tmp_path / "run")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(StoreError, match="in use by another process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"mean": np.float64(0.5)}, r"state\['mean'\] is numpy.float64"),
        ({"a": [1, {"b": np.zeros(2)}]}, r"state\['a'\]\[1\]\['b'\] is numpy.ndarray"),
        ({"f": Lowest()}, r"state\['f'\] is tests.*Lowest"),
    ],
)
def test_a_state_that_could_not_be_read_again_is_refused_when_it_is_kept(state, where, store):
    class Hoarding(Lowest):
        def state_dict(self):
            return state

        def load_state_dict(self, state):
            pass

    run = session(Hoarding, store=store)
    run.advance()
    run.answer()
    with pytest.raises(PluginError, match=f"state_dict of 'hoarding' cannot be kept, since {where}"):
        run.advance()


def test_a_state_of_tensors_numbers_strings_lists_and_dicts_comes_back(tmp_path):
    state = {"x": torch.arange(3), "n": 1, "f": 0.5, "s": "a", "l": [1, (2, None)], "d": {3: True}}
    loaded: list = []

    class Keeping(Lowest):
        def state_dict(self):
            return state

        def load_state_dict(self, state):
            loaded.append(state)

    play(session(Keeping, store=Store(tmp_path), budget=5))
    session(Keeping, store=Store(tmp_path), budget=5)
    (back,) = loaded
    assert back.pop("x").tolist() == [0, 1, 2]
    assert back == {key: value for key, value in state.items() if key != "x"}


# -- a session with a store --------------------------------------------------------------------------------------


def test_a_session_by_hand_goes_on_where_it_stopped(tmp_path):
    def opened() -> Session:
        return session(Random, store=Store(tmp_path))

    run = opened()
    run.advance()
    run.tell(range(5), [i % 4 for i in range(5)])
    run = opened()
    assert run.outstanding.tolist() == [5, 6, 7]
    run.tell([5, 6, 7], [1, 2, 3])
    asked = run.advance()
    run = opened()
    assert run.advance().tolist() == asked.tolist()
    run.tell(asked[:2], [0, 0])
    run.tell(asked[:1], [1])
    run.skip(asked[2:3])
    run = opened()
    assert run.outstanding.tolist() == asked[3:].tolist()
    again = run.advance()
    assert run.history[-1].labeled == 10
    assert run.pool.labels(asked[:2]).tolist() == [1, 0]
    assert len(again) == 5
    assert asked[2] in run.pool.ids(4)


def test_after_all_checkpoints_are_lost_nobody_is_asked_again(tmp_path):
    def opened() -> Session:
        return session(Random, store=Store(tmp_path))

    reference = play(session(Random))
    run = opened()
    for _ in range(3):
        run.advance()
        run.answer()
    rows = run._ledger._store.answers()
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"")
    run = opened()
    asked = run.advance()
    assert asked.tolist() == reference.history[2].selected
    assert run._ledger._store.answers() == rows
    assert picks(play(run)) == picks(reference)


def test_an_answer_told_while_a_resumed_run_catches_up_counts_last(tmp_path):
    run = session(Lowest, store=Store(tmp_path))
    run.advance()
    run.answer()
    run.advance()
    run.tell([8], [0])
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    run = session(Lowest, store=Store(tmp_path))
    run.tell([0], [3])
    assert run.advance().tolist() == [13, 14, 15, 16, 17]
    assert run.pool.labels(torch.tensor([0, 8])).tolist() == [3, 0]
    assert run.outstanding.tolist() == [9, 10, 11, 12, 13, 14, 15, 16, 17]


def test_advance_asks_again_for_the_rest_of_a_batch_of_which_some_came_free(tmp_path):
    class Releasing(Lowest):
        @hookimpl
        def update(self, cycle):
            if cycle.index == 1:
                cycle.pool.release(cycle.pool.batch[:3])

    run = session(Releasing, store=Store(tmp_path))
    for _ in range(2):
        run.advance()
        run.answer()
    assert run.advance().tolist() == [13, 14]
    assert run.advance().tolist() == [13, 14]
    run = session(Releasing, store=Store(tmp_path))
    assert run.advance().tolist() == [13, 14]
    assert len(run.history) == 2


def test_a_store_of_another_pool_is_refused(tmp_path):
    from .helpers.toys import Blobs, load

    run = session(Lowest, store=Store(tmp_path))
    run.advance()
    run.answer()
    run.advance()
    with pytest.raises(StoreError, match=r"a session with another pool \(80, now 90\)"):
        session(Lowest, store=Store(tmp_path), dataset=load(Blobs(n=90)))
