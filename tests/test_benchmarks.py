"""The benchmarks: what is timed, how often, what is left out and said, and the files and pages that are made of it."""

from __future__ import annotations

import importlib
import json
import mmap
import os
import re
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pytest
import torch

from poolwright import kernels
from poolwright_benchmarks import __main__ as command
from poolwright_benchmarks import (
    badge,
    bures,
    harness,
    k_center,
    kmeans,
    kmeans_plus_plus,
    machine,
    outcomes,
    page,
    results,
    sizes,
    wasserstein,
)
from poolwright_benchmarks.harness import Case, Contender, Limits, Problem, run_case

ROOT = Path(__file__).resolve().parent.parent


def test_options_may_leave_out_their_paths():
    options = command._parser().parse_args(["--json", "--plot", "--seconds", "9"])
    command._check(command._parser(), options)
    assert options.json is options.plot is command.CHOSEN_FOR_YOU
    assert command._parser().parse_args(["--json", "out.json"]).json == Path("out.json")


class Clock:
    """Time that passes only when a contender says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def no_collection(monkeypatch) -> None:
    """Collecting garbage before each run takes a tenth of a second in a process as large as that of the tests."""
    monkeypatch.setattr(harness.gc, "collect", lambda: 0)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(harness.time, "perf_counter", made)
    monkeypatch.setattr(harness.time, "monotonic", made)
    return made


class Fake:
    """Contenders that take a given number of seconds per unit of size, and notes who ran."""

    def __init__(self, clock: Clock, **pace: float) -> None:
        self.clock, self.pace, self.ran = clock, pace, []

    def contender(self, name: str, size: int, **options) -> Contender:
        def run() -> int:
            self.ran.append((name, size))
            self.clock.now += self.pace[name] * size
            return size

        return Contender(name, run, **options)

    def case(self, *sizes_: int, **options) -> Case:
        def build(size: int) -> Problem:
            contenders = [self.contender(name, size) for name in self.pace]
            return Problem(contenders, lambda result: {"answer": result}, **options)

        return Case("fake", {"d": 3}, "n", sizes_, build)


def measured(case: Case, **limits) -> dict:
    return run_case(case, Limits(**limits), "cpu", lambda text: None)


def names(rung: dict) -> list[str]:
    return [row["name"] for row in rung["results"]]


# -- the harness -------------------------------------------------------------------------------------------------


def test_contenders_are_interleaved_and_each_goes_first_in_turn(clock):
    fake = Fake(clock, ours=1, theirs=3)
    rung = measured(fake.case(2))["sizes"][0]
    assert [name for name, _ in fake.ran] == [
        "ours",
        "theirs",
        *["ours", "theirs", "theirs", "ours"] * 2,
        *["ours", "theirs"],
    ]
    ours, theirs = rung["results"]
    assert ours["seconds"] == [2] * 5
    assert (theirs["median"], theirs["times_ours"], theirs["quality"]) == (6, 3, {"answer": 2})


def test_a_slow_contender_is_run_once_and_marked(clock):
    fake = Fake(clock, ours=1, slow=20)
    rows = {row["name"]: row for row in measured(fake.case(1), cap=50, single=30)["sizes"][0]["results"]}
    assert rows["slow"]["single"]
    assert len(rows["slow"]["seconds"]) == 1
    assert not rows["ours"]["single"]
    assert fake.ran.count(("slow", 1)) == 2  # the second is the one that counts: imports are over


def test_a_contender_that_would_take_too_long_is_measured_on_the_smaller_size_beside_ours_and_named(clock):
    fake = Fake(clock, ours=1, slow=20)
    small, large = measured(fake.case(1, 4), cap=200, single=60)["sizes"]
    assert names(small) == ["ours", "slow"]
    assert len(small["results"][1]["seconds"]) == 5
    assert names(large) == ["ours"]
    assert "about 80 s, above the limit of 60 s" in large["not_measured"]["slow"]
    assert ("slow", 4) not in fake.ran


def test_what_does_not_fit_in_the_time_is_named(clock):
    fake = Fake(clock, ours=1, slow=10)
    small, large = measured(fake.case(1, 100), cap=1000, single=1000, deadline=clock.now + 70)["sizes"]
    assert names(small) == ["ours", "slow"]
    assert names(large) == []
    assert all("the time was used up" in reason for reason in large["not_measured"].values())
    assert set(large["not_measured"]) == {"ours", "slow"}


def test_a_pace_that_cases_share_counts_from_the_first_run(clock):
    fake = Fake(clock, ours=1, slow=10)
    first, second = fake.case(1), fake.case(10)
    second = Case("next", {}, "n", (10,), second.build, pace=first.pace)
    measured(first, single=30)
    assert "slow" in measured(second, single=30)["sizes"][0]["not_measured"]


def test_a_peer_that_is_missing_or_fails_is_named_and_the_others_go_on(clock):
    fake = Fake(clock, ours=1)

    def broken() -> None:
        raise ValueError("no such thing\nmore")

    def build(size: int) -> Problem:
        return Problem(
            [
                fake.contender("ours", size),
                Contender("absent", broken, requires=("no-such-distribution",)),
                Contender("huge", broken, needs_bytes=1 << 60),
                Contender("broken", broken),
            ]
        )

    rung = measured(Case("fake", {}, "n", (1,), build))["sizes"][0]
    assert names(rung) == ["ours"]
    assert rung["not_measured"]["absent"] == "not installed (pip install no-such-distribution)"
    assert "more than half of the memory" in rung["not_measured"]["huge"]
    assert rung["not_measured"]["broken"] == "failed: ValueError: no such thing"


def test_a_failure_of_ours_is_not_swallowed():
    def broken() -> None:
        raise ValueError("ours")

    case = Case("fake", {}, "n", (1,), lambda size: Problem([Contender("ours", broken)]))
    with pytest.raises(ValueError, match="ours"):
        measured(case)


def test_preparing_is_not_timed_and_closing_is_done_after_a_failure(clock):
    events = []

    def prepare() -> None:
        clock.now += 50
        events.append("prepared")

    def build(size: int) -> Problem:
        def run() -> None:
            clock.now += 1
            if size == 2:
                raise ValueError

        return Problem([Contender("ours", run, prepare=prepare)], close=lambda: events.append("closed"))

    row = measured(Case("fake", {}, "n", (1,), build))["sizes"][0]["results"][0]
    assert (row["prepare_seconds"], row["median"]) == (50, 1)
    with pytest.raises(ValueError):  # noqa: PT011 - its own
        measured(Case("fake", {}, "n", (2,), build))
    assert events == ["prepared", "closed"] * 2


def test_the_share_of_the_product_is_that_of_the_same_rounds(clock):
    def run() -> None:
        clock.now += 4

    def multiply() -> None:
        clock.now += 1

    work = {"flops": 2e9, "full_flops": 12e9}
    problem = Problem([Contender("ours", run)], lambda result: work, multiply, 1e9, "bfloat16")
    rung = measured(Case("fake", {}, "n", (1,), lambda size: problem))["sizes"][0]
    assert rung["product"] == {"flops_per_second": 1e9, "seconds": [1] * 5, "arithmetic_of_ours": "bfloat16"}
    assert rung["results"][0]["share_of_product"] == pytest.approx(0.5)
    assert rung["results"][0]["full_product"] == pytest.approx(3)
    assert results.product_line(rung).endswith("1 GFLOP/s; ours multiplies bfloat16")
    assert results.cells(rung["results"][0], [])[-2:] == ["50 %", "3"]


def test_fewer_than_five_repeats_are_refused():
    with pytest.raises(ValueError, match="at least 5"):
        measured(Case("fake", {}, "n", (1,), lambda size: Problem([])), repeats=4)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's high-water mark")
def test_the_peak_of_memory_is_that_of_the_run():
    def touched() -> torch.Tensor:
        # Fresh pages each time: malloc may hand out again what an earlier test has left resident.
        return torch.frombuffer(mmap.mmap(-1, 64 << 20), dtype=torch.float32).fill_(1).sum()

    problem = Problem([Contender("ours", touched)])
    row = measured(Case("fake", {}, "n", (1,), lambda size: problem))["sizes"][0]["results"][0]
    assert 60e6 < row["peak_bytes"] < 100e6


@pytest.mark.parametrize(("steps", "expected"), [(1, (6400,)), (2, (800, 6400)), (4, (100, 400, 1600, 6400))])
def test_a_ladder_ends_with_the_size_of_the_table(steps, expected):
    assert sizes.ladder(6400, 1.0, steps=steps) == expected
    assert sizes.ladder(6400, 1.0, steps=steps, least=5000)[0] >= 5000


def test_no_size_takes_more_of_the_memory_than_it_may():
    (n,) = sizes.ladder(10**12, 1.0, steps=1, row_bytes=1 << 20)
    assert n << 20 <= machine.memory_bytes() // 8


# -- figures of quality ------------------------------------------------------------------------------------------


def test_the_radius_and_the_potential_are_those_of_plain_loops():
    x = sizes.normal_rows(300, 7, "cpu")
    picks = torch.tensor([5, 80, 123])
    to_all = torch.cdist(x.double(), x[torch.cat([torch.tensor([0]), picks])].double())
    assert k_center.covering_radius(x, picks) == pytest.approx(float(to_all.amin(dim=1).max()))
    to_picks = torch.cdist(x.double(), x[picks].double())
    expected = float(to_picks.amin(dim=1).square().sum())
    assert kmeans_plus_plus.potential(x, picks) == pytest.approx(expected)


def test_the_potential_of_factors_is_that_of_the_explicit_array():
    q, h = sizes.normal_rows(90, 4, "cpu"), sizes.normal_rows(90, 6, "cpu", seed=1)
    explicit = torch.einsum("ni,nj->nij", q, h).flatten(1)
    picks = torch.tensor([3, 44])
    assert badge.potential(q, h, picks) == pytest.approx(kmeans_plus_plus.potential(explicit, picks), rel=1e-6)


def test_the_oracle_of_bures_knows_the_closed_form():
    import numpy as np

    x = np.random.default_rng(0).standard_normal((40, 6))
    assert bures.by_matrix_roots(x, x + 3) == pytest.approx(3 * 6**0.5)
    spread = (x - x.mean(axis=0)).std() * 6**0.5
    assert bures.by_matrix_roots(x, 2 * x - x.mean(axis=0)) == pytest.approx(spread, rel=0.05)


def test_peers_that_batch_get_every_pair_once_and_in_its_place():
    xs = [torch.full((n, 2), float(i)) for i, n in enumerate([3, 5, 3, 5, 3])]
    ys = [x + 10 for x in xs]
    seen = {}
    for ids, x, y in wasserstein.by_shape(xs, ys, limit=18):
        assert len(ids) <= 2
        seen |= {i: (a, b) for i, a, b in zip(ids, x, y, strict=True)}
    assert sorted(seen) == list(range(5))
    assert all(torch.equal(seen[i][0], xs[i]) and torch.equal(seen[i][1], ys[i]) for i in seen)


@pytest.mark.parametrize("step", ["torch_addmv", "sklearn_style"])
def test_the_loops_that_stand_for_peers_pick_what_ours_picks(step):
    x = sizes.normal_rows(400, 9, "cpu")
    expected = kernels.k_center(x, 20, labeled=[0], backend="reference").indices.tolist()
    given = x.numpy() if step == "sklearn_style" else x
    assert list(getattr(k_center, step)(given, 20)) == expected


# -- every kernel ------------------------------------------------------------------------------------------------


SMALL = {
    "k-center": lambda: k_center.problem(200, 8, 5, "float32", "cpu"),
    "kmeans": lambda: kmeans.problem(600, 8, 4, "cpu"),
    "kmeans-plus-plus": lambda: kmeans_plus_plus.problem(300, 8, 5, "cpu"),
    "badge": lambda: badge.problem(60, 5, 4, 6, "cpu"),
    "wasserstein, equal sizes": lambda: wasserstein.problem([10, 20, 10], [10, 20, 10], "cpu"),
    "wasserstein, unequal sizes": lambda: wasserstein.problem([10, 20, 10], [30, 10, 10], "cpu"),
    "bures, n < d": lambda: bures.problem(6, 10, "cpu"),
    "bures, n > d": lambda: bures.problem(40, 4, "cpu"),
}
GOOD = {
    "radius": lambda value, ours: value == pytest.approx(ours, rel=1e-6),
    "potential": lambda value, ours: value < 3 * ours,
    "inertia": lambda value, ours: value < 1.5 * ours,
    "largest_relative_error": lambda value, ours: ours < 1e-5 and (value is None or value < 0.05),
}
"""Figure -> whether a contender's is what one expects beside ours."""


