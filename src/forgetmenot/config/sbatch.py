"""What Slurm is asked for: one array of jobs, whose tasks have the numbers of a sweep's members."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from forgetmenot.config.build import build, plain
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.member import Member
from forgetmenot.config.sweep import Sweep

_KEY = "hydra.launcher"
_OPTIONS = {
    "partition": "partition", "account": "account", "qos": "qos", "timeout_min": "time", "nodes": "nodes",
    "tasks_per_node": "ntasks-per-node", "gpus_per_node": "gpus-per-node", "cpus_per_task": "cpus-per-task",
}  # fmt: skip
"""The options of sbatch that settings are, as they stand."""

_OURS = (
    *_OPTIONS.values(),
    *"array chdir clusters comment error export export-file get-user-env input job-name mem no-requeue output".split(),
    *"help requeue signal test-only usage version wait wrap".split(),
)
"""Options that have a setting of their own, or on which it rests that members run, as they are, and are found again."""

_NOT_SHORTENED = ("gpus", "ntasks")
"""Options whose names others begin with; any other such name sbatch takes as short for the longer one."""

_OF_A_JOB = ("SLURM_", "SRUN_", "SBATCH_CLUSTERS")
"""What names of the environment begin with that are of a job in which the sweep was started, or of another cluster."""


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What each member's job gets of the cluster; conf/hydra/launcher/slurm.yaml holds the values."""

    partition: str | None
    account: str | None
    qos: str | None
    timeout_min: int
    signal_delay_s: int
    nodes: int
    tasks_per_node: int
    gpus_per_node: int | None
    cpus_per_task: int | None
    mem_gb: float | None
    array_parallelism: int | None
    additional: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "array_parallelism"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.mem_gb is not None and not self.mem_gb > 0:
            raise ValueError(f"mem_gb must be above 0, got {self.mem_gb}")
        if not 0 < self.signal_delay_s < 60 * self.timeout_min:
            raise ValueError(
                f"signal_delay_s must be above 0 and below the {60 * self.timeout_min} seconds of timeout_min, got "
                f"{self.signal_delay_s}"
            )

    @classmethod
    def of(cls, launcher: DictConfig) -> "JobOptions":
        """Returns what `hydra.launcher` asks for; raises ConfigError for what Slurm cannot be asked, and without it."""
        if shutil.which("sbatch") is None:
            raise ConfigError("hydra/launcher must be basic or joblib where Slurm's sbatch is not found, got slurm")
        values = plain(launcher, key=_KEY)
        additional = values.pop("additional_parameters")
        if not isinstance(additional, dict):
            raise ConfigError(f"{_KEY}.additional_parameters must be options of sbatch by name, got {additional}")
        for name in map(str, additional):
            _check_option(name)
        own = DictConfig({name: value for name, value in values.items() if name != "_target_"})
        return replace(build(own, cls, key=_KEY), additional={str(name): value for name, value in additional.items()})

    def check_ranks(self, config: DictConfig) -> None:
        """Raises ConfigError where a member's trainer would start other ranks than the job has tasks."""
        trainer = config.get("trainer") or DictConfig({})
        nodes, devices = trainer.get("num_nodes", 1), self._ranks(trainer.get("devices", "auto"))
        if not isinstance(nodes, int) or nodes < 1:
            raise ConfigError(f"trainer.num_nodes must be a whole number of at least 1, got {nodes}")
        for name, asked, wanted in (("tasks_per_node", "devices", devices), ("nodes", "num_nodes", nodes)):
            if getattr(self, name) != wanted:
                raise ConfigError(
                    f"{_KEY}.{name} must be {wanted}, since a task is a rank and trainer.{asked} asks for {wanted}, "
                    f"got {getattr(self, name)}"
                )

    def _ranks(self, devices: object) -> int:
        """Returns how many ranks a node has, as Lightning reads `devices`."""
        if isinstance(devices, ListConfig):
            return len(devices)
        text = str(devices)
        if "," in text:
            return len([part for part in text.split(",") if part.strip()])
        return int(text) if text.isdigit() else self.gpus_per_node or 1

    @property
    def words(self) -> list[str]:
        """The options of sbatch."""
        given = {option: getattr(self, name) for name, option in _OPTIONS.items()}
        if self.mem_gb is not None:
            given["mem"] = f"{round(self.mem_gb * 1024)}M"
        given |= {name.replace("_", "-"): value for name, value in self.additional.items()}
        return [
            f"--{name}" if value is True else f"--{name}={value}"
            for name, value in given.items()
            if value is not None and value is not False
        ]


