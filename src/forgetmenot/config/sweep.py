"""What the members of a sweep share, whichever process waits for them: command, environment, what became of each.

Hydra's launchers hand nothing back, and joblib's have processes of their own; so how members ended is noted in files.
"""

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from forgetmenot.config.child import PROGRAM, own_environment
from forgetmenot.config.count import ASKED, words_asked
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.paths import conf_folder, is_run_folder
from forgetmenot.config.trust import check_no_links
from forgetmenot.config.words import config_dirs, parted, value_of
from forgetmenot.durable import write_whole
from forgetmenot.signals import exit_code

_ENDED = "members.jsonl"
_LOG = "run.log"  # which every run starts with
_RUNS = ("train", "evaluate")  # the commands that leave a record
_RESUMABLE = ("train",)
_STOP = "stop"
_TORCHRUN = "TORCHELASTIC_RUN_ID"
_REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A member's folder, and how its run ended: its status, or why it was not started."""

    folder: Path
    status: str


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep of `command`, started by the process `pid` with these options and this environment.

    `within` tells that the process is itself a member of one, or a stage of a sequence.
    """

    command: str
    options: tuple[str, ...]
    environment: dict[str, str]
    notes: Path
    pid: int
    program: tuple[str, ...]
    within: bool = False

    def check(self) -> None:
        """Raises ConfigError where its command leaves no record of how members ended, or each rank would start it.

        And each member, where it is one of another sweep: sweeps within sweeps without end.
        """
        if self.within:
            raise ConfigError("a run that a sweep or a sequence has started must be one run, got a sweep")
        if self.command not in _RUNS:
            raise ConfigError(f"{self.command} must be asked for one at a time, got a sweep")
        if _TORCHRUN in os.environ and os.environ.get("WORLD_SIZE") != "1":
            raise ConfigError(
                "a sweep must be started without torchrun, which starts it once a rank, got one with it; "
                "trainer.devices gives each member its ranks"
            )

    def stop(self, number: int) -> bool:
        """Has members that run interrupted and no other started, asked for by that signal.

        Returns False where none runs, or all know already.
        """
        if not self.notes.is_dir() or self.interrupted:
            return False
        (self.notes / _STOP).write_text(str(number))
        return True

    def refuse(self) -> None:
        """Has no other member started, since this is not the sweep that it is told to be."""
        (self.notes / _REFUSED).touch()

    @property
    def can_go_on(self) -> bool:
        """Whether its command has the setting `resume`."""
        return self.command in _RESUMABLE

    @property
    def interrupted(self) -> bool:
        """Whether a signal stopped it."""
        return (self.notes / _STOP).exists()

    @property
    def code(self) -> int | None:
        """The exit code that the signal which stopped it stands for; None where none did."""
        return exit_code(KeyboardInterrupt(int((self.notes / _STOP).read_text()))) if self.interrupted else None

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
def sweeping(command: str, arguments: Sequence[str], *, within: bool) -> Iterator[Sweep]:
    """Yields the sweep that `command` becomes where its settings ask for one."""
    options, _ = parted(arguments)
    sweep = Sweep(
        command=command,
        options=tuple(word for word in options if word not in ("-m", "--multirun")),
        environment=own_environment(os.environ),
        notes=Path(tempfile.gettempdir()) / f"forgetmenot_sweep_{uuid.uuid4().hex}",
        pid=os.getpid(),
        program=PROGRAM,
        within=within,
    )
    try:
        yield sweep
    finally:
        shutil.rmtree(sweep.notes, ignore_errors=True)


def asks_for_sweep(arguments: Sequence[str]) -> bool:
    """Tells whether a command line is a sweep: by an option, by Hydra's mode, or by a ready sweep or experiment."""
    options, settings = parted(arguments)
    if {"-m", "--multirun"} & set(options):
        return True
    mode = value_of("hydra.mode", settings)
    return mode == RunMode.MULTIRUN.name if mode else any(map(_is_sweep, _presets(options, settings)))


def _presets(options: Sequence[str], settings: Sequence[str]) -> Iterator[Path]:
    """Yields the files that the words of a ready sweep or an experiment choose."""
    for group in ("experiment", "sweep"):
        text = value_of(group, settings) or ""
        chosen = re.findall(r"[^\[\], ]+", text) if text.startswith("[") else [text]  # a list has several
        folders = [folder / group for folder in (*config_dirs(options), conf_folder())]
        yield from (file for folder in folders for name in chosen if (file := folder / f"{name}.yaml").is_file())


def _is_sweep(preset: Path) -> bool:
    try:
        return bool(OmegaConf.select(OmegaConf.load(preset), "hydra.mode") == RunMode.MULTIRUN.name)
    except YAMLError:
        return False  # Hydra tells what is wrong with it


def check_resumed(arguments: Sequence[str]) -> None:
    """Raises ConfigError, before Hydra writes anything there, where `resume` is not what the command can go on with."""
    resumed = value_of("resume", arguments)
    if resumed is None:
        return
    if is_run_folder(resumed):
        if asks_for_sweep(arguments):
            raise ConfigError(f"resume must be a sweep's folder with -m, got the run {resumed}; a run goes on without")
    elif not any(Path(resumed).glob(f"*/{_LOG}")):
        raise ConfigError(f"resume must be the folder of a run or of a sweep, got {resumed}, where none ran")
    elif asks_for_sweep(arguments) and (asked := words_asked(Path(resumed))) is not None:
        from forgetmenot.config.resume import check_same_words  # not for --help: it reads records, with numpy

        check_same_words(asked, parted(arguments)[1])
    check_no_links(Path(resumed))


@contextmanager
def command_kept(arguments: Sequence[str]) -> Iterator[None]:
    """Has the record of what a resumed sweep was asked for as it was when the block ends: Hydra writes its own over."""
    resumed = value_of("resume", arguments)
    if resumed is None or words_asked(Path(resumed)) is None:
        yield
        return
    record = Path(resumed) / ASKED
    before = record.read_text(encoding="utf-8")
    try:
        yield
    finally:
        write_whole(record, before)


def refuse_sweep(config: DictConfig) -> None:
    """Raises ConfigError where a single run should go on in a sweep's folder."""
    if config.get("resume") is not None and not is_run_folder(config.resume):
        raise ConfigError(
            f"resume must be a run's folder, got the sweep {config.resume}, which goes on with its whole command and -m"
        )
