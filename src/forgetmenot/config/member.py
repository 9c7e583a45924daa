"""A member of a sweep: the run of one combination of settings, as a command line."""

from dataclasses import dataclass
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from forgetmenot.config.count import members_at_a_time
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.share import cores
from forgetmenot.config.words import names, quoted
from forgetmenot.result import RunResult

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
