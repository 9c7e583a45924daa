"""Keeps a folder of the cache within a bounded place: of its files and folders, those used longest ago go.

What begins with a dot is unfinished. Keeping it up is best effort: what cannot be removed costs a warning, and no run.
"""

import os
import shutil
import time
import warnings
from contextlib import suppress
from pathlib import Path

import psutil

ROOM = 16 * 2**30
"""Bytes of a folder: Fishers or merged weights of four bases of 1 B weights, scores of many thousand evaluations."""

UNFINISHED = "."
_ABANDONED = 24 * 3600  # seconds after which nobody writes an unfinished entry any more
_COARSE = 60  # seconds: some systems tell when a process began in whole ones, and file servers have their own clock


def mark_used(entry: Path) -> None:
    """Notes that `entry` is used now; files in a folder keep their times, which tell a base's weights from others."""
    with suppress(OSError):  # not there yet, or the cache is another's, to be read alone
        os.utime(entry)


def run_began() -> float:
    """Returns when this run began, in seconds since the epoch: a rank's with the process that started the ranks."""
    own = psutil.Process()
    first = own.parent() if "LOCAL_RANK" in os.environ else None
    return float((first or own).create_time()) - _COARSE


def make_room(folder: Path, *, newest: Path, in_use_since: float | None = None) -> None:
    """Removes what was used longest ago until the rest takes at most 16 GiB, and what a killed run left unfinished.

    The newest stays, however large, and so does all that was used since `in_use_since`.
    """
    used = _times(folder)
    taken = 0
    for entry in sorted(used, key=lambda entry: (entry != newest, -used[entry])):
        if entry.name.startswith(UNFINISHED):
            if time.time() - used[entry] > _ABANDONED:
                _remove(entry)
            continue
        taken += _size(entry)
        needed = entry == newest or (in_use_since is not None and used[entry] >= in_use_since)
        if taken > ROOM and not needed:
            _remove(entry)


def _times(folder: Path) -> dict[Path, float]:
    """Returns when each entry was last used."""
    times = {}
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):  # another run makes room, too
            times[entry] = entry.stat().st_mtime
    return times


def _size(entry: Path) -> int:
    """Returns the bytes of a file, or of all files of a folder."""
    size = 0
    for file in [entry] if entry.is_file() else entry.rglob("*"):
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def _remove(entry: Path) -> None:
    """Removes an entry; a folder is first put out of the way, so that no reader ever finds half of it."""
    try:
        if entry.is_dir():
            hidden = entry.with_name(f"{UNFINISHED}{entry.name.lstrip(UNFINISHED)}.removed_by_{os.getpid()}")
            shutil.rmtree(entry.rename(hidden))
        else:
            entry.unlink()
    except FileNotFoundError:
        pass  # another run makes room, too
    except OSError as error:
        warnings.warn(f"{entry} was to make room for others and cannot be removed ({error})", stacklevel=3)
