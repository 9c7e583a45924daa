"""A member of a sweep: a run in a process of its own, which this one starts, waits for and answers for."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from forgetmenot.checkpoint import CHECKPOINTS, any_kept
from forgetmenot.config.child import run_child
from forgetmenot.config.count import members_at_a_time
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.resume import check_member, keep_aside, remove_unused
from forgetmenot.config.share import cores, place_among, share
from forgetmenot.config.sweep import Sweep
from forgetmenot.config.words import names, quoted
from forgetmenot.folder_lock import only_writer
from forgetmenot.result import FILE_NAME, RunResult

_LAUNCHERS = ("basic", "joblib", "slurm")
_OF_SWEEP = (
    "hydra.mode", "hydra.run", "hydra.sweep", "hydra.sweeper", "hydra.launcher", "hydra/launcher", "hydra/sweeper",
)  # fmt: skip
"""Settings of Hydra that say how the sweep runs, and nothing of its members."""

OUTPUT = "terminal.log"  # what members that run at once would print over one another


@dataclass(frozen=True, kw_only=True)
class Member:
    """The run of one combination of settings; `at_once` says how many run beside each other on this machine.

    `complete` is its record where an earlier sweep has completed it.
    """

    config: DictConfig
    folder: Path
    number: int
    settings: tuple[str, ...]
    hydra_settings: tuple[str, ...]
    place: Path
    at_once: int
    goes_on: bool = False
    complete: RunResult | None = None

    @classmethod
    def of(cls, config: DictConfig) -> "Member":
        """Returns the member that Hydra is at; raises ConfigError for a launcher whose members we cannot answer for."""
        hydra = HydraConfig.get()
        launcher = hydra.runtime.choices.get("hydra/launcher") or "basic"
        if launcher not in _LAUNCHERS:
            raise ConfigError(f"hydra/launcher must be one of {', '.join(_LAUNCHERS)}, got {launcher}")
        return cls(
            config=config,
            folder=Path(hydra.runtime.output_dir),
            number=int(hydra.job.num),
            settings=tuple(word for word in hydra.overrides.task if names(word) != "resume"),
            hydra_settings=tuple(word for word in hydra.overrides.hydra if not _is_of_sweep(word)),
            place=Path(hydra.runtime.cwd),
            at_once=_at_once(hydra, sweep=Path(hydra.runtime.output_dir).parent),
        )

    def __str__(self) -> str:
        """Returns what it is called."""
        return f"member {self.number}"

    @property
    def words(self) -> list[str]:
        """The settings of its command line."""
        folder = quoted(f"hydra.run.dir={self.folder}", key="hydra.run.dir")
        own = ["hydra.mode=RUN", f"hydra.job.num={self.number}", folder]
        if self.goes_on:
            own.append(self.way_on)
        return [*self.settings, *self.hydra_settings, *own]

    @property
    def way_on(self) -> str:
        """The setting with which it goes on from its last checkpoint."""
        return quoted(f"resume={self.folder}", key="resume")


def run_member(sweep: Sweep, config: DictConfig) -> float | None:
    """Runs the member that Hydra is at, unless it is complete already; returns its objective, for sweepers.

    Raises ConfigError where it cannot be started.
    """
    member = prepare_member(sweep, config)
    if member is None:
        return None
    with _told_if_not_started(member.folder, sweep):
        result = member.complete or _run(member, sweep)
    sweep.note(member.folder, result.status)
    return objective_of(result)


def prepare_member(sweep: Sweep, config: DictConfig) -> Member | None:
    """Returns the member that Hydra is at, ready to be started; None where the sweep is stopped.

    Raises ConfigError where it cannot be started.
    """
    member = Member.of(config)
    sweep.notes.mkdir(exist_ok=True)
    if sweep.stopped:
        remove_unused(member.folder)
        return None
    try:
        sweep.check()
    except ConfigError:
        sweep.refuse()
        remove_unused(member.folder)
        raise
    with _told_if_not_started(member.folder, sweep):
        complete = _completed_before(member, sweep)
    return replace(member, complete=complete, goes_on=complete is None and _has_checkpoint(member))


def objective_of(result: RunResult) -> float | None:
    """Returns what a sweeper is told of a member."""
    return result.objective["value"] if result.status == "complete" and result.objective else None


@contextmanager
def _told_if_not_started(folder: Path, sweep: Sweep) -> Iterator[None]:
    """Notes of a member that it was not started where the block raises what a user got wrong."""
    try:
        yield
    except (ValueError, OSError):
        sweep.note(folder, "not started")
        remove_unused(folder)
        raise


def _completed_before(member: Member, sweep: Sweep) -> RunResult | None:
    """Returns the record of a member that the resumed sweep completed.

    Another goes on from its last checkpoint; where it has none, what it left is put aside.
    """
    with only_writer(member.folder):
        result = _read(member.folder)
        if member.config.get("resume") is None:
            if result is not None:
                raise ConfigError(
                    f"hydra.sweep.dir must be a new folder, got {member.folder.parent}, where a sweep ran; "
                    "resume=FOLDER runs what that one is missing"
                )
            return None
        try:
            check_member(member.config, member.folder, number=member.number, place=member.place)
        except ConfigError:
            sweep.refuse()  # the next ones would run with what this one is refused for
            raise
        if result is not None and result.status == "complete":
            print(f"{member} is complete: {' '.join(member.settings)}", flush=True)
            return result
        if not _has_checkpoint(member):
            keep_aside(member.folder)
        return None


def _has_checkpoint(member: Member) -> bool:
    return any_kept(member.folder / CHECKPOINTS)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A member that was started: when, and the record that lay in its folder before."""

    member: Member
    started: str
    clock: float
    earlier: RunResult | None

    @classmethod
    def begin(cls, member: Member) -> "Attempt":
        """Returns the attempt that starts now."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        return cls(member=member, started=now, clock=time.perf_counter(), earlier=_read(member.folder))

    @property
    def seconds(self) -> float:
        """How long ago it was started."""
        return time.perf_counter() - self.clock

    @property
    def record(self) -> RunResult | None:
        """What the run itself has recorded; None where it has not, or not yet."""
        result = _read(self.member.folder)
        return None if result == self.earlier else result

    def again(self) -> "Attempt":
        """Returns the same attempt, now that it goes on in another process: what is recorded so far is not its end."""
        record = _read(self.member.folder)
        return self if record is None or record.status == "complete" else replace(self, earlier=record)

    def end(self, *, fault: str | None, interrupted: bool) -> RunResult:
        """Returns the record of a run that has ended, `fault` being what else is known of that.

        One that it did not leave is written here.
        """
        result = self.record
        if result is None and interrupted and self.earlier is not None and self.earlier.status == "interrupted":
            return self.earlier  # which knows more than we do
        if result is None:
            result = RunResult(
                status="interrupted" if interrupted else "failed",
                error=None if interrupted else fault or "ended without a record",
                name=self.member.folder.name,
                overrides=list(self.member.settings),
                started=self.started,
                seconds=self.seconds,
            )
            with only_writer(self.member.folder):
                result.write(self.member.folder)
        elif fault is not None and result.status == "complete":
            result = replace(result, status="failed", error=f"{fault} after its record was complete")
        return result


def _run(member: Member, sweep: Sweep) -> RunResult:
    """Runs a member to its end, tells of it, and returns its record."""
    attempt = Attempt.begin(member)
    print(f"{member}: {' '.join(member.settings)}", flush=True)
    code = _wait_for(member, sweep)
    record = attempt.record
    if record is not None and record.status != "complete" and member.at_once == 1 and code == 1:
        return record  # the run has told why
    result = attempt.end(fault=None if code == 0 else _ended_by(code), interrupted=sweep.stopped)
    if result.status == "failed":
        tell_failed(member, result)
    elif member.at_once > 1:
        tell_ended(member, result, seconds=attempt.seconds)
    return result


def _wait_for(member: Member, sweep: Sweep) -> int:
    """Returns the exit code of a member's process, which gets its share of the machine where several run at once."""
    command = [*sweep.program, sweep.command, *sweep.options, *member.words]
    environment = {"WANDB_RUN_GROUP": member.folder.parent.name, **sweep.environment}
    start = partial(run_child, command, place=member.place, stopped=lambda: sweep.stopped)
    if member.at_once == 1:
        return start(environment=environment)
    with place_among(member.at_once, notes=sweep.notes) as place:
        mine = share(
            member.config.get("trainer") or DictConfig({}),
            place=place,
            at_once=member.at_once,
            environment=environment,
            cores=cores(),
        )
        return start(environment={**environment, **mine}, output=member.folder / OUTPUT)


def tell_failed(member: Member, result: RunResult) -> None:
    """Tells why a member failed."""
    print(f"error: {member} failed: {result.error}", file=sys.stderr, flush=True)


def tell_ended(member: Member, result: RunResult, *, seconds: float) -> None:
    """Tells what a member came to."""
    print(f"{member} is {result.status} after {seconds:.0f} s", flush=True)


def _ended_by(code: int) -> str:
    return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _read(folder: Path) -> RunResult | None:
    """Returns the record of a run that ended; None where there is none that can be read."""
    try:
        return RunResult.read(folder) if (folder / FILE_NAME).is_file() else None
    except ValueError:
        return None


def _is_of_sweep(word: str) -> bool:
    key = names(word)
    return any(key == part or key.startswith((f"{part}.", f"{part}/")) for part in _OF_SWEEP)


def _at_once(hydra: HydraConf, *, sweep: Path) -> int:
    """Returns how many members run beside each other: what the launcher takes, or all where there are fewer."""
    number = int(hydra.launcher.get("n_jobs") or 1)
    if number == 1:
        return 1
    jobs = number if number > 0 else max(1, cores() + 1 + number)  # below 0 it counts from the number of cores
    return min(jobs, members_at_a_time(hydra, sweep=sweep) or jobs)
