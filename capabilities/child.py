"""A command run as the console runs it, in a process of its own that has imported what commands import."""

import logging
import os
import signal
import sys
from pathlib import Path

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of what is optional when peft imports it

import forgetmenot.cli.evaluate  # noqa: E402
import forgetmenot.cli.export  # noqa: E402
import forgetmenot.cli.train  # noqa: E402, F401  # a command imports its story when it runs
from forgetmenot.cli.main import run_command  # noqa: E402
from forgetmenot.data.types import Step  # noqa: E402
from forgetmenot.module import AdaptationModule  # noqa: E402


def environment(place: Path) -> dict[str, str]:
    """Returns what a probe's commands run under: one thread, no network, and a cache of the probe's own."""
    return {"FORGETMENOT_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(words: list[str], *, place: Path, errors: Path, ends_after: int | None = None) -> None:
    """Runs the command `words` in `place`; what it prints is left, what it says on stderr goes to `errors`.

    With `ends_after`, SIGTERM comes in the step after so many.
    """
    os.chdir(place)
    os.environ.update(environment(place))
    for file, stream in ((Path(os.devnull), sys.stdout), (errors, sys.stderr)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream.fileno())
    if ends_after is not None:
        _end_in_step(ends_after)
    sys.argv = ["forgetmenot", *words]
    run_command(words[0], arguments=words[1:])


def _end_in_step(number: int) -> None:
    taken = AdaptationModule.training_step

    def taking(self: AdaptationModule, step: Step, index: int) -> None:
        if self.global_step == number:
            os.kill(os.getpid(), signal.SIGTERM)
        taken(self, step, index)

    AdaptationModule.training_step = taking  # type: ignore[method-assign]
