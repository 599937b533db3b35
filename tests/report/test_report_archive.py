"""Results as a small file: what is kept, what comes back, and what is refused."""

from __future__ import annotations

import json
import math

import pytest

from poolwright import Result, StoreError
from poolwright.report import merge, read_json, summarize, write_html, write_json
from poolwright.report.html import render
from poolwright.state import InitialPool


@pytest.fixture
def result(run, info):
    runs = [run(label, seed, [0.5, 0.6, 0.7 + seed / 30]) for label in ("random", "margin") for seed in range(3)]
    runs.append(run("margin", 3, [0.5], logs={"m.update.loss": [1.0, 2.0, 6.0]}, complete=False, error="out of luck"))
    pools = [InitialPool(seed, [4, 5, 6], seconds={"select": 0.25}, logs={"r.loss": [1.0, 3.0]}) for seed in range(4)]
    config = info["config"] | {"dataset": {"name": "files", "root": "/home/somebody/pictures", "also": "a/b"}}
    return Result(runs, info | {"config": config, "initial_pools": [pool.as_dict() for pool in pools]})


def test_what_comes_back_has_the_figures_of_what_was_written(result, tmp_path):
    back = read_json(write_json(result, tmp_path / "new" / "sweep.json"))
    assert [one.label for one in summarize(back)] == ["random", "margin"]
    for mine, theirs in zip(summarize(back), summarize(result), strict=True):
        assert mine.aubc.mean == pytest.approx(theirs.aubc.mean, abs=1e-6)
        assert mine.aubc.half_width == pytest.approx(theirs.aubc.half_width, abs=1e-5)
        assert mine.query_seconds == pytest.approx(theirs.query_seconds)
        assert mine.errors == theirs.errors
    assert back.info["machine"] == result.info["machine"]
    assert [one.seconds for one in back.initial] == [{"select": 0.25}] * 4
    assert "out of luck" in render(back)
    assert write_html(back, tmp_path / "page.html").exists()


def test_ids_are_left_out_and_logs_are_means(result, tmp_path):
    back = read_json(write_json(result, tmp_path / "sweep.json"))
    assert [len(record.selected) for record in back.runs[0].records] == [1, 1, 0]
    assert {i for record in back.runs[0].records for i in record.selected} == {-1}
    assert back.runs[-1].records[0].logs == {"m.update.loss": [3.0]}
    assert back.initial[0].logs == {"r.loss": [2.0]}
    assert back.initial[0].selected == [-1, -1, -1]
    assert "position" not in (tmp_path / "sweep.json").read_text()


def test_folders_of_absolute_paths_are_left_out(result, tmp_path):
    path = write_json(result, tmp_path / "sweep.json")
    assert read_json(path).info["config"]["dataset"] == {"name": "files", "root": "pictures", "also": "a/b"}
    assert "somebody" not in path.read_text()
    assert result.info["config"]["dataset"]["root"] == "/home/somebody/pictures"


def test_the_same_result_gives_the_same_bytes_and_numbers_of_six_digits(result, run, tmp_path):
    first, second = (write_json(result, tmp_path / name).read_bytes() for name in ("a.json", "b.json"))
    assert first == second
    assert write_json(read_json(tmp_path / "a.json"), tmp_path / "c.json").read_bytes() == first
    odd = Result([run("random", 0, [1 / 3, math.nan])], result.info)
    back = read_json(write_json(odd, tmp_path / "odd.json"))
    values = back.runs[0].curve()[1]
    assert values[0] == 0.333333
    assert math.isnan(values[1])
    assert "NaN" not in (tmp_path / "odd.json").read_text()


def test_files_are_reported_on_together_by_their_names(result, tmp_path):
    files = [write_json(result, tmp_path / name) for name in ("one.json", "two.json")]
    assert merge([read_json(file) for file in files]).strategies[:2] == ["random [one]", "margin [one]"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "damaged: JSONDecodeError"),
        ("[]", "damaged: TypeError"),
        ('{"format": 2}', "its format is 2, not 1"),
        ('{"format": 1, "info": {}}', "damaged: KeyError: 'runs'"),
        ('{"format": 1, "info": {}, "runs": [{"strategy": "random", "cycles": [{}]}]}', "damaged: KeyError"),
    ],
)
def test_a_file_that_is_none_or_damaged_is_named(content, reason, tmp_path):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(StoreError, match=reason) as caught:
        read_json(tmp_path / "a.json")
    assert str(tmp_path / "a.json") in str(caught.value)
    with pytest.raises(StoreError, match=r"there is no result .*none\.json: give a file"):
        read_json(tmp_path / "none.json")


def test_a_place_that_cannot_be_written_is_named(result, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Choose another place with --json"):
        write_json(result, tmp_path / "file" / "a.json")


def test_every_number_of_a_file_is_plain_json(result, tmp_path):
    content = json.loads(write_json(result, tmp_path / "a.json").read_text())
    assert content["runs"][0]["cycles"][0]["test"]["accuracy"] == 0.5
    assert len(content["runs"]) == 7


@pytest.mark.parametrize(
    "content", ['{"format": 1, "info": [], "runs": []}', '{"format": 1, "info": {}, "runs": ["x"]}']
)
def test_json_of_another_shape_is_named_as_damaged(tmp_path, content):
    (tmp_path / "made.json").write_text(content)
    with pytest.raises(StoreError, match=r"made.json is no result .* or it is damaged"):
        read_json(tmp_path / "made.json")