@pytest.mark.parametrize("name", SMALL)
def test_a_kernel_is_measured_beside_its_peers_which_compute_the_same(name):
    case = Case(name, {}, "n", (1,), lambda size: SMALL[name]())
    rung = measured(case, cap=1e6, single=1e6)["sizes"][0]
    assert not [reason for reason in rung["not_measured"].values() if reason.startswith("failed")]
    rows = {row["name"]: row for row in rung["results"]}
    assert rung["ours"] in rows or not kernels.build_info()["native"]
    assert len({*rows, *rung["not_measured"]}) >= 3
    for row in rows.values():
        assert len(row["seconds"]) == 5
        for figure, good in GOOD.items():
            if figure in row["quality"] and rung["ours"] in rows:
                assert good(row["quality"][figure], rows[rung["ours"]]["quality"][figure]), (row["name"], figure)
    if name.startswith("bures") and rung["ours"] in rows:
        assert rows[rung["ours"]]["quality"]["not_a_number"] == 0


@pytest.mark.parametrize("name", command.KERNELS)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_sizes_grow_and_end_with_that_of_the_table(name, steps):
    module = importlib.import_module(f"poolwright_benchmarks.{command.KERNELS[name]}")
    cases = list(module.cases("cpu", 1.0, steps))
    assert cases
    for case in cases:
        assert list(case.sizes) == sorted(set(case.sizes))
        assert [case.work(size) for size in case.sizes] == sorted(case.work(size) for size in case.sizes)
    if name == "k-center":
        (case,) = cases
        assert (case.sizes[-1], case.settings["d"], case.settings["k"]) == (200_000, 256, 1000)
        assert len(case.sizes) == steps


