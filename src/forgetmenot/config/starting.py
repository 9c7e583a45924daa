"""Starts a member of a sweep, a run in a process of its own, waits for it and answers for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from forgetmenot.checkpoint import CHECKPOINTS, any_kept
from forgetmenot.config.attempt import Attempt, check_direction, objective_of, read_record, tell_ended, tell_failed
from forgetmenot.config.child import run_child
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.member import OUTPUT, Member
from forgetmenot.config.resume import check_member, keep_aside, remove_unused
from forgetmenot.config.share import check_gpus, cores, place_among, share
from forgetmenot.config.sweep import Sweep
from forgetmenot.folder_lock import only_writer
from forgetmenot.result import RunResult
from forgetmenot.signals import signal_asked_by


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
    try:
        check_direction(HydraConfig.get().sweeper, result)
    except ConfigError:
        sweep.refuse()
        raise
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
        if member.at_once > 1:
            check_gpus(_trainer_of(member), at_once=member.at_once, environment=sweep.environment)
    except ConfigError:
        sweep.refuse()
        remove_unused(member.folder)
        raise
    with _told_if_not_started(member.folder, sweep):
        complete = _completed_before(member, sweep)
    return replace(member, complete=complete, goes_on=complete is None and _has_checkpoint(member))


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
        result = read_record(member.folder)
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


def _run(member: Member, sweep: Sweep) -> RunResult:
    """Runs a member to its end, tells of it, and returns its record."""
    attempt = Attempt.begin(member)
    print(f"{member}: {' '.join(member.settings)}", flush=True)
    code = _wait_for(member, sweep)
    record = attempt.record
    if record is not None and record.status != "complete" and member.at_once == 1 and code == 1:
        return record  # the run has told why
    asked_to_end = sweep.stopped or signal_asked_by(code) is not None
    result = attempt.end(fault=None if code == 0 else _ended_by(code), interrupted=asked_to_end)
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
        mine = share(_trainer_of(member), place=place, at_once=member.at_once, environment=environment, cores=cores())
        return start(environment={**environment, **mine}, output=member.folder / OUTPUT)


def _trainer_of(member: Member) -> DictConfig:
    return member.config.get("trainer") or DictConfig({})


def _ended_by(code: int) -> str:
    return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