def _check_option(name: str) -> None:
    """Raises ConfigError where `name` is no other option of sbatch's, but one of ours or short for it."""
    option = name.replace("_", "-")
    if not re.fullmatch("[a-z][a-z-]*", option):
        raise ConfigError(f"{_KEY}.additional_parameters must be options of sbatch by name, got {name}")
    meant = [ours for ours in _OURS if ours == option or (ours.startswith(option) and option not in _NOT_SHORTENED)]
    if meant:
        raise ConfigError(f"{_KEY}.additional_parameters must leave {meant[0]} to the sweep, got {name}")


def submit(members: Sequence[Member], *, sweep: Sweep, options: JobOptions) -> str:
    """Returns the id of the array that was submitted; raises ConfigError, in Slurm's own words, where it was not."""
    folder = members[0].folder.parent
    most = f"%{options.array_parallelism}" if options.array_parallelism else ""
    requeue = "--requeue" if sweep.can_go_on else "--no-requeue"
    command = [
        "sbatch", "--parsable", f"--array={','.join(str(member.number) for member in members)}{most}",
        "--job-name=forgetmenot", f"--comment={folder.resolve()}", f"--chdir={members[0].place}", "--output=/dev/null",
        requeue, f"--signal=USR1@{options.signal_delay_s}", *options.words,
    ]  # fmt: skip
    environment = {"WANDB_RUN_GROUP": folder.name, **sweep.environment}
    done = ask(command, given=script(members, sweep=sweep), environment=environment)
    if done.returncode != 0:
        raise ConfigError(f"{_KEY} must be what this cluster takes, got: {' '.join(done.stderr.split())}")
    return done.stdout.strip().partition(";")[0]  # behind it, the name of the cluster


def script(members: Sequence[Member], *, sweep: Sweep) -> str:
    """Returns what each of the jobs runs: the command of the member that has its number."""
    command = [*sweep.program, sweep.command, *sweep.options]
    cases = [
        f"{member.number}) folder={shlex.quote(str(member.folder))} goes_on={str(member.goes_on).lower()} "
        f"resume={shlex.quote(member.way_on)} words=({shlex.join(replace(member, goes_on=False).words)}) ;;"
        for member in members
    ]
    end = Path(__file__).with_name("member.sbatch").read_text(encoding="utf-8")
    chosen = "\n".join(["case $SLURM_ARRAY_TASK_ID in", *cases, "esac"])
    return f"#!/usr/bin/env bash\ncommand=({shlex.join(command)})\n{chosen}\n{end}"


def ask(
    command: Sequence[str], *, given: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command of Slurm's, which Ctrl-C in the terminal does not reach, and returns how it ended."""
    own = {
        name: value
        for name, value in (os.environ if environment is None else environment).items()
        if not name.startswith(_OF_A_JOB) or name == "SLURM_CONF"
    }
    return subprocess.run(command, input=given, env=own, capture_output=True, text=True, check=False, process_group=0)


def refuse_earlier(folder: Path) -> None:
    """Raises ConfigError where jobs of a sweep that was killed in this folder have not ended, or nobody can tell."""
    asked = ask(["squeue", "--me", "--noheader", "--format=%F %k"])
    if asked.returncode != 0:
        raise ConfigError(
            f"hydra/launcher must be basic or joblib where Slurm does not answer, got slurm: {asked.stderr}"
        )
    lines = [line.partition(" ") for line in asked.stdout.splitlines()]
    left = {job for job, _, comment in lines if comment.strip() == str(folder.resolve())}
    if left:
        raise ConfigError(
            f"resume must be a sweep whose jobs have ended, got {folder.resolve()} with job {', '.join(sorted(left))}; "
            f"scancel {' '.join(sorted(left))} ends it, and members save"
        )
