"""The run folder: result.json on every way out, predictions in file order, and the facts of machine and versions."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_tasks import make_task

from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.rows import EncodedSplit
from forgetmenot.data.types import Example
from forgetmenot.record import folder_bytes, hardware, recording, write_predictions
from forgetmenot.result import RunResult


def _scoring_set(name: str, *, metric: str = "accuracy") -> ScoringSet:
    examples = tuple(Example(prompt=f"größe {i}?\n", completion="gut", references=("gut", "ja")) for i in range(3))
    task = make_task(name, metric=metric)
    return ScoringSet(task=task, examples=examples, rows=_no_rows(), num_bytes=np.ones(3))


def _no_rows() -> EncodedSplit:
    return EncodedSplit.__new__(EncodedSplit)  # predictions are text: rows are never looked at


def test_a_run_that_ends_is_complete_and_knows_when_and_how_long(tmp_path: Path) -> None:
    with recording(tmp_path, RunResult(name="run")):
        pass
    result = RunResult.read(tmp_path)
    assert (result.status, result.error, result.name) == ("complete", None, "run")
    assert result.seconds is not None and result.seconds >= 0
    assert result.started.count(":") >= 2 and "T" in result.started


def test_runs_of_one_second_keep_their_order(tmp_path: Path) -> None:
    started = []
    for number in range(5):
        with recording(tmp_path / str(number), RunResult()) as result:
            time.sleep(0.01)
        started.append(result.started)
    assert started == sorted(set(started)), "each began later than the one before"


def test_a_run_that_fails_says_so_with_the_error_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError), recording(tmp_path, RunResult()) as result:
        result.seed = 3
        raise ValueError("the loss must\n  stay finite")
    written = RunResult.read(tmp_path)
    assert (written.status, written.error) == ("failed", "the loss must stay finite")
    assert (written.seed, written.tasks, written.gain) == (3, None, None)


def test_an_error_without_a_message_is_named_by_its_type(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), recording(tmp_path, RunResult()):
        raise ZeroDivisionError
    assert RunResult.read(tmp_path).error == "ZeroDivisionError"


def test_ctrl_c_is_recorded_as_interrupted_with_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), recording(tmp_path, RunResult()) as result:
        result.model = {"name": "tiny"}
        raise KeyboardInterrupt
    written = RunResult.read(tmp_path)
    assert (written.status, written.error, written.model) == ("interrupted", None, {"name": "tiny"})


def test_no_result_stands_in_the_folder_before_the_run_ends(tmp_path: Path) -> None:
    with recording(tmp_path, RunResult()):
        assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_versions_name_the_packages_that_decide_the_numbers(tmp_path: Path) -> None:
    with recording(tmp_path, RunResult()) as result:
        pass
    assert result.versions is not None
    assert result.versions["torch"] == torch.__version__.split("+")[0] or result.versions["torch"] == torch.__version__
    assert {"forgetmenot", "lightning", "transformers", "peft", "torchmetrics"} <= set(result.versions)


def test_predictions_are_one_line_an_example_in_file_order(tmp_path: Path) -> None:
    data = _scoring_set("greetings")
    write_predictions(tmp_path, [data], before={"greetings": ["a", "b", "c"]}, after={"greetings": ["d", "e", "f"]})
    text = (tmp_path / "predictions" / "greetings.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["before"], line["after"]) for line in lines] == [("a", "d"), ("b", "e"), ("c", "f")]
    assert lines[0] == {"prompt": "größe 0?\n", "references": ["gut", "ja"], "before": "a", "after": "d"}
    assert "ß" in text, "letters stand as they are"


def test_plain_text_has_no_predictions_file(tmp_path: Path) -> None:
    write_predictions(tmp_path, [_scoring_set("text", metric="loss")], before={"text": []}, after={"text": []})
    assert list(tmp_path.iterdir()) == []


def test_the_machine_is_named_with_devices_threads_and_precision() -> None:
    facts = hardware(torch.device("cpu"), devices=2, precision="bf16")
    assert facts == {
        "device": facts["device"],
        "devices": 2,
        "threads": torch.get_num_threads(),
        "precision": "bf16",
    }
    assert isinstance(facts["device"], str) and facts["device"]


def test_the_size_of_a_folder_counts_files_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "one").write_bytes(b"123")
    (tmp_path / "deep" / "two").write_bytes(b"12345")
    assert folder_bytes(tmp_path) == 8


def test_a_folder_with_the_result_of_another_run_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with recording(tmp_path, RunResult(name="first")):
        pass

    with (
        pytest.raises(ValueError, match=r"^hydra\.run\.dir must be a new folder"),
        recording(tmp_path, RunResult(name="second")),
    ):
        pass

    assert RunResult.read(tmp_path).name == "first"


def test_settings_that_lie_in_a_folder_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("of a run that was killed, or of something else")
    refused = pytest.raises(
        ValueError, match=r"^hydra\.run\.dir must be a new folder, got .* with a config\.yaml; resume="
    )
    with refused, recording(tmp_path, RunResult(name="second")):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]
    with recording(tmp_path, RunResult(name="first"), goes_on=True):
        pass


def test_a_folder_that_another_run_still_writes_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    refused = pytest.raises(ValueError, match="a folder that no other process writes")
    with recording(tmp_path, RunResult(name="first")), refused, recording(tmp_path, RunResult(name="second")):
        pass
    assert RunResult.read(tmp_path).name == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"], "the lock leaves nothing behind"
