"""A rank that ends before its time, as by kill -9 or a lack of memory: the others tell which, and how to go on.

Lightning would kill the process that started the ranks within seconds, without a word.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver

from forgetmenot.checkpoint import newest_step

_PATIENCE = 30.0  # seconds that a process has to end by itself, once it can know that a rank is gone
_NOTICED = 2.0  # seconds until a process that broke a connection counts as ended
_TERMINATE_ALL = _ChildProcessObserver._terminate_all
_BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")


@contextmanager
def lost_ranks_told(way_on: Callable[[], str]) -> Iterator[None]:
    """Raises ChildProcessError or ConnectionError where another rank's end has broken what the block waits for.

    `way_on` says how to go on from there. So that the process that started the ranks can tell, Lightning waits before
    it kills it: within the block, and after an error until the process ends.
    """
    _ChildProcessObserver._terminate_all = _after_a_while(way_on)  # type: ignore[assignment]  # a method for ours
    try:
        yield
    except RuntimeError as error:  # torch's, of whatever backend
        broken = any(words in str(error) for words in _BROKEN)
        if (sentence := _lost(patience=_NOTICED, killed_alone=not broken)) is not None:
            raise ChildProcessError(f"{sentence}; {way_on()}") from error
        if broken:
            raise ConnectionError(f"another rank has ended, on which this one waited; {way_on()}") from error
        raise
    else:
        _ChildProcessObserver._terminate_all = _TERMINATE_ALL  # type: ignore[method-assign]  # Lightning's own again


def resuming(checkpoints: Path) -> str:
    """Returns how a run goes on that keeps its state in `checkpoints`."""
    step = newest_step(checkpoints)
    where = "begins anew, since no checkpoint was kept" if step is None else f"goes on from step {step}"
    return f"resume={checkpoints.parent} {where}"


def _observers() -> list[_ChildProcessObserver]:
    """Returns what watches the ranks that this process has started, whichever Trainer it was."""
    return [thread for thread in threading.enumerate() if isinstance(thread, _ChildProcessObserver)]


def _after_a_while(way_on: Callable[[], str]) -> Callable[[_ChildProcessObserver], None]:
    def terminate(observer: _ChildProcessObserver) -> None:
        time.sleep(_PATIENCE)
        print(f"error: {_lost(patience=0.0)}; {way_on()}", file=sys.stderr, flush=True)
        _TERMINATE_ALL(observer)

    return terminate


def _lost(*, patience: float, killed_alone: bool = False) -> str | None:
    """Returns which rank that this process started has ended early, None where none has within `patience` seconds.

    With `killed_alone`, which a signal has ended: one that ended by itself may have met this process's own error.
    """
    until = time.monotonic() + patience
    children: list[subprocess.Popen[bytes]] = [child for each in _observers() for child in each._child_processes]
    while children:
        for rank, child in enumerate(children, 1):
            code = child.poll() or 0
            if code < 0 or (code > 0 and not killed_alone):
                how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
                return f"rank {rank} was ended by {how}"
        if time.monotonic() >= until:
            break
        time.sleep(0.05)
    return None
