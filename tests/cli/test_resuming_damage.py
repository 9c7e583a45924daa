"""What was damaged or changed in or beside a run's folder is told in a sentence, or does no harm."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from ended_runs import LORA, STEPS, assert_same, killed
from tiny_runs import Finished, Train, finish, read_result

from forgetmenot.checkpoint import read


@pytest.fixture
def failed(train: Train, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """A run that ended in its eighth step, with checkpoints of steps 3 and 6."""
    return killed(train, monkeypatch)


@pytest.mark.parametrize("damaged", [b"", b"seed: {0", b"seed: \x01", b"- seed", b"seed: \xff", b"name: mine\n"])
def test_settings_that_are_not_whole_are_told_of_by_their_file(failed: Finished, damaged: bytes) -> None:
    (failed.folder / "config.yaml").write_bytes(damaged)
    refused = finish([f"resume={failed.folder}"], failed.place)
    assert refused.code == 1
    assert refused.sentence.startswith(f"error: {failed.folder}/config.yaml must hold a run's settings, got ")
    assert refused.sentence.endswith("; put it back, or start a new run")


def test_settings_that_were_changed_by_hand_are_refused_with_both_values(failed: Finished) -> None:
    file = failed.folder / "config.yaml"
    text = file.read_text()
    assert "dropout: 0.2" in text
    file.write_text(text.replace("dropout: 0.2", "dropout: 0.3"))
    refused = finish([f"resume={failed.folder}"], failed.place)
    assert refused.code == 1
    assert refused.sentence == "error: method.dropout must be 0.2, as at its last checkpoint, got 0.3"


@pytest.mark.parametrize(
    "damaged", [b'{"schema_version": 1, "tas', b"\xff", b'{"schema_version": 1, "tasks": 5, "gain": 3}']
)
def test_a_damaged_record_holds_up_no_run_that_has_checkpoints(train: Train, failed: Finished, damaged: bytes) -> None:
    (failed.folder / "result.json").write_bytes(damaged)
    done = finish([f"resume={failed.folder}"], failed.place)
    assert done.code == 0, done.stderr
    assert "The run goes on after step 6." in done.stdout
    assert_same(failed.folder, train(*LORA, *STEPS).folders[-1])


def test_a_damaged_record_of_what_may_be_complete_is_left_to_its_user(failed: Finished) -> None:
    (failed.folder / "result.json").write_bytes(b"\xff")
    shutil.rmtree(failed.folder / "checkpoints")
    refused = finish([f"resume={failed.folder}"], failed.place)
    assert refused.code == 1
    assert refused.sentence.startswith(f"error: {failed.folder}/result.json must be JSON, got ")


@pytest.mark.parametrize("torn", ["its open line", "before its open line", "a longer line"])
def test_the_line_that_was_open_at_the_checkpoint_may_be_torn_or_longer_by_now(
    train: Train, failed: Finished, torn: str
) -> None:
    file = failed.folder / "metrics.jsonl"
    facts = read(failed.folder / "checkpoints" / "step-00000006").facts
    size, line = int(str(facts["metrics_bytes"])), str(facts["metrics_line"])
    before = file.read_bytes()[:size]
    assert json.loads(line)["step"] == 5 and before.endswith(b"\n")
    file.write_bytes(
        before
        + {
            "its open line": line[:9],
            "before its open line": "",
            "a longer line": line.replace("}", ', "val/mood/loss": 1.0}'),
        }[torn].encode()
    )
    done = finish([f"resume={failed.folder}"], failed.place)
    assert done.code == 0, done.stderr
    assert_same(failed.folder, train(*LORA, *STEPS).folders[-1])


def test_a_record_that_was_changed_before_the_checkpoint_is_told_of_and_kept(failed: Finished) -> None:
    file = failed.folder / "metrics.jsonl"
    first, *others = file.read_bytes().splitlines(keepends=True)
    changed = first.replace(b'"step": 0', b'"step": 9')
    assert changed != first
    file.write_bytes(changed + b"".join(others))
    done = finish([f"resume={failed.folder}"], failed.place)
    assert done.code == 0, done.stderr
    assert f"{file} was changed since step 6" in " ".join(done.stdout.split())
    assert file.read_bytes().startswith(changed)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "chat_template.jinja", "merges.txt"])
@pytest.mark.parametrize("role", ["model.path", "regularizer.kl.reference"])
def test_a_model_that_has_changed_under_the_same_path_is_noticed(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path, role: str, file: str
) -> None:
    own = shutil.copytree(tiny_model, tmp_path / "own")
    words: Sequence[str] = ("regularizer=kl",) if role.startswith("regularizer") else ()
    failed = killed(train, monkeypatch, *words, f"{role}={own}")
    with (own / file).open("ab") as stream:
        stream.write(b" ")
    refused = finish([f"resume={failed.folder}"], failed.place)
    assert refused.code == 1
    assert refused.sentence.startswith(f"error: {role} must hold what it held when the run began"), refused.sentence
    assert read_result(failed.folder)["status"] == "failed"


def test_what_is_told_to_people_beside_a_model_may_change(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    own = shutil.copytree(tiny_model, tmp_path / "own")
    failed = killed(train, monkeypatch, f"model.path={own}")
    (own / "README.md").write_text("A tiny model.")
    assert finish([f"resume={failed.folder}"], failed.place).code == 0
