"""Checkpoints on disk: whole or not there, and what is damaged is noticed."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from forgetmenot.checkpoint import (
    STATE,
    DamagedError,
    any_kept,
    begin,
    newest_whole,
    partial_folder,
    read,
    remove_all,
    seal,
)


def keep(folder: Path, step: int, *, state: bytes = b"weights") -> Path:
    partial = partial_folder(folder, step)
    begin(partial)
    (partial / STATE).write_bytes(state)
    return seal(partial, step=step, facts={"seconds": 1.5, "told": [step]}).folder


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def test_a_sealed_checkpoint_is_read_with_its_step_and_facts(tmp_path: Path) -> None:
    folder = keep(tmp_path, 7)
    checkpoint = read(folder)
    assert (checkpoint.step, checkpoint.facts) == (7, {"seconds": 1.5, "told": [7]})
    assert checkpoint.state.read_bytes() == b"weights"
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000007"]


def test_the_last_two_are_kept_and_the_newest_is_taken(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        keep(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    newest, damaged = newest_whole(tmp_path)
    assert newest is not None and newest.step == 100 and damaged == ()


@pytest.mark.parametrize("harm", [flip, cut_short, Path.unlink])
@pytest.mark.parametrize("name", [STATE, "manifest.json"])
def test_a_damaged_one_is_told_of_and_the_one_before_is_taken(
    tmp_path: Path, harm: Callable[[Path], None], name: str
) -> None:
    keep(tmp_path, 1)
    harm(keep(tmp_path, 2) / name)
    newest, (told,) = newest_whole(tmp_path)
    assert newest is not None and newest.step == 1
    assert name in told and "step-00000002" in told


@pytest.mark.parametrize(
    "told",
    [
        {"files": []},
        {"files": {}},
        {"files": {"other": {}}},
        {"step": None},
        {"step": "2"},
        {"facts": None},
        {"facts": []},
        {"facts": {}},
        {"facts": {"seconds": "1.5"}},
    ],
)
def test_a_manifest_of_another_shape_is_damaged_whatever_its_sum(tmp_path: Path, told: dict[str, object]) -> None:
    keep(tmp_path, 1)
    file = keep(tmp_path, 2) / "manifest.json"
    manifest = {**json.loads(file.read_text()), **told}
    del manifest["sha256"]
    manifest = {name: value for name, value in manifest.items() if value is not None}
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps({**manifest, "sha256": digest}))
    newest, (sentence,) = newest_whole(tmp_path, facts={"seconds": float})
    assert newest is not None and newest.step == 1
    assert sentence.startswith(f"{file} must tell ")


def test_facts_that_were_changed_are_noticed(tmp_path: Path) -> None:
    manifest = keep(tmp_path, 3) / "manifest.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**told, "step": 4}))
    with pytest.raises(DamagedError, match="is not what was written"):
        read(manifest.parent)


def test_what_was_not_sealed_is_no_checkpoint_and_is_written_anew(tmp_path: Path) -> None:
    left = partial_folder(tmp_path, 5)
    begin(left)
    assert not any_kept(tmp_path)
    (left / "half").write_bytes(b"wei")
    assert newest_whole(tmp_path) == (None, ())
    assert [file.name for file in keep(tmp_path, 5).iterdir() if file.name == "half"] == []


def test_a_step_that_is_kept_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    keep(tmp_path, 5, state=b"first")
    keep(tmp_path, 5, state=b"again")
    newest, _ = newest_whole(tmp_path)
    assert newest is not None and newest.state.read_bytes() == b"again"


def test_a_run_that_is_complete_keeps_its_best_weights_alone(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    keep(checkpoints, 1)
    begin(partial_folder(checkpoints, 2))
    assert any_kept(checkpoints)
    (checkpoints / "best.ckpt").write_bytes(b"best")
    remove_all(checkpoints)
    assert [file.name for file in checkpoints.iterdir()] == ["best.ckpt"]
    (checkpoints / "best.ckpt").unlink()
    remove_all(checkpoints)
    assert not checkpoints.exists()
    remove_all(checkpoints)
