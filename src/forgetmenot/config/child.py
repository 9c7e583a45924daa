"""A command of ours in a process of its own: it leaves no memory to the next one, and can start ranks.

It leads a process group of its own, so that Ctrl-C in the terminal reaches it once: from here, with all of its ranks.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

from forgetmenot.signals import held_back

PROGRAM = (sys.executable, "-m", "forgetmenot.cli.main")

_OF_RANKS = frozenset(
    "LOCAL_RANK NODE_RANK RANK GROUP_RANK ROLE_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT".split()
)
"""What makes a process a rank of another one's."""

_OF_ONE_RUN = frozenset(("PL_GLOBAL_SEED", "WANDB_RUN_ID"))

_OF_SCRIPT = str(Path(sys.path[0]).absolute())
"""Where Python looks for modules first: the folder of the script that it was started with, unless it is told not to."""

_PARENT = "FORGETMENOT_PARENT"
"""Tells a command who started it; its ranks are not to know."""

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_POLL_SECONDS = 0.5


def own_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Returns `given` without what belongs to a run or a rank that it comes from.

    Python started with it imports what this process does, and not, as with -m alone, from the working folder first.
    """
    own = {name: value for name, value in given.items() if name not in _OF_RANKS | _OF_ONE_RUN}
    if not sys.flags.safe_path:
        paths = (_OF_SCRIPT, own.get("PYTHONPATH"))
        own["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return {**own, "PYTHONSAFEPATH": "1"}


def run_child(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    place: Path,
    stopped: Callable[[], bool],
    output: Path | None = None,
) -> int:
    """Returns the exit code of a command, below 0 where a signal ended it; what it says goes to `output`, if given.

    Once `stopped` says so, it is interrupted as by Ctrl-C and waited for. Whatever else ends the wait kills it; where
    this process itself is killed, `end_with_parent` ends it.
    """
    with ExitStack() as stack:
        stream = None if output is None else stack.enter_context(output.open("ab"))
        with held_back():
            child = subprocess.Popen(
                command, cwd=place, env={**environment, _PARENT: str(os.getpid())}, process_group=0,
                stdin=subprocess.DEVNULL, stdout=stream, stderr=None if stream is None else subprocess.STDOUT,
            )  # fmt: skip
        try:
            code = _wait(child, stopped)
        except BaseException:
            _signal_group(child, signal.SIGKILL)
            child.wait()
            raise
    if code < 0:
        _signal_group(child, signal.SIGKILL)  # ranks wait for the one that is gone
    return code


def end_with_parent() -> bool:
    """Has this process, where `run_child` started it, end as by SIGTERM once the one that did is gone.

    Returns whether it did.
    """
    parent = os.environ.pop(_PARENT, None)
    if parent is not None:
        once_gone(int(parent), lambda: os.kill(os.getpid(), signal.SIGTERM))
    return parent is not None


def once_gone(parent: int, end: Callable[[], None]) -> None:
    """Calls `end`, in a thread, once `parent` is no longer this process's."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        end()

    threading.Thread(target=wait, daemon=True).start()


def _wait(child: subprocess.Popen[bytes], stopped: Callable[[], bool]) -> int:
    told = False
    while True:
        try:
            return child.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if not told and stopped():
                _signal_group(child, signal.SIGINT)
                told = True


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)


@contextmanager
def stopping(stop: Callable[[int], bool]) -> Iterator[Callable[[], None]]:
    """Calls `stop` with the signal at Ctrl-C, SIGTERM, SIGUSR1 or the terminal's end while the block runs.

    It yields what ends that earlier.

    Where `stop` says that it has nothing (more) to stop, KeyboardInterrupt is raised, with the signal too.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in _STOPPING}

    def handle(number: int, frame: FrameType | None) -> None:
        if before[signal.Signals(number)] is not signal.SIG_IGN and not stop(number):
            raise KeyboardInterrupt(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in _STOPPING:
        if before[number] is not signal.SIG_IGN or number is signal.SIGINT:  # children would inherit to ignore it
            signal.signal(number, handle)
    try:
        yield restore
    finally:
        restore()
