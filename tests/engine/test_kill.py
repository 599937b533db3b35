"""A run that is killed anywhere, and resumed, ends as one that never was.

Ids, metrics, rewards, logs, the journal and the digest of every random stream after every fit and hook are compared.
The strategy and its wrapper have state, the pool gives samples back, the oracle is noisy, and some are reserved.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from .helpers.jobs import POINTS, VARIANTS
from .helpers.snapshots import assert_same, run_folder, snapshot

CYCLES = 40
KILLS = 20
LATER = {
    "inside fit": 15,
    "after the evaluation": 6,
    "in the middle of a journal transaction": 10,
    "between the journal's commit and the pool": 10,
    "between update and score": 4,
    "between score and select": 4,
    "between select and the checkpoint": 4,
}
"""Which call to die at, so that each attempt gets about two cycles further: the third, where it is one a cycle."""


def kill_at_random(forks, folder: Path, variant: str, window: float, rng: random.Random) -> list[str]:
    """Kill and resume until the run is done; return the cycle and phase it was in each time."""
    where: list[str] = []
    for attempt in range(1000):
        at_work = rng.random() < 0.85  # the others are killed while they start
        patience = 1.1 ** max(0, attempt - 3 * KILLS)
        reply = forks.call(
            "finish",
            kill_after=rng.uniform(0, window * patience if at_work else 0.1),
            at_work=at_work,
            folder=folder,
            variant=variant,
            cycles=CYCLES,
        )
        if reply["status"] == 0:
            assert reply["result"] == {}
            return where
        assert reply["status"] == -signal.SIGKILL, reply["output"]
        where.append(reply["where"] or "0 start")
    raise AssertionError("the run never ended")


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_at_random_moments_it_ends_as_if_it_never_was(variant, forks, undisturbed, quick_path, capsys):
    reference = undisturbed(variant, CYCLES)
    rng = random.Random(variant)
    for attempt in range(6):  # a machine that has become quicker since the reference needs a smaller window
        folder = quick_path / str(attempt)
        where = kill_at_random(forks, folder, variant, undisturbed.seconds[variant, CYCLES] / 20 / 2**attempt, rng)
        assert_same(snapshot(folder), reference)
        inside = [place for place in where if not place.endswith("start")]
        if len(inside) >= KILLS:
            break
    cycles = {place.split()[0] for place in inside}
    phases = sorted({place.split()[1] for place in inside})
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{variant}: {len(where)} kills, {len(inside)} of them in {len(cycles)} of {len(reference.cycles)} "
            f"cycles, in {', '.join(phases)}"
        )
    assert len(inside) >= KILLS


@pytest.mark.parametrize(("point", "variant"), [(point, list(VARIANTS)[i % 3]) for i, point in enumerate(POINTS)])
def test_killed_again_and_again_at_one_point_it_ends_as_if_it_never_was(point, variant, forks, undisturbed, quick_path):
    reference = undisturbed(variant, 8)
    kills = 0
    for attempt in range(40):
        occurrence = 1 if attempt == 0 else LATER.get(point, 3)
        reply = forks.call(
            "finish", folder=quick_path / "run", variant=variant, cycles=8, die_at=point, occurrence=occurrence
        )
        if reply["status"] == 0:
            break
        assert reply["status"] == -signal.SIGKILL, reply["output"]
        kills += 1
    assert reply["result"] == {}
    assert_same(snapshot(quick_path / "run"), reference)
    print(f"{point}: {kills} kills")  # noqa: T201
    assert kills >= 2


def test_a_finished_run_is_left_alone_by_resume(forks, undisturbed, quick_path):
    reference = undisturbed("warm", 8)
    folder = quick_path / "run"
    forks.call("finish", folder=folder, variant="warm", cycles=8)
    checkpoints = {path: path.read_bytes() for path in (run_folder(folder) / "checkpoints").iterdir()}
    # Were anything fitted, asked or written as a checkpoint, the process would die.
    for point in ("inside fit", "inside update", "before a checkpoint is renamed", "before the record of a cycle"):
        reply = forks.call("finish", folder=folder, variant="warm", cycles=8, die_at=point)
        assert (reply["status"], reply["result"]) == (0, {}), point
    assert {path: path.read_bytes() for path in (run_folder(folder) / "checkpoints").iterdir()} == checkpoints
    assert_same(snapshot(folder), reference)


@pytest.mark.parametrize("told", [1, 4])
def test_no_answer_is_lost_when_the_process_dies_right_after_tell(told, forks, quick_path):
    folder = quick_path / "run"
    reply = forks.call("finish", folder=folder, variant="warm", cycles=8, die_at="right after tell", occurrence=told)
    assert reply["status"] == -signal.SIGKILL
    answers = snapshot(folder).answers
    assert [position for position, *_ in answers] == list(range(1, len(answers) + 1))
    assert len(answers) == 8 + 3 * (told - 1)
