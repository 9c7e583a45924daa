"""A member that was started, and the record that it ends with, whether it wrote one itself or was killed."""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from forgetmenot.config.errors import ConfigError
from forgetmenot.config.member import Member
from forgetmenot.folder_lock import only_writer
from forgetmenot.result import FILE_NAME, RunResult, now


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
        return cls(member=member, started=now(), clock=time.perf_counter(), earlier=read_record(member.folder))

    @property
    def seconds(self) -> float:
        """How long ago it was started."""
        return time.perf_counter() - self.clock

    @property
    def record(self) -> RunResult | None:
        """What the run itself has recorded; None where it has not, or not yet."""
        result = read_record(self.member.folder)
        return None if result == self.earlier else result

    def again(self) -> "Attempt":
        """Returns the same attempt, now that it goes on in another process: what is recorded so far is not its end."""
        record = read_record(self.member.folder)
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


def read_record(folder: Path) -> RunResult | None:
    """Returns the record of a run that ended; None where there is none that can be read."""
    try:
        return RunResult.read(folder) if (folder / FILE_NAME).is_file() else None
    except ValueError:
        return None


def objective_of(result: RunResult) -> float | None:
    """Returns what a sweeper is told of a member."""
    return result.objective["value"] if result.status == "complete" and result.objective else None


def check_direction(sweeper: DictConfig, result: RunResult) -> None:
    """Raises ConfigError where a sweeper that searches, as Optuna does, would search for the worst objective."""
    asked, objective = sweeper.get("direction"), result.objective
    if asked is None or objective is None or isinstance(asked, ListConfig):
        return
    wanted = "maximize" if objective["direction"] == "max" else "minimize"
    if str(asked).rpartition(".")[2] != wanted:
        raise ConfigError(f"hydra.sweeper.direction must be {wanted} for objective={objective['name']}, got {asked}")


def tell_failed(member: Member, result: RunResult) -> None:
    """Tells why a member failed."""
    print(f"error: {member} failed: {result.error}", file=sys.stderr, flush=True)


def tell_ended(member: Member, result: RunResult, *, seconds: float) -> None:
    """Tells what a member came to."""
    print(f"{member} is {result.status} after {seconds:.0f} s", flush=True)
