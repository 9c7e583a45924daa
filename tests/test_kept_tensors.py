"""Tensors are made once for the same facts, and anew for others or where the file is damaged."""

import os
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from forgetmenot import cache_room, kept_tensors
from forgetmenot.kept_tensors import Tensors, made_once


def make() -> Tensors:
    return {"a.weight": torch.arange(6.0).reshape(2, 3).T, "b": torch.rand(4)}


def refuse() -> Tensors:
    raise AssertionError("it lies on the disk")


def test_what_was_made_is_found_again_to_the_last_digit(tmp_path: Path) -> None:
    made, reused = made_once(tmp_path / "fisher", {"seed": 1, "source": "samples"}, make=make)
    found, found_reused = made_once(tmp_path / "fisher", {"source": "samples", "seed": 1}, make=refuse)

    assert (reused, found_reused) == (False, True)
    torch.testing.assert_close(found, made, rtol=0, atol=0)


def test_other_facts_are_other_tensors(tmp_path: Path) -> None:
    made_once(tmp_path, {"seed": 1}, make=make)

    assert made_once(tmp_path, {"seed": 2}, make=make)[1] is False


@pytest.mark.parametrize("keep", [0, 20])
def test_a_damaged_file_is_made_anew(tmp_path: Path, keep: int) -> None:
    made_once(tmp_path, {"seed": 1}, make=make)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:keep])

    assert made_once(tmp_path, {"seed": 1}, make=make)[1] is False
    assert made_once(tmp_path, {"seed": 1}, make=refuse)[1] is True


def test_nothing_unfinished_is_left_behind(tmp_path: Path) -> None:
    made_once(tmp_path, {"seed": 1}, make=make)

    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("error", [OSError("No space left on device"), SafetensorError("No space left on device")])
def test_a_full_disk_is_a_warning_and_what_was_made_serves_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def half(tensors: Tensors, file: Path) -> None:
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(kept_tensors, "save_file", half)
    with pytest.warns(UserWarning, match="cannot be kept in .*No space left"):
        made, reused = made_once(tmp_path, {"seed": 1}, make=make)
    assert made.keys() == make().keys() and not reused
    assert list(tmp_path.iterdir()) == []


def test_where_room_ends_what_was_used_longest_ago_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2):
        made_once(tmp_path, {"seed": seed}, make=make)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    monkeypatch.setattr(cache_room, "ROOM", size)
    for age, file in enumerate(tmp_path.iterdir()):
        os.utime(file, (1000 + age, 1000 + age))
    made_once(tmp_path, {"seed": 1}, make=refuse)  # used now, so the other one goes

    made_once(tmp_path, {"seed": 3}, make=make)

    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= size
    assert [made_once(tmp_path, {"seed": seed}, make=make)[1] for seed in (1, 3, 2)] == [True, True, False]


def test_the_newest_stays_however_large_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_room, "ROOM", 1)
    for seed in (1, 2):
        made_once(tmp_path, {"seed": seed}, make=make)
    assert made_once(tmp_path, {"seed": 2}, make=refuse)[1] is True
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_run_left_unfinished_is_removed_a_day_later(tmp_path: Path) -> None:
    for name, age in ((".old.safetensors.x", 2 * 24 * 3600), (".new.safetensors.y", 60)):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    made_once(tmp_path, {"seed": 1}, make=make)
    assert {file.name for file in tmp_path.iterdir() if file.name.startswith(".")} == {".new.safetensors.y"}


def test_a_folder_that_cannot_be_written_costs_a_warning_and_no_run(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")

    with pytest.warns(UserWarning, match="fisher cannot be kept in .*, so each run makes it anew"):
        tensors, reused = made_once(tmp_path / "taken" / "fisher", {}, make=make)

    assert tensors.keys() == make().keys() and not reused
