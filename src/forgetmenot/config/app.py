"""Runs a command under Hydra, and turns whatever a user got wrong into one sentence and an exit code."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from forgetmenot.config.child import end_with_parent, once_gone, stopping
from forgetmenot.config.count import check_swept
from forgetmenot.config.errors import HYDRA_ERRORS, ConfigError, hydra_sentence, refuse_null_groups
from forgetmenot.config.harmless import guard_hydra
from forgetmenot.config.paths import conf_folder, register_resolvers
from forgetmenot.config.sweep import Sweep, asks_for_sweep, check_resumed, command_kept, refuse_sweep, sweeping
from forgetmenot.config.words import parted, pasted, path_as_text
from forgetmenot.signals import answer, ending_on_signals, exit_code, is_first_rank
from forgetmenot.streams import outliving_readers

if TYPE_CHECKING:
    from forgetmenot.config.member import Member

Story = Callable[[DictConfig], float | None]
Load = Callable[[], Story]
"""Imports a story: seconds, in which a signal still ends the command as one that has computed nothing."""

USER_ERRORS = (*HYDRA_ERRORS, ValueError, OSError)
"""What a user's input can raise; anything else is a bug of ours and keeps its traceback."""

_SLURM_ALONE = "hydra/launcher must be basic for one run, got slurm; -m makes it a sweep, cluster/train.sbatch one job"
_NONE_CHOSEN = ("experiment=null", "sweep=null")
"""Defaults that Hydra takes from no command line."""


def run_app(
    load: Load, *, config_name: str, arguments: list[str], after_sweep: Callable[[Path], None] = lambda folder: None
) -> None:
    """Runs a story with the config that `arguments` compose, or each one of a sweep as a command and `after_sweep`.

    A user's error ends with one sentence and exit code 1, Ctrl-C with 130; a failed member does not stop a sweep.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing and exiting
    os.environ.setdefault("WANDB_SILENT", "true")  # what people should read of it we print
    register_resolvers()
    guard_hydra()
    within = end_with_parent()
    command_line = sys.argv
    arguments = [path_as_text(word) for word in arguments if word not in _NONE_CHOSEN]
    options, settings = parted(arguments)
    sys.argv = [command_line[0], *options, *settings]
    with sweeping(config_name, arguments, within=within) as sweep:
        try:
            with stopping(sweep.stop) as restore:
                task = Task(load=load, sweep=sweep, command_line=command_line, before_story=restore)
                if asks_for_sweep(arguments):
                    sweep.check()  # before Hydra writes anything
                    check_swept(settings)
                refuse_null_groups(arguments)
                check_resumed(arguments)
                with command_kept(arguments):
                    hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(task)()
                code = _end(sweep, after_sweep) or (1 if task.failures else 0)
        except USER_ERRORS as error:
            _tell(error)
            code = 1
        except KeyboardInterrupt as error:
            code = exit_code(error)
        finally:
            sys.argv = command_line
    if code > 128 and is_first_rank():
        print("interrupted", file=sys.stderr)
    if code != 0:
        sys.exit(code)


@dataclass(kw_only=True)
class Task:
    """What Hydra calls with a config: the story itself, or a command for it where that is a member of a sweep."""

    load: Load
    sweep: Sweep
    command_line: list[str]
    before_story: Callable[[], None] = lambda: None
    busy: AbstractContextManager[object] = field(default_factory=nullcontext)
    failures: int = 0

    @outliving_readers()  # in joblib's processes, too
    def __call__(self, config: DictConfig) -> float | None:
        """Returns what the run came to, or None where a user's error ended it: Hydra would print its own line."""
        sys.argv = self.command_line  # Lightning starts its other ranks with it
        try:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                from forgetmenot.config.starting import run_member  # not for --help: it reads records, with numpy

                with self.busy:
                    return run_member(self.sweep, config)
            refuse_sweep(config)
            if HydraConfig.get().runtime.choices.get("hydra/launcher") == "slurm":
                raise ConfigError(_SLURM_ALONE)
            story = self.load()
            self.before_story()
            with ending_on_signals():
                answer()
                return story(config)
        except USER_ERRORS as error:
            self.failures += 1
            _tell(error)
            return None

    def prepare(self, config: DictConfig) -> "Member | None":
        """Returns the member that Hydra is at, for a launcher that starts it; None where it is not to be started."""
        from forgetmenot.config.starting import prepare_member

        try:
            return prepare_member(self.sweep, config)
        except USER_ERRORS as error:
            self.failures += 1
            _tell(error)
            return None

    def __reduce__(self) -> tuple[Callable[..., "Task"], tuple[Sweep, list[str]]]:
        """Tells joblib's processes, which start members alone, what they need for it."""
        return _in_another_process, (self.sweep, self.command_line)


def _in_another_process(sweep: Sweep, command_line: list[str]) -> Task:
    register_resolvers()
    guard_hydra()
    signal.signal(signal.SIGINT, lambda *_: None)  # the process that started the sweep says when to end
    _end_with(sweep.pid)
    return Task(load=_no_story, sweep=sweep, command_line=command_line, busy=_busy())


@cache
def _busy() -> AbstractContextManager[object]:
    """Returns what a process holds while it answers for a member."""
    return threading.Lock()


@cache  # once a process
def _end_with(parent: int) -> None:
    """Ends this process once its parent is gone and no member is left to answer for: joblib's would wait for ever."""

    def end() -> None:
        with _busy():
            os._exit(1)

    once_gone(parent, end)


def _no_story() -> Story:
    raise AssertionError("a launcher's processes start members alone")


def _end(sweep: Sweep, after_sweep: Callable[[Path], None]) -> int:
    """Tells what a sweep came to, where there was one; returns its exit code."""
    ended = sweep.ended
    if not ended:
        return sweep.code or 0
    complete = [member for member in ended if member.status == "complete"]
    folder = _as_seen_from_here(ended[-1].folder.parent)
    if complete and not sweep.stopped:
        after_sweep(folder)
    if len(complete) == len(ended) and not sweep.stopped:
        return 0
    if not sweep.refused:
        way_on = f"; the same command with {pasted('resume', str(folder))} runs the others" if sweep.can_go_on else ""
        print(f"{len(complete)} of the members {'is' if len(complete) == 1 else 'are'} complete{way_on}")
    return sweep.code or 1


def _as_seen_from_here(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _tell(error: Exception) -> None:
    sentence = hydra_sentence(error) if isinstance(error, HYDRA_ERRORS) else " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        sentence = (
            f"the disk must have room for what is written, got none ({sentence}); with more room, "
            "resume=RUN_FOLDER goes on where a run ended"
        )
    print(f"error: {sentence}", file=sys.stderr)