# -- the command line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["k-centre"], "choose one of k-center"),
        (["--repeats", "4"], "at least 5, not 4"),
        (["--repeats", "many"], "many"),
        (["--scale", "0"], "--scale must be a positive number"),
        (["--scale", "nan"], "--scale must be a positive number"),
        (["--cap", "-1"], "--cap must be a positive number"),
        (["--json", "k-center"], "write it before --json"),
        (["--json", "."], "is a folder"),
        (["--device", "tpu"], "tpu"),
        (["--sweep", "--largest"], "not allowed with"),
        (["--wrong"], "--wrong"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_status_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as raised:
        command.main(arguments)
    error = capsys.readouterr().err
    assert raised.value.code == 2
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_exit_status_2(capsys):
    with pytest.raises(SystemExit) as raised:
        command.main(["--device", "cuda"])
    assert raised.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_the_command_is_found_by_its_entry_point():
    (point,) = entry_points(group="poolwright.benchmarks", name="bench")
    assert point.load() is command.main


def test_every_option_is_documented():
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (section,) = [part for part in section if part.startswith("`bench`")]
    for action in command._parser()._actions:
        for option in [option for option in action.option_strings if option.startswith("--")]:
            assert f"`{option}" in section
    for kernel in command.KERNELS:
        assert f"`{kernel}`" in section


@pytest.fixture
def toy(clock, monkeypatch) -> str:
    """A kernel of the command line whose runs take no time."""
    fake = Fake(clock, **{"poolwright toy": 1, "peer": 20})
    module = ModuleType("poolwright_benchmarks.toy")
    module.cases = lambda device, scale, steps: iter([fake.case(*range(1, steps + 1))])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(command.KERNELS, "toy", "toy")
    return "toy"


def test_the_command_prints_tables_and_writes_what_was_asked_for(toy, tmp_path, capsys):
    path, folder = tmp_path / "deep" / "out.json", tmp_path / "plots"
    assert command.main([toy, "--cap", "50", "--json", str(path), "--plot", str(folder)]) == 0
    shown = capsys.readouterr()
    assert "one run" in shown.out
    assert "not measured: peer: one run would take about 40 s" in shown.out
    assert "fake, n = 2: poolwright toy" in shown.err
    report = json.loads(path.read_text())
    assert report["limits"] == {"repeats": 5, "cap": 50, "single": 25}
    assert report["machine"]["kernels"]["native"] == kernels.build_info()["native"]
    (plot,) = folder.iterdir()
    assert plot.name == f"toy-cpu-{machine.tag(machine.facts(), 'cpu')}.svg"
    assert str(path) in shown.out
    assert str(plot) in shown.out


@pytest.mark.parametrize(("option", "rungs"), [("--largest", 1), ("--quick", 1), ("--repeats=6", 2), ("--sweep", 4)])
def test_options_choose_how_many_sizes_are_measured(toy, option, rungs, tmp_path):
    path = tmp_path / "out.json"
    assert command.main([toy, option, "--cap", "1000", "--json", str(path)]) == 0
    (record,) = json.loads(path.read_text())["kernels"][toy]
    assert len(record["sizes"]) == rungs


def test_kernels_share_the_time_that_is_given(toy, clock, monkeypatch, tmp_path):
    path = tmp_path / "out.json"
    monkeypatch.setattr(command, "KERNELS", {"toy": "toy", "again": "toy"})
    assert command.main(["--seconds", "60", "--largest", "--cap", "1000", "--single", "30", "--json", str(path)]) == 0
    first, second = (records[0]["sizes"][0] for records in json.loads(path.read_text())["kernels"].values())
    # Half a minute for the first: a run of each and a round; the second has what is left.
    assert [len(row["seconds"]) for row in first["results"]] == [1, 1]
    assert "peer" not in names(second) or len(second["results"][1]["seconds"]) < 5
    assert clock.now < 100 + 60 + 2 * 21


def test_without_a_path_a_file_is_named_by_kernel_and_machine_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "result_folder", lambda: tmp_path)
    facts = machine.facts()
    report = {"machine": facts, "kernels": {"k-center": [{"x": float("nan")}], "bures": []}}
    path = results.save(report, None, "k-center", "cpu")
    assert path.name == f"k-center-cpu-{machine.tag(facts, 'cpu')}.json"
    assert re.fullmatch(r"[a-z0-9-]+\.json", path.name)
    assert facts["date"][:4] not in path.name
    assert json.loads(path.read_text())["kernels"] == {"k-center": [{"x": None}]}


