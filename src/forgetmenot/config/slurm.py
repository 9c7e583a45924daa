"""Members of a sweep as jobs of Slurm: submitted together, waited for, and answered for as each ends.

squeue is asked how they do, which needs no accounting; what a member came to stands in its own record.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from forgetmenot.config.errors import ConfigError
from forgetmenot.config.member import OUTPUT, Attempt, Member, objective_of, tell_ended, tell_failed
from forgetmenot.config.resume import remove_unused
from forgetmenot.config.sbatch import JobOptions, ask, submit
from forgetmenot.config.sweep import Sweep
from forgetmenot.result import RunResult

_WELL = "COMPLETED"
_QUEUED = frozenset("CONFIGURING PENDING REQUEUED REQUEUE_FED REQUEUE_HOLD".split())
_TAKEN_BACK = frozenset(("CANCELLED", "PREEMPTED"))
_FORGOTTEN = "forgotten"  # Slurm keeps jobs that ended for five minutes, unless told otherwise
_ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split()
) | {_FORGOTTEN}

_POLL_SECONDS = 0.5
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 30.0  # between questions to Slurm, which answers all of its users
_RECORD_SECONDS = 60.0  # NFS tells of a file that another node wrote within a minute


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
    for member in members:
        print(f"{member} is queued as job {job}_{member.number}: {' '.join(member.settings)}", flush=True)
    results = {}
    try:
        for number, state, ran in _as_they_end(job, set(attempts), stopped=lambda: sweep.stopped):
            if ran or state == _WELL:
                _wait_for_record(attempts[number])
            results[number] = _ended(attempts[number], state, sweep=sweep)
    except BaseException:
        _cancel(job)
        raise
    return results


def _as_they_end(job: str, waiting: set[int], *, stopped: Callable[[], bool]) -> Iterator[tuple[int, str, bool]]:
    """Yields of each task of an array, once it has ended, its number, its state, and whether it was seen to run.

    Tells how they do until then. Once `stopped` says so, the array is cancelled: Slurm sends SIGTERM, members save.
    """
    told, ran = dict.fromkeys(waiting, "queued"), set[int]()
    rhythm, answers, cancelled = _Rhythm(), True, False
    while waiting:
        if stopped() and not cancelled:
            print(f"job {job} is cancelled; members that run save first", flush=True)
            _cancel(job)
            rhythm, cancelled = _Rhythm(), True
        states = _states(job)
        if (states is not None) != answers:
            answers = not answers
            print("Slurm answers again" if answers else "Slurm does not answer; its jobs are waited for", flush=True)
        now = {} if states is None else {number: states.get(number, _FORGOTTEN) for number in sorted(waiting)}
        for number, state in now.items():
            if state in _ENDED:
                waiting.remove(number)
                yield number, state, number in ran
            else:
                _tell_of_change(number, state, told=told)
                ran |= {number} if told[number] == "running" else set()
        if waiting:
            rhythm.wait(until=_never if cancelled else stopped)


def _tell_of_change(number: int, state: str, *, told: dict[int, str]) -> None:
    """Tells that a member waits or runs where it did the other before."""
    now = "queued" if state in _QUEUED else "running"
    if now != told[number]:
        print(f"member {number} is {now}{' again' if now == 'queued' else ''}", flush=True)
        told[number] = now


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


def _states(job: str) -> dict[int, str] | None:
    """Returns the state of each task that Slurm still knows; None where it does not answer."""
    done = ask(["squeue", "--me", "--array", "--noheader", "--states=all", "--format=%F %K %T"])
    if done.returncode != 0:
        return None
    lines = [line.split() for line in done.stdout.splitlines()]
    return {int(line[1]): line[2] for line in lines if len(line) == 3 and line[0] == job}


def _cancel(job: str) -> None:
    done = ask(["scancel", job])
    if done.returncode != 0:
        print(f"job {job} could not be cancelled: {' '.join(done.stderr.split())}", flush=True)


def _wait_for_record(attempt: Attempt) -> None:
    """Waits until the record of a run that ended is seen here; not for long, since one that was killed left none."""
    deadline = time.monotonic() + _RECORD_SECONDS
    while attempt.record is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


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
