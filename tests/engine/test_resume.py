"""Going on with an experiment: damage, other settings, more strategies, full disks, two processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from poolwright import ConfigError, StoreError, load_result, run
from poolwright.store import locked

from .helpers.build import EMPTY, experiment
from .helpers.snapshots import Snapshot, assert_same, run_folder, snapshot
from .helpers.toys import Blobs, LeastConfident, Lowest, Random, Softmax
from .test_store import DAMAGES

CYCLES = 8


def half(forks, folder: Path, variant: str = "warm") -> None:
    """Leave a run that died in its sixth cycle."""
    reply = forks.call("finish", folder=folder, variant=variant, cycles=CYCLES, die_at="inside update", occurrence=6)
    assert reply["status"] == -signal.SIGKILL, reply["output"]


def finished(forks, folder: Path, variant: str = "warm", **arguments) -> Snapshot:
    """Go on to the end and return what the run left."""
    reply = forks.call("finish", folder=folder, variant=variant, cycles=CYCLES, **arguments)
    assert (reply["status"], reply["result"]) == (0, {}), reply
    return snapshot(folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_with_a_damaged_checkpoint_the_run_ends_as_if_it_were_whole(damage, forks, undisturbed, quick_path):
    folder = quick_path / "run"
    half(forks, folder)
    newest = max((run_folder(folder) / "checkpoints").glob("*.ckpt"))
    newest.write_bytes(DAMAGES[damage](newest.read_bytes()))
    reply = forks.call("finish", folder=folder, variant="warm", cycles=CYCLES)
    assert (reply["status"], reply["result"]) == (0, {})
    assert str(newest) in reply["output"]
    assert_same(snapshot(folder), undisturbed("warm", CYCLES))


@pytest.mark.parametrize("variant", ["scratch", "warm", "refit"])
def test_without_any_whole_checkpoint_it_starts_again_from_the_journal(variant, forks, undisturbed, quick_path):
    folder = quick_path / "run"
    half(forks, folder, variant)
    told = snapshot(folder).answers
    for path in (run_folder(folder) / "checkpoints").glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:-10])
    reply = forks.call("finish", folder=folder, variant=variant, cycles=CYCLES)
    assert (reply["status"], reply["result"]) == (0, {})
    assert "the run starts again and replays its journal" in reply["output"]
    now = snapshot(folder)
    assert now.answers[: len(told)] == told
    assert_same(now, undisturbed(variant, CYCLES))


def test_damage_to_a_finished_run_is_made_good(forks, undisturbed, quick_path):
    folder = quick_path / "run"
    finished(forks, folder)
    for path in (run_folder(folder) / "checkpoints").glob("*.ckpt"):
        path.unlink()
    assert_same(finished(forks, folder), undisturbed("warm", CYCLES))


def test_a_half_written_checkpoint_is_ignored(forks, undisturbed, quick_path):
    folder = quick_path / "run"
    half(forks, folder)
    (run_folder(folder) / "checkpoints" / "000099.ckpt.tmp").write_bytes(b"poolwright checkpoint 1\n")
    assert_same(finished(forks, folder), undisturbed("warm", CYCLES))


def test_a_damaged_journal_is_an_error_that_names_it_and_is_not_overwritten(forks, quick_path):
    folder = quick_path / "run"
    half(forks, folder)
    journal = run_folder(folder) / "journal.sqlite"
    for suffix in ("-wal", "-shm"):
        journal.with_name(journal.name + suffix).unlink(missing_ok=True)
    journal.write_bytes(b"garbage" * 1000)
    reply = forks.call("finish", folder=folder, variant="warm", cycles=CYCLES)
    assert reply["result"]["error"] == "StoreError"
    assert str(journal) in reply["result"]["message"]
    assert journal.read_bytes() == b"garbage" * 1000
    with pytest.raises(StoreError, match=r"journal\.sqlite"):
        load_result(folder)


def test_two_processes_cannot_share_a_folder(forks, undisturbed, quick_path):
    folder = quick_path / "run"
    folder.mkdir()
    with locked(folder):
        reply = forks.call("finish", folder=folder, variant="warm", cycles=CYCLES)
        assert reply["result"]["error"] == "StoreError"
        assert "in use by another process" in reply["result"]["message"]
    assert_same(finished(forks, folder), undisturbed("warm", CYCLES))


# -- full disks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [2_000, 8_000, 40_000, 100_000, 180_000])
def test_on_a_full_disk_it_stops_with_an_error_and_goes_on_when_there_is_room(limit, forks, undisturbed, quick_path):
    folder = quick_path / "run"
    reply = forks.call("finish", folder=folder, variant="warm", cycles=CYCLES, limit=limit)
    assert reply["status"] == 0, reply["output"]
    assert reply["result"].get("error") == "StoreError", reply["result"]
    assert "ake room" in reply["result"]["message"]
    reference = undisturbed("warm", CYCLES)
    if limit >= 100_000:
        kept = snapshot(folder)
        assert kept.cycles
        assert kept.cycles == reference.cycles[: len(kept.cycles)]
        assert kept.answers == reference.answers[: len(kept.answers)]
    assert_same(finished(forks, folder), reference)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 600 KiB; skip where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("room", [60_000, 120_000, 200_000])
def test_on_a_small_file_system_that_fills_up_nothing_is_lost(room, small_disk, forks, undisturbed):
    usage = os.statvfs(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (usage.f_bavail * usage.f_frsize - room))
    folder = small_disk / "run"
    reply = forks.call("finish", folder=folder, variant="warm", cycles=CYCLES)
    assert reply["status"] == 0, reply["output"]
    assert reply["result"].get("error") == "StoreError", reply["result"]
    ballast.unlink()
    assert_same(finished(forks, folder), undisturbed("warm", CYCLES))


def test_a_session_goes_on_in_the_same_process_when_there_is_room_again(forks, quick_path):
    reply = forks.call("retry_tell", folder=quick_path)
    assert reply["status"] == 0, reply["output"]
    first, second, rows, cycles = reply["result"]
    assert first == "StoreError"
    assert second == ""
    assert rows == list(range(8))
    assert cycles == 1


# -- other settings ----------------------------------------------------------------------------------------------


def test_a_folder_that_holds_a_run_is_not_overwritten_without_resume(tmp_path):
    run(experiment(Random), tmp_path / "x", catalog=EMPTY)
    with pytest.raises(ConfigError, match="holds a run already: add --resume"):
        run(experiment(Random), tmp_path / "x", catalog=EMPTY)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not empty and holds no Poolwright run \(it has 'notes.txt'\)"):
        run(experiment(Random), tmp_path / "full", catalog=EMPTY)


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("budget", {"budget": 15}),
        ("batch", {"batch": 4}),
        ("learner", {"learner": {"name": Softmax, "rate": 0.1}}),
        ("dataset", {"dataset": {"name": Blobs, "n_validation": 8}}),
        ("initial", {"initial": {"strategy": Random, "size": 9}}),
        ("threads", {"threads": 2}),
        ("oracle", {"oracle": {"rate": 0.1}}),
        ("candidates", {"candidates": 30}),
        ("reserve", {"reserve": {"state": 0.1}}),
    ],
)
def test_other_settings_are_refused_by_their_key(key, settings, tmp_path):
    run(experiment(Random), tmp_path / "x", catalog=EMPTY)
    with pytest.raises(ConfigError, match=f"holds a run with another {key} "):
        run(experiment(Random, **settings), tmp_path / "x", resume=True, catalog=EMPTY)


def test_another_strategy_under_the_same_label_is_refused(tmp_path):
    run(experiment({"label": "mine", "name": Random}), tmp_path / "x", catalog=EMPTY)
    with pytest.raises(ConfigError, match="holds another strategy labeled 'mine'"):
        run(experiment({"label": "mine", "name": Lowest}), tmp_path / "x", resume=True, catalog=EMPTY)


def test_settings_that_json_writes_otherwise_are_still_the_same(tmp_path):
    class Shaped(Blobs):
        def __init__(self, shape: tuple[int, int] = (80, 4)) -> None:
            super().__init__(*shape)

    configured = experiment(Random, dataset={"name": Shaped, "shape": (60, 3)})
    run(configured, tmp_path / "x", catalog=EMPTY)
    assert run(configured, tmp_path / "x", resume=True, catalog=EMPTY).runs[0].complete


def test_strategies_and_seeds_can_be_added(tmp_path):
    first = run(experiment(Random), tmp_path / "x", catalog=EMPTY)
    both = run(experiment(Random, LeastConfident, seeds=2), tmp_path / "x", resume=True, catalog=EMPTY)
    fresh = run(experiment(Random, LeastConfident, seeds=2), catalog=EMPTY)
    assert [(r.strategy, r.seed) for r in both.runs] == [
        ("random", 0),
        ("random", 1),
        ("least-confident", 0),
        ("least-confident", 1),
    ]
    for mine, theirs in zip(both.runs, fresh.runs, strict=True):
        assert [r.streams for r in mine.records] == [r.streams for r in theirs.records]
        assert mine.curve() == theirs.curve()
    assert both.runs[0].curve() == first.runs[0].curve()


def test_labels_that_differ_only_in_signs_have_folders_of_their_own(tmp_path):
    pair = [
        {"label": "a b", "name": Random},
        {"label": "a/b", "name": Lowest},
        {"label": "a_b", "name": LeastConfident},
    ]
    kept = run(experiment(*pair), tmp_path / "x", catalog=EMPTY)
    alone = run(experiment(*pair), catalog=EMPTY)
    assert [[r.selected for r in x.records] for x in kept.runs] == [[r.selected for r in x.records] for x in alone.runs]
    dots = run(experiment({"label": "..", "name": Lowest}), tmp_path / "y", catalog=EMPTY)
    assert dots.runs[0].complete
    assert sorted(p.name for p in (tmp_path / "y").iterdir()) == [".lock", "experiment.json", "initial", "runs"]


def test_what_is_kept_can_be_loaded_again(tmp_path):
    result = run(experiment(Random, Lowest, seeds=2), tmp_path / "x", catalog=EMPTY)
    loaded = load_result(tmp_path / "x")
    assert loaded.runs == result.runs
    assert loaded.info == result.info
    assert loaded.info["config"]["budget"] == 20
    assert loaded.info["samples"] == {"pool": 80, "validation": 12, "test": 40}


def test_another_version_is_warned_of(tmp_path, caplog):
    run(experiment(Random), tmp_path / "x", catalog=EMPTY)
    description = tmp_path / "x" / "experiment.json"
    description.write_text(description.read_text().replace(version("torch"), "1.0"))
    with caplog.at_level(logging.WARNING):
        run(experiment(Random), tmp_path / "x", resume=True, catalog=EMPTY)
    assert "the run was begun with torch 1.0" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_description_is_an_error_that_names_it(content, tmp_path):
    run(experiment(Random), tmp_path / "x", catalog=EMPTY)
    (tmp_path / "x" / "experiment.json").write_text(content)
    with pytest.raises(StoreError, match=r"experiment\.json is damaged"):
        run(experiment(Random), tmp_path / "x", resume=True, catalog=EMPTY)
