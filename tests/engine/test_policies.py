"""Policies that are trained ahead: their files, how a stopped training goes on, and who is blamed for what."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
from pathlib import Path

import pytest
import torch

import poolwright
from poolwright import ConfigError, PluginError, StoreError, hookimpl, read_policy, run, train_policy
from poolwright.machine import versions
from poolwright.policies import part_of
from poolwright.store import write_atomically

from .helpers.build import EMPTY
from .helpers.policies import Weighing, policy_experiment
from .helpers.toys import Lowest, Random


class Stopped(Exception):
    """A stop that no code of the engine expects."""


def train(out: Path, *strategies, label: str | None = None, seed: int | None = None, stop_at: float = 2.0, **changes):
    """Train, or go on until the share ``stop_at`` is kept; return the shares that were told."""
    told = []

    def hear(event):
        if event.kind == "policy":
            told.append(event.value)
            if event.value >= stop_at and event.value < 1:
                raise Stopped

    with contextlib.suppress(Stopped):
        train_policy(policy_experiment(*strategies, **changes), label, out, seed=seed, listener=hear, catalog=EMPTY)
    return told


def same(a, b) -> bool:
    """Whether two states are equal to the last bit."""
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a
    )


def content(path: Path):
    return torch.load(path, weights_only=True)


# -- training and using ------------------------------------------------------------------------------------------


def test_a_policy_holds_the_state_and_what_it_was_trained_with(tmp_path):
    assert train(tmp_path / "new" / "a.policy", {"label": "mine", "name": Weighing, "epochs": 2}, Random) == [0, 0.5, 1]
    held = content(tmp_path / "new" / "a.policy")
    assert (held["format"], held["strategy"], held["parameters"], held["seed"]) == (1, "weighing", {"epochs": 2}, 5)
    assert [spec["label"] for spec in held["config"]["strategy"]] == ["mine"]
    assert held["config"]["reserve"] == {"policy": 0.2}
    assert held["versions"] == versions()
    assert (held["done"], held["complete"]) == (1.0, True)
    assert same(read_policy(tmp_path / "new" / "a.policy", "weighing"), held["state"])
    assert held["state"]["done"] == 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.policy"]


def test_training_depends_on_its_seed_and_on_no_global_stream(tmp_path):
    directions = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        torch.rand(len(directions) + 1)
        before = torch.get_rng_state()
        train(tmp_path / name, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        directions.append(read_policy(tmp_path / name, "weighing")["direction"])
    assert torch.equal(directions[0], directions[1])
    assert not torch.equal(directions[0], directions[2])


def test_the_policy_decides_what_runs_select(tmp_path):
    train(tmp_path / "a.policy")
    trained = {"label": "trained", "name": Weighing, "policy": str(tmp_path / "a.policy")}
    result = run(policy_experiment(trained, Weighing), catalog=EMPTY)
    picks = {r.strategy: r.records[0].selected for r in result.runs if r.seed == 5}
    assert picks["trained"] != picks["weighing"]


def test_keys_that_no_training_depends_on_change_nothing(tmp_path):
    train(tmp_path / "a")
    train(tmp_path / "b", stop_at=0.5)
    train(tmp_path / "b", budget=3, batch=1, seeds=[5], candidates=7, report_every=2)
    assert same(read_policy(tmp_path / "a", "weighing"), read_policy(tmp_path / "b", "weighing"))


# -- stopping and going on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", [0.0, 0.25, 0.5, 0.75])
def test_a_training_that_was_stopped_ends_as_one_that_never_was(stop_at, tmp_path):
    train(tmp_path / "whole")
    first = train(tmp_path / "a", stop_at=stop_at)
    assert first[-1] == stop_at
    assert part_of(tmp_path / "a").exists() == (stop_at > 0)
    assert not (tmp_path / "a").exists()
    assert train(tmp_path / "a") == [stop_at, *(share for share in (0.25, 0.5, 0.75, 1.0) if share > stop_at)]
    assert same(read_policy(tmp_path / "a", "weighing"), read_policy(tmp_path / "whole", "weighing"))
    assert not part_of(tmp_path / "a").exists()


def test_killed_at_random_moments_it_ends_as_one_that_never_was(forks, quick_path):
    train(quick_path / "whole", {"name": Weighing, "epochs": 12})
    rng, out, reached = random.Random(0), quick_path / "a", []
    for attempt in range(100):
        patience = 0.15 * 1.1 ** max(0, attempt - 8)  # a machine may be so busy that no piece ends in time
        reply = forks.call("train", kill_after=rng.uniform(0, patience), at_work=True, out=out, epochs=12, wait=0.02)
        if reply["status"] == 0:
            break
        assert reply["status"] == -signal.SIGKILL, reply["output"]
        assert not out.exists()
        reached.append(content(part_of(out))["state"]["done"] if part_of(out).exists() else 0)
    assert reply["result"] == {}
    assert reached == sorted(reached)
    assert len(set(reached)) >= 3
    assert same(read_policy(out, "weighing"), read_policy(quick_path / "whole", "weighing"))
    assert sorted(path.name for path in quick_path.iterdir()) == ["a", "whole"]


def test_a_disk_that_is_really_full_is_one_error_and_the_training_goes_on_later(forks, quick_path):
    reply = forks.call("train", out=quick_path / "a", epochs=3, limit=1000)
    assert reply["result"]["error"] == "StoreError"
    assert "File too large" in reply["result"]["message"]
    assert not list(quick_path.glob("a*"))
    assert forks.call("train", out=quick_path / "a", epochs=3)["result"] == {}
    assert read_policy(quick_path / "a", "weighing")["done"] == 3


def test_killed_between_the_last_piece_and_its_name_it_only_gets_its_name(tmp_path, monkeypatch):
    train(tmp_path / "whole")

    def die(self, target):
        if self.suffix == ".part":
            raise Stopped
        os.replace(self, target)

    monkeypatch.setattr(Path, "replace", die)
    train(tmp_path / "a")
    monkeypatch.undo()
    assert part_of(tmp_path / "a").exists()
    assert not (tmp_path / "a").exists()
    assert train(tmp_path / "a") == [1.0]  # which is told once: nothing is trained
    assert same(read_policy(tmp_path / "a", "weighing"), read_policy(tmp_path / "whole", "weighing"))


def test_a_full_disk_is_one_error_and_the_last_piece_is_kept(tmp_path, monkeypatch):
    written = []

    def full(path, data):
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, data)

    monkeypatch.setattr("poolwright.policies.write_atomically", full)
    with pytest.raises(StoreError, match=r"cannot write .*a\.part: .*No space left.*run the same command again"):
        train(tmp_path / "a")
    monkeypatch.undo()
    assert content(part_of(tmp_path / "a"))["done"] == 0.5
    train(tmp_path / "a")
    train(tmp_path / "whole")
    assert same(read_policy(tmp_path / "a", "weighing"), read_policy(tmp_path / "whole", "weighing"))


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_trained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make the folder"):
        train(tmp_path / "file" / "a")


def test_two_trainings_of_one_policy_at_once_are_refused(tmp_path):
    def hear(event):
        if event.kind == "policy":
            with pytest.raises(StoreError, match="is trained by another process"):
                train(tmp_path / "a")

    train_policy(policy_experiment(), None, tmp_path / "a", listener=hear, catalog=EMPTY)
    assert read_policy(tmp_path / "a", "weighing")["done"] == 4


@pytest.mark.parametrize(
    ("strategies", "changes", "message"),
    [
        ([{"name": Weighing, "epochs": 5}], {}, r"weighing\.epochs was None, now it is 5"),
        ([], {"initial": {"strategy": Random, "size": 9}}, r"initial\.size was 8, now it is 9"),
        ([], {"reserve": {"policy": 0.3}}, r"reserve\.policy was 0\.2, now it is 0\.3"),
        ([], {"reserve_seed": 4}, r"reserve_seed was 3, now it is 4"),
        ([], {"seed": 6}, r"--seed was 5, now it is 6"),
        ([], {"threads": 2}, r"threads was 1, now it is 2"),
        ([], {"oracle": {"rate": 0.1}}, r"oracle\.rate was 0\.0, now it is 0\.1"),
    ],
)
def test_a_part_of_another_training_is_refused_and_the_key_named(strategies, changes, message, tmp_path):
    train(tmp_path / "a", stop_at=0.5)
    before = part_of(tmp_path / "a").read_bytes()
    with pytest.raises(ConfigError, match=message + r"\. Use the same, remove a\.part"):
        train(tmp_path / "a", *strategies, **changes)
    assert part_of(tmp_path / "a").read_bytes() == before


def test_a_part_goes_on_with_the_threads_that_it_was_begun_with(tmp_path):
    train(tmp_path / "a", stop_at=0.5, threads=2)
    train(tmp_path / "a", threads=None)
    assert content(tmp_path / "a")["config"]["threads"] == 2


def test_other_versions_are_warned_of(tmp_path, caplog):
    train(tmp_path / "a", stop_at=0.5)
    held = content(part_of(tmp_path / "a"))
    torch.save(held | {"versions": held["versions"] | {"torch": "2.6.0"}}, part_of(tmp_path / "a"))
    train(tmp_path / "a")
    assert "the training was begun with torch 2.6.0, now it is" in caplog.text


def flipped(path: Path) -> bytes:
    """Return the file with one byte of the direction changed."""
    data = bytearray(path.read_bytes())
    place = data.index(content(path)["state"]["direction"].numpy().tobytes())
    data[place] ^= 255
    return bytes(data)


@pytest.mark.parametrize("damage", ["half", "flipped", "empty", "text"])
def test_a_damaged_part_or_policy_is_never_used(damage, tmp_path):
    train(tmp_path / "a", stop_at=0.5)
    train(tmp_path / "b")
    for path in (part_of(tmp_path / "a"), tmp_path / "b"):
        whole = path.read_bytes()
        path.write_bytes(
            {"half": whole[: len(whole) // 2], "flipped": flipped(path), "empty": b"", "text": b"x"}[damage]
        )
    with pytest.raises(ConfigError, match=r"a\.part cannot be gone on with: it is damaged.*Remove it to train from"):
        train(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"policy .*b cannot be read: it is damaged"):
        read_policy(tmp_path / "b", "weighing")


# -- what is refused ---------------------------------------------------------------------------------------------


def test_policies_that_cannot_be_read_say_why_and_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no policy .*a: train it with `poolwright train-policy CONFIG"):
        read_policy(tmp_path / "a", "weighing")
    train(tmp_path / "a", stop_at=0.25)
    with pytest.raises(ConfigError, match=r"its training was stopped \(a\.part is there\)"):
        read_policy(tmp_path / "a", "weighing")
    with pytest.raises(ConfigError, match=r"is a part, 25% of its training is done"):
        read_policy(part_of(tmp_path / "a"), "weighing")
    train(tmp_path / "a")
    with pytest.raises(ConfigError, match="trained for the strategy 'weighing', not for 'other'"):
        read_policy(tmp_path / "a", "other")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_policy(tmp_path, "weighing")
    with pytest.raises(ConfigError, match=r"policy = 3: give the path"):
        read_policy(3, "weighing")  # type: ignore[arg-type]
    torch.save({"weights": torch.zeros(2)}, tmp_path / "b")
    with pytest.raises(ConfigError, match="it is no policy"):
        read_policy(tmp_path / "b", "weighing")
    torch.save(content(tmp_path / "a") | {"format": 9}, tmp_path / "b")
    with pytest.raises(ConfigError, match="it is of format 9"):
        read_policy(tmp_path / "b", "weighing")


def test_a_run_with_a_policy_that_cannot_be_read_is_refused_before_anything_runs(tmp_path):
    events = []
    strategy = {"name": Weighing, "policy": str(tmp_path / "none")}
    with pytest.raises(ConfigError, match="there is no policy"):
        run(policy_experiment(Random, strategy), tmp_path / "run", listener=events.append, catalog=EMPTY)
    assert events == []
    assert not (tmp_path / "run").exists()


def test_a_run_that_goes_on_needs_the_file_no_more(tmp_path):
    train(tmp_path / "a")
    experiment = policy_experiment({"name": Weighing, "policy": str(tmp_path / "a")})
    first = run(experiment, tmp_path / "run", catalog=EMPTY)
    (tmp_path / "a").unlink()
    again = run(experiment, tmp_path / "run", resume=True, catalog=EMPTY)
    assert [[r.selected for r in x.records] for x in again.runs] == [
        [r.selected for r in x.records] for x in first.runs
    ]


def test_an_older_policy_is_not_overwritten(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        train(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"


def test_runs_that_would_choose_among_what_the_policy_was_trained_on_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="set reserve_seed = 0"):
        train(tmp_path / "a", reserve_seed=None)
    train(tmp_path / "a", reserve_seed=None, seeds=[5])
    assert read_policy(tmp_path / "a", "weighing")["done"] == 4


class Half(Weighing):
    """Lacks a part of what it takes."""

    load_state_dict = None  # type: ignore[assignment]


def test_strategies_that_cannot_be_trained_ahead_say_what_they_lack(tmp_path):
    lacks = (
        r"plugin 'lowest' of distribution 'this program' lacks train_policy\(\), state_dict\(\), load_state_dict\(\), "
    )
    with pytest.raises(ConfigError, match=lacks + "a parameter policy"):
        train(tmp_path / "a", Lowest)
    with pytest.raises(ConfigError, match=lacks):
        train(tmp_path / "a", Lowest, Weighing, label="lowest")
    with pytest.raises(ConfigError, match=r"plugin 'half' of .* lacks load_state_dict\(\)$"):
        train(tmp_path / "a", Half)
    with pytest.raises(ConfigError, match=r"no strategy of 'lowest', 'random' can be trained ahead: one that can has"):
        train(tmp_path / "a", Lowest, Random)


def test_which_of_several_is_trained_has_to_be_said(tmp_path):
    other = {"label": "short", "name": Weighing, "epochs": 1}
    with pytest.raises(ConfigError, match="add --strategy 'weighing' or 'short'"):
        train(tmp_path / "a", Weighing, other, Random)
    with pytest.raises(ConfigError, match="no strategy is labeled 'shirt': did you mean 'short'"):
        train(tmp_path / "a", Weighing, other, label="shirt")
    train(tmp_path / "a", Weighing, other, Random, label="short")
    assert read_policy(tmp_path / "a", "weighing")["done"] == 1


def test_a_part_of_a_composed_strategy_is_trained(tmp_path):
    train(tmp_path / "a", {"label": "mixed", "score": {"name": Weighing, "epochs": 2}, "reward": Rewarding})
    assert read_policy(tmp_path / "a", "weighing")["done"] == 2
    with pytest.raises(ConfigError, match=r"strategy 'mixed' has several plugins .*\(weighing, half\): leave one"):
        train(tmp_path / "b", {"label": "mixed", "score": Weighing, "update": [Half]})


class Rewarding:
    """Rewards all batches alike."""

    @hookimpl
    def reward(self):
        return 0.0


def test_a_strategy_that_has_a_policy_already_is_not_trained(tmp_path):
    with pytest.raises(ConfigError, match="strategy 'weighing' has policy = 'old' already"):
        train(tmp_path / "a", {"name": Weighing, "policy": "old"})


# -- who is blamed -----------------------------------------------------------------------------------------------


class Failing(Weighing):
    """Fails in its second piece."""

    def train_policy(self, cycle):
        yield 0.5
        raise ValueError("out of luck")


def test_an_exception_in_a_training_names_plugin_file_and_line_and_the_last_piece_is_kept(tmp_path):
    line = Failing.train_policy.__code__.co_firstlineno + 2
    with pytest.raises(PluginError) as caught:
        train(tmp_path / "a", Failing)
    assert str(caught.value) == (
        f"plugin 'failing' of distribution 'this program' failed in train_policy: ValueError: out of luck "
        f"({Path(__file__).name}:{line})"
    )
    assert content(part_of(tmp_path / "a"))["done"] == 0.5


@pytest.mark.parametrize("share", [0, 1.5, -0.1, float("nan"), None, True, "half"])
def test_what_is_no_share_is_named(share, tmp_path):
    class Sharing(Weighing):
        """Yields what it is told to."""

        def train_policy(self, cycle):
            yield share

    with pytest.raises(PluginError, match=r"plugin 'sharing' .* yielded .* from train_policy: yield the share"):
        train(tmp_path / "a", Sharing)
    assert not part_of(tmp_path / "a").exists()


def test_a_training_that_is_no_generator_is_named(tmp_path):
    class Plain(Weighing):
        """Returns instead of yielding."""

        def train_policy(self, cycle):
            return None

    with pytest.raises(PluginError, match=r"plugin 'plain' .* returned NoneType from train_policy: make it"):
        train(tmp_path / "a", Plain)


def test_a_state_that_is_more_than_plain_data_is_named(tmp_path):
    class Rich(Weighing):
        """Keeps an object."""

        def state_dict(self):
            return {"path": Path()}

    with pytest.raises(PluginError, match=r"plugin 'rich' .* but state\['path'\] is pathlib"):
        train(tmp_path / "a", Rich)


def test_a_training_reads_no_label_that_nobody_paid_for(tmp_path):
    class Peeking(Weighing):
        """Asks for hidden labels."""

        def train_policy(self, cycle):
            cycle.labels(cycle.pool.unlabeled)
            yield 1.0

    with pytest.raises(poolwright.LabelLeakError, match="plugin 'peeking'"):
        train(tmp_path / "a", Peeking)


def test_needs_that_nobody_meets_are_refused(tmp_path):
    class Needy(Weighing):
        """Needs validation data."""

        needs = frozenset({"validation"})

    with pytest.raises(ConfigError, match=r"plugin 'needy' .* needs validation data"):
        train(tmp_path / "a", Needy)
