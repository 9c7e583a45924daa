"""What the members of a sweep share, whichever process waits for them: command, environment, what became of each.

Hydra's launchers hand nothing back, and joblib's have processes of their own; so how members ended is noted in files.
"""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from forgetmenot.config.child import PROGRAM, own_environment
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.words import parted, value_of

_ENDED = "members.jsonl"
_LOG = "run.log"  # which every run starts with
_OF_A_RUN = (_LOG, "config.yaml")
_STOP = "stop"
_REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A member's folder, and how its run ended: its status, or why it was not started."""

    folder: Path
    status: str


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep of `command`, started by the process `pid` with these options and this environment."""

    command: str
    options: tuple[str, ...]
    environment: dict[str, str]
    notes: Path
    pid: int
    program: tuple[str, ...]

    def stop(self) -> bool:
        """Has members that run interrupted and no other started; returns False where none runs, or all know already."""
        if not self.notes.is_dir() or self.interrupted:
            return False
        (self.notes / _STOP).touch()
        return True

    def refuse(self) -> None:
        """Has no other member started, since this is not the sweep that it is told to be."""
        (self.notes / _REFUSED).touch()

    @property
    def interrupted(self) -> bool:
        """Whether a signal stopped it."""
        return (self.notes / _STOP).exists()

    @property
    def refused(self) -> bool:
        """Whether it was not the sweep that it was told to be."""
        return (self.notes / _REFUSED).exists()

    @property
    def stopped(self) -> bool:
        """Whether members are to end: told so, or since the process that started the sweep is gone."""
        return self.interrupted or self.refused or self.pid not in (os.getpid(), os.getppid())

    def note(self, folder: Path, status: str) -> None:
        """Notes how a member ended."""
        line = json.dumps({"folder": str(folder), "status": status}) + "\n"
        with (self.notes / _ENDED).open("a", encoding="utf-8") as file:
            file.write(line)

    @property
    def ended(self) -> list[Ended]:
        """How each member ended, in that order; none where there is no sweep."""
        file = self.notes / _ENDED
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        notes = [json.loads(line) for line in lines]
        return [Ended(folder=Path(note["folder"]), status=note["status"]) for note in notes]


@contextmanager
def sweeping(command: str, arguments: Sequence[str]) -> Iterator[Sweep]:
    """Yields the sweep that `command` becomes where its settings ask for one."""
    options, _ = parted(arguments)
    sweep = Sweep(
        command=command,
        options=tuple(word for word in options if word not in ("-m", "--multirun")),
        environment=own_environment(os.environ),
        notes=Path(tempfile.gettempdir()) / f"forgetmenot_sweep_{uuid.uuid4().hex}",
        pid=os.getpid(),
        program=PROGRAM,
    )
    try:
        yield sweep
    finally:
        shutil.rmtree(sweep.notes, ignore_errors=True)


def refuse_no_sweep(arguments: Sequence[str]) -> None:
    """Raises ConfigError, before Hydra writes anything there, where `resume` is not the folder of a sweep."""
    resumed = value_of("resume", arguments)
    if resumed is None:
        return
    folder = Path(resumed)
    if any((folder / name).is_file() for name in _OF_A_RUN):
        raise ConfigError(f"resume must be a sweep's folder, got the run {resumed}; only a sweep can be resumed yet")
    if not any(folder.glob(f"*/{_LOG}")):
        raise ConfigError(f"resume must be a sweep's folder, got {resumed}, where no sweep ran")


def refuse_single_run(config: DictConfig) -> None:
    """Raises ConfigError where a run that is no member of a sweep should go on."""
    if config.get("resume") is not None:
        raise ConfigError(
            f"resume must be null for a single run, got {config.resume}; only a sweep can be resumed yet, with its "
            "whole command and -m"
        )
