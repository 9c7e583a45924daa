"""The signals that ask a run to end: training saves first, and the exit code says which one came.

SIGINT is Ctrl-C, SIGTERM what a cluster sends before it takes a node away, SIGUSR1 what a job may ask it to send
earlier. A second one ends the run at once.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StoppedError(Exception):
    """A run was asked to end, and has saved; Lightning would answer KeyboardInterrupt with an exit of its own."""


@dataclass(kw_only=True)
class Ending:
    """Which signal has asked the run to end, and whether it `waits` for the end of a step first."""

    signal: int | None = None
    waits: bool = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Answers a signal: raises KeyboardInterrupt with it, unless the run is to save first."""
        again, self.signal = self.signal is not None, number
        if not self.waits or again:
            raise KeyboardInterrupt(number)
        if is_first_rank():
            with suppress(RuntimeError):  # a signal that comes amid a write to the same stream is only obeyed
                print("saving after this step, then ending; once more ends at once", file=sys.stderr, flush=True)


@contextmanager
def ending_on_signals() -> Iterator[Ending]:
    """Lets the signals that ask a run to end raise KeyboardInterrupt with their number, while the block runs.

    A process that was started to ignore one, as a shell's in the background ignores Ctrl-C, goes on doing so.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield Ending()
        return
    before = {number: signal.getsignal(number) for number in _ASKING}
    ending = Ending()
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, ending.handle)
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Lets a process that the block starts be asked to end from its first moment on, and `answer` once it can.

    Python that is asked while it starts, or imports, tells where it was and ends as after an error.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def answer() -> None:
    """Lets the signals come that this process was started with `held_back`, those of before at once."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKING)


def exit_code(error: KeyboardInterrupt) -> int:
    """Returns 128 and the signal's number, as shells tell of it; Ctrl-C's is 130."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else signal.SIGINT
    return 128 + int(number)


def signal_asked_by(code: int) -> int | None:
    """Returns which signal has asked a process to end that ended so, by itself or by the signal; None where none did.

    `code` is Popen's: below 0 where a signal ended it, as one that comes before Python answers signals.
    """
    return next((number for number in _ASKING if code in (128 + number, -number)), None)


def is_first_rank() -> bool:
    """Tells whether this process is the first rank or the only one: it tells of what asks all of them to end."""
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)
