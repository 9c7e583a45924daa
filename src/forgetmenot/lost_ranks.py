"""A rank that ends before its time, as by kill -9 or a lack of memory: the others tell which, and how to go on.

Lightning would kill the process that started the ranks within seconds, without a word. A rank that was asked to end,
as by Ctrl-C, is not lost: the run was interrupted.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from forgetmenot.checkpoint import newest_step
from forgetmenot.signals import held_back, signal_asked_by

_PATIENCE = 30.0  # seconds that a process has to end by itself, once it can know that a rank is gone
_NOTICED = 2.0  # seconds until a process that broke a connection counts as ended, and one that is asked has heard it
_TERMINATE_ALL = _ChildProcessObserver._terminate_all
_START_RANKS = _SubprocessScriptLauncher._call_children_scripts
_BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")


@contextmanager
def lost_ranks_told(
    way_on: Callable[[], str], *, interrupted: Callable[[], None], heard: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Raises ChildProcessError or ConnectionError where another rank's end has broken what the block waits for.

    `way_on` says how to go on from there. So that the process that started the ranks can tell, Lightning waits before
    it kills it: within the block, and after an error until the process ends.

    Where a rank was asked to end it is KeyboardInterrupt. A process that cannot raise it, since it waits outside of
    Python for ranks that will never come, is ended after `interrupted` has recorded it; one that has `heard` of the
    signal has its time to save. The ranks that start within the block answer once they can.
    """
    left = threading.Event()
    terminate = _after_a_while(way_on, interrupted=interrupted, heard=heard, left=left)
    _ChildProcessObserver._terminate_all = terminate  # type: ignore[assignment]  # a method for ours
    _SubprocessScriptLauncher._call_children_scripts = held_back()(_START_RANKS)  # type: ignore[method-assign]
    try:
        yield
    except RuntimeError as error:  # torch's, of whatever backend
        broken = any(words in str(error) for words in _BROKEN)
        ended = _ended_early(patience=_NOTICED, killed_alone=not broken)
        if broken and (asked := _asked(ended)) is not None:
            raise KeyboardInterrupt(asked) from error
        if (sentence := _lost(ended)) is not None:
            raise ChildProcessError(f"{sentence}; {way_on()}") from error
        if broken:
            raise ConnectionError(f"another rank has ended, on which this one waited; {way_on()}") from error
        raise
    else:
        _ChildProcessObserver._terminate_all = _TERMINATE_ALL  # type: ignore[method-assign]  # Lightning's own again
    finally:
        _SubprocessScriptLauncher._call_children_scripts = _START_RANKS  # type: ignore[method-assign]
        left.set()


def resuming(checkpoints: Path, *, setting: str) -> str:
    """Returns how a run goes on, with that setting, that keeps its state in `checkpoints`."""
    step = newest_step(checkpoints)
    where = "begins anew, since no checkpoint was kept" if step is None else f"goes on from step {step}"
    return f"{setting} {where}"


def _children() -> list[subprocess.Popen[bytes]]:
    """Returns the ranks that this process has started, whichever Trainer it was."""
    observers = [thread for thread in threading.enumerate() if isinstance(thread, _ChildProcessObserver)]
    return [child for each in observers for child in each._child_processes]


def _after_a_while(
    way_on: Callable[[], str], *, interrupted: Callable[[], None], heard: Callable[[], bool], left: threading.Event
) -> Callable[[_ChildProcessObserver], None]:
    def terminate(observer: _ChildProcessObserver) -> None:
        until = time.monotonic() + _PATIENCE
        if (asked := _asked(_ended_early(patience=0.0))) is not None:
            left.wait(_NOTICED)
            if not (heard() or left.is_set()):
                _end_interrupted(asked, interrupted)
        time.sleep(max(0.0, until - time.monotonic()))
        if asked is not None:
            _end_interrupted(asked, lambda: None if left.is_set() else interrupted())
        print(f"error: {_lost(_ended_early(patience=0.0))}; {way_on()}", file=sys.stderr, flush=True)
        _TERMINATE_ALL(observer)

    return terminate


def _end_interrupted(asked: int, interrupted: Callable[[], None]) -> None:
    """Ends this process and the ranks that it started, since the main thread cannot."""
    interrupted()
    print("interrupted", file=sys.stderr)
    for child in _children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(128 + asked)


def _ended_early(*, patience: float, killed_alone: bool = False) -> list[tuple[int, int]]:
    """Returns which ranks that this process started have ended early, by their exit codes; waits so long for the first.

    With `killed_alone`, which a signal has ended: one that ended by itself may have met this process's own error.
    """
    until = time.monotonic() + patience
    children = _children()
    while True:
        codes = [(rank, child.poll() or 0) for rank, child in enumerate(children, 1)]
        ended = [(rank, code) for rank, code in codes if code < 0 or (code > 0 and not killed_alone)]
        if ended or not children or time.monotonic() >= until:
            return ended
        time.sleep(0.05)


def _asked(ended: Sequence[tuple[int, int]]) -> int | None:
    """Returns by which signal a rank was asked to end; None where none was."""
    return next((asked for _, code in ended if (asked := signal_asked_by(code)) is not None), None)


def _lost(ended: Sequence[tuple[int, int]]) -> str | None:
    """Returns which rank was lost, and how; None where none was."""
    for rank, code in ended:
        if signal_asked_by(code) is None:
            how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
            return f"rank {rank} was ended by {how}"
    return None
