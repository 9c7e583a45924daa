"""Files and folders are there whole or not at all."""

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from forgetmenot.durable import whole_folder, write_whole


def test_writing_leaves_no_other_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "deep" / "file", "one")
    write_whole(tmp_path / "deep" / "file", "two")
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["file"]
    assert (tmp_path / "deep" / "file").read_text() == "two"


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    write_whole(tmp_path / "file", "old")
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path / "file", "new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_ctrl_c_in_the_middle_of_a_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    write_whole(tmp_path / "file", "old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", "new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_has_its_name_once_it_is_whole_and_may_have_been_there_empty(tmp_path: Path) -> None:
    for name in ("new", "empty"):
        folder = tmp_path / name
        if name == "empty":
            folder.mkdir()
        with whole_folder(folder) as beside:
            (beside / "part").write_text("one")
            assert not folder.exists() or not any(folder.iterdir())
        assert (folder / "part").read_text() == "one" and folder.stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new"]


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (SafetensorError("Error while serializing: unheard of"), errno.EIO),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errno.EDQUOT),
    ],
)
def test_a_folder_that_cannot_be_written_is_told_of_as_the_disks_and_not_left(
    tmp_path: Path, error: Exception, number: int
) -> None:
    with pytest.raises(OSError) as raised, whole_folder(tmp_path / "deep" / "folder") as beside:
        (beside / "part").write_text("one")
        raise error
    assert raised.value.errno == number
    assert list((tmp_path / "deep").iterdir()) == []
