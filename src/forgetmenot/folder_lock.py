"""One process writes a run's folder at a time: a lock in it, which the system frees when that process ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

FILE_NAME = ".lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keeps others from writing `folder`, which is made, while the block runs; raises ValueError where one does."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE_NAME
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"hydra.run.dir must be a folder that no other process writes, got {folder}, whose run still goes on; "
            "wait for it or end it"
        ) from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # held: whoever waits finds that it is gone, and makes another
        lock.release()
