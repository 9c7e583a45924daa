"""Members of a sweep as jobs of Slurm: submitted together, waited for, and answered for as each ends.

squeue is asked how they do, which needs no accounting; what a member came to stands in its own record.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from forgetmenot.config.attempt import Attempt, objective_of, tell_ended, tell_failed
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.member import OUTPUT, Member
from forgetmenot.config.resume import remove_unused
from forgetmenot.config.sbatch import JobOptions, ask, submit
from forgetmenot.config.sweep import Sweep
from forgetmenot.result import RunResult

_WELL = "COMPLETED"
_QUEUED = frozenset("CONFIGURING PENDING REQUEUED REQUEUE_FED REQUEUE_HOLD".split())
_TAKEN_BACK = frozenset(("CANCELLED", "PREEMPTED"))
_FORGOTTEN = "forgotten"  # Slurm keeps jobs that ended for five minutes, unless told otherwise
_GONE = (_FORGOTTEN, "None")
_USUAL = frozenset("BeginTime Cleaning JobArrayTaskLimit None Priority Resources".split())
"""Reasons to wait that pass by themselves."""

_ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split()
) | {_FORGOTTEN}

_RUNNING = "running"
_POLL_SECONDS = 0.5
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 30.0  # between questions to Slurm, which answers all of its users
_RECORD_SECONDS = 60.0  # NFS tells of a file that another node wrote within a minute; one that was killed left none


def run_as_jobs(members: Sequence[Member | None], *, sweep: Sweep, options: JobOptions) -> list[float | None]:
    """Runs members as jobs and returns their objectives; None for those that are not complete, or not to be started.

    Raises ConfigError where Slurm does not take them.
    """
    there = [member for member in members if member is not None]
    results = {member.number: member.complete for member in there if member.complete}
    waiting = [member for member in there if not member.complete]
    for member in there:
        if member.complete:
            sweep.note(member.folder, member.complete.status)
    if waiting and not sweep.stopped:
        results |= _run(waiting, sweep=sweep, options=options)
    return [objective_of(results[member.number]) if member and member.number in results else None for member in members]


def _run(members: Sequence[Member], *, sweep: Sweep, options: JobOptions) -> dict[int, RunResult]:
    attempts = {member.number: Attempt.begin(member) for member in members}
    try:
        job = submit(members, sweep=sweep, options=options)
    except ConfigError:
        for member in members:
            sweep.note(member.folder, "not started")
            remove_unused(member.folder)
        raise
    results = {}
    try:
        for member in members:
            print(f"{member} is queued as job {job}_{member.number}: {' '.join(member.settings)}", flush=True)
        for number, state in _as_they_end(job, attempts, stopped=lambda: sweep.stopped):
            try:
                results[number] = _ended(attempts[number], state, sweep=sweep)
            except (ValueError, OSError) as error:  # of one member, which stops no other
                print(f"error: {attempts[number].member} ended as {state}: {error}", file=sys.stderr, flush=True)
                sweep.note(attempts[number].member.folder, "not recorded")
    except BaseException:
        _cancel(job)
        raise
    return results


def _as_they_end(job: str, attempts: dict[int, Attempt], *, stopped: Callable[[], bool]) -> Iterator[tuple[int, str]]:
    """Yields the number and state of each task of an array once it has ended and its record is seen, or not to come.

    Tells how they do until then; the attempt of one that is queued again begins anew. Once `stopped` says so, the array
    is cancelled: Slurm sends SIGTERM, members save.
    """
    waiting, ended = set(attempts), dict[int, tuple[str, float]]()
    told, ran = dict.fromkeys(waiting, "queued"), set[int]()
    rhythm, answers, cancelled = _Rhythm(), True, False
    while waiting or ended:
        if stopped() and not cancelled:
            print(f"job {job} is cancelled; members that run save first", flush=True)
            _cancel(job)
            rhythm, cancelled = _Rhythm(), True
        states = _states(job)
        if (states is not None) != answers:
            answers = not answers
            print("Slurm answers again" if answers else "Slurm does not answer; its jobs are waited for", flush=True)
        now = {} if states is None else {number: states.get(number, _GONE) for number in sorted(waiting)}
        for number, (state, reason) in now.items():
            if state in _ENDED:
                waiting.remove(number)
                seen = number in ran or state not in _TAKEN_BACK
                ended[number] = (state, time.monotonic() + (_RECORD_SECONDS if seen else 0.0))
            elif (change := _change(state, reason)) != told[number]:
                again = told[number] == _RUNNING
                print(f"member {number} is {change.replace('queued', 'queued again') if again else change}", flush=True)
                told[number] = change
                ran |= {number} if change == _RUNNING else set()
                if again:
                    attempts[number] = attempts[number].again()
        for number, (state, until) in list(ended.items()):
            if _is_recorded(attempts[number], state) or time.monotonic() >= until:
                del ended[number]
                yield number, state
        if ended:
            time.sleep(_POLL_SECONDS)
        elif waiting:
            rhythm.wait(until=_never if cancelled else stopped)


def _change(state: str, reason: str) -> str:
    """Returns how a task that has not ended does, in words; with Slurm's reason where it may wait for ever."""
    if state not in _QUEUED:
        return _RUNNING
    return "queued" if reason in _USUAL else f"queued, and waits for {reason}"


@dataclass(kw_only=True)
class _Rhythm:
    """How often Slurm is asked: often at first, and less the longer it takes."""

    seconds: float = _LEAST_SECONDS

    def wait(self, *, until: Callable[[], bool]) -> None:
        """Waits for the next time, or until something else is to be done."""
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline and not until():
            time.sleep(_POLL_SECONDS)
        self.seconds = min(_MOST_SECONDS, 1.05 * self.seconds)


def _never() -> bool:
    return False


def _states(job: str) -> dict[int, tuple[str, str]] | None:
    """Returns state and reason of each task that Slurm still knows; None where it does not answer."""
    done = ask(["squeue", "--me", "--array", "--noheader", "--states=all", "--format=%F %K %T %r"])
    if done.returncode != 0:
        return None
    lines = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    return {int(line[1]): (line[2], line[3].strip()) for line in lines if len(line) == 4 and line[0] == job}


def _cancel(job: str) -> None:
    done = ask(["scancel", job])
    if done.returncode != 0:
        print(f"job {job} could not be cancelled: {' '.join(done.stderr.split())}", flush=True)


def _is_recorded(attempt: Attempt, state: str) -> bool:
    """Tells whether what a job in that state recorded is seen here: a file server may tell of an older record."""
    record = attempt.record
    return record is not None and (state != _WELL or record.status == "complete")


def _ended(attempt: Attempt, state: str, *, sweep: Sweep) -> RunResult:
    """Returns the record of a member whose job has ended, and tells of it."""
    member = attempt.member
    fault = None if state in (_WELL, _FORGOTTEN) else f"ended as {state}; {member.folder / OUTPUT} may say why"
    result = attempt.end(fault=fault, interrupted=sweep.stopped or state in _TAKEN_BACK)
    sweep.note(member.folder, result.status)
    if result.status == "failed":
        tell_failed(member, result)
    else:
        tell_ended(member, result, seconds=result.seconds or attempt.seconds)
    return result
