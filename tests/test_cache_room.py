"""A folder of the cache stays within its room: what was used longest ago goes, and nothing that is in use."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from forgetmenot import cache_room
from forgetmenot.cache_room import make_room, mark_used, run_began


def entry(folder: Path, name: str, *, used: float) -> Path:
    """Writes a folder with 100 bytes in it, two levels deep, that was last used at `used`."""
    place = folder / name
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "file").write_bytes(b"0" * 60)
    (place / "file").write_bytes(b"0" * 40)
    os.utime(place, (used, used))
    return place


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_room, "ROOM", 5000)
    monkeypatch.setattr(cache_room, "_size", lambda entry: 2500)


def test_folders_used_longest_ago_go_whole(tmp_path: Path) -> None:
    for age, name in enumerate("abc"):
        newest = entry(tmp_path, name, used=1000 + age)
    mark_used(tmp_path / "a")
    make_room(tmp_path, newest=newest)
    assert left(tmp_path) == {"a", "c"}


def test_what_this_run_used_stays_whatever_it_takes(tmp_path: Path) -> None:
    now = time.time()
    for age, name in enumerate("abcd"):
        entry(tmp_path, name, used=now - age)
    entry(tmp_path, "older", used=1000)
    make_room(tmp_path, newest=tmp_path / "a", in_use_since=run_began())
    assert left(tmp_path) == set("abcd")


def test_a_folder_is_as_large_as_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 100 <= cache_room._size(entry(tmp_path, "a", used=1000)) < 100 + 2**14  # a folder's own entry counts, too


def test_an_unfinished_folder_goes_a_day_later_and_takes_no_room(tmp_path: Path) -> None:
    entry(tmp_path, ".old", used=1000)
    entry(tmp_path, ".being_written", used=time.time() - 60)
    for name in "ab":
        newest = entry(tmp_path, name, used=2000)
    make_room(tmp_path, newest=newest)
    assert left(tmp_path) == {".being_written", "a", "b"}


def test_using_a_folder_leaves_the_times_of_its_files(tmp_path: Path) -> None:
    place = entry(tmp_path, "a", used=1000)
    os.utime(place / "file", (1000, 1000))
    mark_used(place)
    assert place.stat().st_mtime > 1000 == (place / "file").stat().st_mtime
    mark_used(tmp_path / "not there")


def test_what_cannot_be_removed_costs_a_warning_and_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, name in enumerate("abc"):
        newest = entry(tmp_path, name, used=1000 + age)

    def refuse(place: Path, target: Path) -> Path:
        raise PermissionError("it is another's")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.warns(UserWarning, match=r"a was to make room for others and cannot be removed \(it is another's\)"):
        make_room(tmp_path, newest=newest)


def test_a_run_begins_with_its_process_and_a_rank_with_the_process_that_started_it() -> None:
    began = psutil.Process().create_time() - 60
    assert run_began() == began
    ask = [sys.executable, "-c", "from forgetmenot.cache_room import run_began; print(run_began())"]
    told = subprocess.run(ask, env={**os.environ, "LOCAL_RANK": "1"}, capture_output=True, text=True, check=True)
    assert float(told.stdout) == pytest.approx(began, abs=0.01)
