"""result.json: written whole or not at all, without NaN, and read back as it was."""

import json
import math
from pathlib import Path

import pytest

from forgetmenot.result import FILE_NAME, SCHEMA_VERSION, RunResult


def _full_result() -> RunResult:
    return RunResult(
        status="complete",
        name="run",
        overrides=["method=lora"],
        seed=0,
        started="2026-01-01T00:00:00+00:00",
        seconds=1.5,
        model={"name": "tiny", "architecture": "causal", "parameters": 10},
        method={"name": "lora", "lr": 0.1, "saved_bytes": None},
        tasks={"größe": {"role": "target", "before": {"loss": 2.0}, "after": {"loss": 1.0}}},
        gain={"größe": 1.0},
        forgetting={"tasks": {}, "mean": None},
    )


def _refuse_constant(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


def test_a_result_reads_back_as_it_was_written(tmp_path: Path) -> None:
    result = _full_result()
    result.write(tmp_path)
    assert RunResult.read(tmp_path) == result


def test_a_new_result_says_interrupted_until_it_is_told_otherwise() -> None:
    assert RunResult().status == "interrupted"


def test_what_is_not_known_is_null_and_no_key_is_missing(tmp_path: Path) -> None:
    RunResult().write(tmp_path)
    values = json.loads((tmp_path / FILE_NAME).read_text())
    assert values["schema_version"] == SCHEMA_VERSION == 1
    for key in ("error", "seconds", "model", "hardware", "method", "data", "cost", "tasks", "gain", "forgetting"):
        assert values[key] is None


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_becomes_null_at_any_depth(tmp_path: Path, number: float) -> None:
    RunResult(seconds=number, tasks={"a": {"after": {"loss": number}, "list": [1.0, number], "pair": (number,)}}).write(
        tmp_path
    )
    values = json.loads((tmp_path / FILE_NAME).read_text(), parse_constant=_refuse_constant)
    assert values["seconds"] is None
    assert values["tasks"]["a"] == {"after": {"loss": None}, "list": [1.0, None], "pair": [None]}


def test_a_value_that_is_no_json_leaves_the_old_result(tmp_path: Path) -> None:
    RunResult(name="old").write(tmp_path)
    with pytest.raises(TypeError):
        RunResult(name="new", model={"name": object()}).write(tmp_path)
    assert RunResult.read(tmp_path).name == "old"


@pytest.mark.parametrize("text", ['{"schema_version": 1', "", "[]", '{"schema_version": 2}', "{}"])
def test_a_file_that_is_no_result_of_this_version_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ValueError, match=r"result\.json must be"):
        RunResult.read(tmp_path)


def test_a_result_from_before_the_mean_gain_was_written_has_it_when_it_is_read(tmp_path: Path) -> None:
    older = {
        "schema_version": 1, "tasks": {"mood": {"role": "target", "metric": "accuracy"}}, "gain": {"mood": 0.5},
        "gain_ci": {"mood": [0.4, 0.7]},
    }  # fmt: skip
    (tmp_path / FILE_NAME).write_text(json.dumps(older))
    result = RunResult.read(tmp_path)
    assert (result.gain_mean, result.gain_mean_ci) == (0.5, [0.4, 0.7])


def test_keys_of_a_later_version_that_are_not_known_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"schema_version": 1, "name": "a", "later": 1}')
    assert RunResult.read(tmp_path).name == "a"


def test_a_folder_without_a_result_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RunResult.read(tmp_path)
