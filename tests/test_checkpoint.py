"""Checkpoints on disk: whole or not there, and what is damaged is noticed."""

import hashlib
import json
import shutil
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
    remove_newer,
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


def test_a_checkpoint_under_another_ones_name_is_left_out(tmp_path: Path) -> None:
    folder = keep(tmp_path, 6)
    shutil.copytree(folder, tmp_path / "step-00000009")
    newest, (told,) = newest_whole(tmp_path)
    assert newest is not None and newest.folder == folder
    assert told.endswith("step-00000009 must hold the checkpoint that it is named by, and has that of step 6")


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


def test_a_file_by_a_checkpoints_name_is_damaged_and_makes_room(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "step-00000007").symlink_to(elsewhere)
    (tmp_path / "step-00000009").write_bytes(b"no folder")
    (tmp_path / ".partial-00000010").write_bytes(b"no folder")

    newest, told = newest_whole(tmp_path)
    assert newest is not None and newest.step == 1 and len(told) == 2
    remove_newer(tmp_path, than=1)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "step-00000001"]


def test_a_checkpoint_takes_the_place_of_a_file_by_its_name(tmp_path: Path) -> None:
    for name in ("step-00000000", "step-00000001", "step-00000009", ".partial-00000009"):
        (tmp_path / name).write_bytes(b"no folder")
    newest = read(keep(tmp_path, 9))
    assert newest.step == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000009"], "two are kept"
    remove_all(tmp_path)
    assert not tmp_path.exists()


def test_only_plain_digits_number_a_checkpoint(tmp_path: Path) -> None:
    for name in ("step-\u0663", "step-1x", "step-"):
        (tmp_path / name).mkdir()
    assert not any_kept(tmp_path)
