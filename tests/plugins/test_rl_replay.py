"""Replay buffers: what is kept, what is drawn, and what a checkpoint brings back."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from poolwright.testing.fingerprints import fingerprint
from poolwright_plugins.rl.replay import PrioritizedReplay, ReplayBuffer

FIELDS = {"state": ((2,), torch.bfloat16), "reward": ((), torch.float32)}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(n: int, capacity: int = 5, kind: type[ReplayBuffer] = ReplayBuffer) -> Any:
    buffer = kind(capacity, FIELDS)
    for i in range(n):
        buffer.add(state=torch.tensor([i, -i]), reward=float(i))
    return buffer


def reloaded(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_the_oldest_transition_makes_room():
    buffer = filled(7)

    assert len(buffer) == 5
    assert buffer.add(state=torch.zeros(2), reward=9.0) == 2
    assert buffer.state_dict()["stored"]["reward"].tolist() == [5, 6, 9, 3, 4]


def test_draws_are_uniform_over_what_is_stored_and_fields_stay_together():
    slots, drawn = filled(3).sample(6000, stream())

    assert torch.equal(drawn["reward"], slots.float())
    assert torch.equal(drawn["state"], torch.stack([slots, -slots], 1).float())
    assert drawn["state"].dtype == torch.float32
    assert torch.bincount(slots, minlength=3).sub(2000).abs().max() < 4 * (6000 * 2 / 9) ** 0.5


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplay])
def test_a_restored_buffer_draws_and_overwrites_as_the_saved_one_would(kind):
    buffer, restored = filled(7, kind=kind), kind(5, FIELDS)
    if kind is PrioritizedReplay:
        buffer.update(torch.tensor([0, 3]), torch.tensor([0.5, -2.0]))
    restored.load_state_dict(reloaded(buffer.state_dict()))

    for kept in (buffer, restored):
        kept.add(state=torch.ones(2), reward=7.0)
    assert torch.equal(buffer.sample(50, stream(1))[0], restored.sample(50, stream(1))[0])
    assert fingerprint(buffer.state_dict()) == fingerprint(restored.state_dict())


def test_a_state_does_not_change_with_its_buffer():
    buffer = filled(2, kind=PrioritizedReplay)
    state = buffer.state_dict()
    before = fingerprint(state)
    buffer.add(state=torch.ones(2), reward=7.0)
    buffer.update(torch.tensor([0]), torch.tensor([3.0]))

    assert fingerprint(state) == before


def test_draws_hang_on_the_generator_alone():
    buffer = filled(5)
    torch.manual_seed(1)
    first = buffer.sample(20, stream(3))[0]
    torch.manual_seed(2)

    assert torch.equal(buffer.sample(20, stream(3))[0], first)
    assert not torch.equal(buffer.sample(20, stream(4))[0], first)


@pytest.mark.parametrize(
    ("transition", "message"),
    [
        ({"state": torch.zeros(2)}, "has the fields state, reward, not state"),
        ({"state": torch.zeros(2), "reward": 0.0, "done": 0.0}, "not state, reward, done"),
        ({"state": torch.zeros(3), "reward": 0.0}, r"'state' has shape \(2,\), not \(3,\)"),
        ({"state": torch.tensor([0.0, torch.nan]), "reward": 0.0}, "'state' holds NaN"),
        ({"state": torch.zeros(2), "reward": float("inf")}, "'reward' holds NaN or infinity"),
    ],
)
def test_a_transition_that_does_not_fit_is_refused_and_nothing_stored(transition, message):
    buffer = ReplayBuffer(5, FIELDS)
    with pytest.raises(ValueError, match=message):
        buffer.add(**transition)
    assert len(buffer) == 0


def test_a_number_beyond_the_stored_type_is_refused():
    buffer = ReplayBuffer(2, {"state": ((1,), torch.float16)})
    with pytest.raises(ValueError, match=r"'state' holds 70000, too large for torch\.float16"):
        buffer.add(state=torch.tensor([70000.0]))


def test_nothing_can_be_drawn_from_an_empty_buffer():
    for kind in (ReplayBuffer, PrioritizedReplay):
        with pytest.raises(ValueError, match="nothing is stored yet"):
            kind(5, FIELDS).sample(1, stream())


def test_a_buffer_without_room_is_refused():
    with pytest.raises(ValueError, match="at least one transition, not 0"):
        ReplayBuffer(0, FIELDS)


def test_the_state_of_another_buffer_is_refused():
    for other in (filled(6, capacity=6), ReplayBuffer(5, {"state": ((2,), torch.float32), "reward": FIELDS["reward"]})):
        with pytest.raises(ValueError, match="this buffer holds 5"):
            ReplayBuffer(5, FIELDS).load_state_dict(other.state_dict())


# -- priorities --------------------------------------------------------------------------------------------------


def test_a_new_transition_has_the_largest_priority_that_is_stored():
    buffer = filled(2, capacity=3, kind=PrioritizedReplay)
    assert buffer.priorities.tolist() == [1, 1]

    buffer.update(torch.tensor([0, 1]), torch.tensor([-2.0, 0.5]))
    buffer.add(state=torch.zeros(2), reward=0.0)
    assert buffer.priorities.tolist() == [8, 0.125, 8]

    buffer.update(torch.tensor([0, 2]), torch.tensor([0.1, 0.1]))  # the largest is gone: 0.125 is the largest now
    buffer.add(state=torch.zeros(2), reward=0.0)
    assert buffer.priorities.tolist() == pytest.approx([0.125, 0.125, 0.001], rel=1e-6)


def test_priorities_are_cubes_in_double_precision_above_the_floor():
    buffer = filled(3, kind=PrioritizedReplay)
    buffer.update(torch.tensor([0, 1, 2]), torch.tensor([1e-5, 0.0, -3.0], dtype=torch.float64))

    assert buffer.priorities.dtype == torch.float64
    assert buffer.priorities.tolist() == pytest.approx([1e-15, 1e-18, 27], rel=1e-12)


def test_draws_follow_the_priorities_with_replacement():
    buffer = filled(3, kind=PrioritizedReplay)
    buffer.update(torch.arange(3), torch.tensor([1.0, 2.0, 3.0]))  # cubes 1, 8 and 27
    slots, drawn = buffer.sample(36000, stream())

    expected = torch.tensor([1000.0, 8000.0, 27000.0])
    assert (torch.bincount(slots, minlength=3) - expected).abs().max() < 4 * (36000 * 0.25) ** 0.5
    assert torch.equal(drawn["reward"], slots.float())


def test_what_has_the_least_error_is_still_drawn():
    buffer = PrioritizedReplay(2, FIELDS, exponent=1, floor=0.5)
    for i in range(2):
        buffer.add(state=torch.zeros(2), reward=float(i))
    buffer.update(torch.arange(2), torch.tensor([0.0, 1.0]))

    assert torch.bincount(buffer.sample(900, stream())[0], minlength=2)[0] > 200


@pytest.mark.parametrize(
    ("slots", "errors", "message"),
    [
        ([0, 1], [1.0], "one error a slot"),
        ([3], [1.0], r"slots lie in 0\.\.2, not 3\.\.3"),
        ([-1], [1.0], r"not -1\.\.-1"),
        ([0], [float("nan")], "diverged"),
        ([0], [1e200], "diverged"),
    ],
)
def test_errors_that_cannot_be_priorities_are_refused(slots, errors, message):
    buffer = filled(3, kind=PrioritizedReplay)
    with pytest.raises(ValueError, match=message):
        buffer.update(torch.tensor(slots), torch.tensor(errors, dtype=torch.float64))
    assert buffer.priorities.tolist() == [1, 1, 1]


@pytest.mark.parametrize("params", [{"exponent": -1.0}, {"floor": 0.0}, {"floor": float("nan")}])
def test_exponents_and_floors_that_leave_no_priority_are_refused(params):
    with pytest.raises(ValueError, match="exponent must be 0 or more and floor above 0"):
        PrioritizedReplay(3, FIELDS, **params)
