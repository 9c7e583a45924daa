"""Tensors are made once for the same facts, and anew for others or where the file is damaged."""

from pathlib import Path

import pytest
import torch

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


def test_a_folder_that_cannot_be_written_costs_a_warning_and_no_run(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")

    with pytest.warns(UserWarning, match="fisher cannot be kept in .*, so each run makes it anew"):
        tensors, reused = made_once(tmp_path / "taken" / "fisher", {}, make=make)

    assert tensors.keys() == make().keys() and not reused