def test_the_machine_names_no_host_and_no_user():
    text = json.dumps(machine.facts())
    for name in (os.uname().nodename, str(Path.home())):
        assert name not in text


# -- plots and the page ------------------------------------------------------------------------------------------


@pytest.fixture
def report(clock) -> dict:
    record = measured(Fake(clock, **{"poolwright native": 1, "quick": 0.5, "slow": 20}).case(1, 4), single=60)
    return {"machine": machine.facts(), "kernels": {"k-center": [record]}}


def test_a_plot_has_a_line_for_each_contender_and_is_the_same_each_time(report, tmp_path):
    texts = []
    for name in ("a.svg", "b.svg"):
        texts.append(results.plot(report["kernels"]["k-center"], tmp_path / name).read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    for words in ("poolwright native", "quick", "slow", "seconds"):
        assert words in texts[0]


def test_the_page_shows_losses_marks_and_what_is_missing(report):
    text = page.page({"k-center-cpu-x": report}, {"k-center-cpu-x"})
    assert "(images/k-center-cpu-x.svg)" in text
    assert re.search(r"^\| quick \| 2 \| 2-2 \| 0\.5 \|", text, re.MULTILINE)  # faster than ours
    assert "slow" in text
    assert "not measured: slow: one run would take about 80 s" in text
    assert text.index("n 4,") < text.index("n 1,")


def test_the_page_of_this_checkout_is_made_from_its_results():
    assert (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8") == page.read(ROOT), (
        "run python -m poolwright_benchmarks.page"
    )


# -- gpu-check ---------------------------------------------------------------------------------------------------


def load_gpu_check():
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "benchmarks" / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_gpu_check_fails_without_a_gpu_and_says_so():
    command_ = [sys.executable, "benchmarks/gpu_check.py"]
    done = subprocess.run(command_, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no CUDA device" in done.stdout
    assert "nothing was checked" in done.stdout


def test_gpu_check_ends_a_command_that_takes_too_long_and_what_it_started():
    gpu_check = load_gpu_check()
    started = time.monotonic()
    assert gpu_check.run([sys.executable, "-c", "import time; time.sleep(60)"], 1.0) is None
    assert time.monotonic() - started < 20
    assert gpu_check.run([sys.executable, "-c", "raise SystemExit(3)"], 30.0) == 3


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A checkout whose tests pass, fail, skip, break in their fixture, and take too long, in this order."""
    folder = tmp_path / "tests" / "kernels"
    folder.mkdir(parents=True)
    (folder / "test_some.py").write_text(
        "import time, pytest\n"
        "pytestmark = pytest.mark.gpu\n"
        "@pytest.fixture\ndef bad():\n    raise ValueError('setup')\n"
        "def test_a(): pass\n"
        "def test_b(): assert 1 == 2\n"
        "def test_c(): pytest.skip('no faiss here')\n"
        "def test_d(bad): pass\n"
        "def test_e(): time.sleep(300)\n"
        "def test_f(): pass\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: x\n")
    gpu_check = load_gpu_check()
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(outcomes.__file__).parents[1]))
    return gpu_check


def test_gpu_check_tells_failed_skipped_and_unfinished_tests_apart(suite, tmp_path):
    failed, not_run = suite.run_tests(tmp_path, 10.0)
    assert [line.split("::")[1].split(":")[0] for line in failed] == ["test_b", "test_d"]
    assert [line.split("::")[1].split(":")[0] for line in not_run] == ["test_c", "test_e", "test_f"]
    assert "no faiss here" in not_run[0]
    assert "the time was used up" in not_run[1]
    assert json.loads((tmp_path / "gpu_tests.json").read_text())["tests/kernels/test_some.py::test_a"] == "passed"


def test_gpu_check_names_benchmarks_that_did_not_fit_and_what_they_left_out(report, tmp_path):
    gpu_check = load_gpu_check()
    failed, not_run = gpu_check.run_benchmarks(tmp_path, time.monotonic() + 1)
    assert not failed
    assert [line.split()[1] for line in not_run] == [f"{kernel}:" for kernel in gpu_check.KERNELS]
    path = results.save(report, tmp_path / "out.json", "k-center", "cpu")
    assert gpu_check.missing(path, "k-center")[0].startswith("benchmark k-center, n 4, slow: one run would take")
    assert set(gpu_check.KERNELS) == set(command.KERNELS)
