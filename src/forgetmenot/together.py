"""Writing on ranks that wait for each other: what fails on one of them ends all, with the same sentence."""

import errno
from collections.abc import Callable

import torch


def together(write: Callable[[], object], *, world_size: int) -> None:
    """Calls `write`, which waits for no rank, on every rank; raises OSError on all where it failed on one."""
    failure: OSError | RuntimeError | None = None
    try:
        write()
    except (OSError, RuntimeError) as error:  # torch's writer raises the latter
        failure = error
    sentences = [_sentence(failure)]
    if world_size > 1:
        sentences = [None] * world_size
        torch.distributed.all_gather_object(sentences, _sentence(failure))
    if isinstance(failure, RuntimeError) and not _is_full(failure):
        raise failure  # a bug, whose traceback this rank has
    told = next((sentence for sentence in sentences if sentence is not None), None)
    if told is not None:
        raise OSError(told) from failure


def _sentence(failure: OSError | RuntimeError | None) -> str | None:
    if failure is None:
        return None
    return "the disk must have room for a checkpoint, got none" if _is_full(failure) else str(failure)


def _is_full(error: Exception) -> bool:
    """Tells whether a write failed for lack of room: torch's writer raises a RuntimeError without a number."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or (
        isinstance(error, RuntimeError) and "PytorchStreamWriter" in str(error)
    )
