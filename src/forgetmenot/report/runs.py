"""Finds runs by their folders, and puts together those that differ by their seed alone."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from forgetmenot.result import EARLIER_ATTEMPTS, FILE_NAME, RunResult

_NOT_LEARNING = ("seed", "hydra", "logger", "micro_batch_tokens", "direction", "resume", "defaults")
"""Settings that do not set runs apart."""

_LONGEST = 32  # letters of a setting in a label
_CONFIG = "config.yaml"
_NEEDED = ("model", "data", "tasks", "started")  # of a complete result
_NO_RUNS = {"wandb", EARLIER_ATTEMPTS}  # in a run's folder: W&B's own config.yaml, and what was run again
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C ten times as fast, where PyYAML was built with it
Settings = frozenset[tuple[str, str]]
Kind = tuple[str, str, str]
"""The names of a model, of data and of a method."""
Reader = Callable[[RunResult], float | None]
"""What finds a figure in a result, or that it has none."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run, the folder that it lies in, and its settings less the seed as (key, value)."""

    folder: Path
    result: RunResult
    settings: Settings

    @property
    def is_evaluation(self) -> bool:
        """Whether a finished model was scored and nothing trained."""
        return any(key == "run" for key, _ in self.settings)

    @property
    def kind(self) -> Kind:
        """What a run is first called by: its model, data and method."""
        model, data, method = self.result.model, self.result.data, self.result.method
        assert model is not None and data is not None, "complete runs have them"
        name = method["name"] if method else "base"
        return model["name"], data["name"], f"{name}, evaluated" if self.is_evaluation else name


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A folder whose run is not complete, and why."""

    folder: Path
    why: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ by their seed alone; `label` says what sets them apart from the other groups."""

    label: str
    runs: tuple[Run, ...]

    def values(self, read: Reader) -> list[float]:
        """Returns what `read` finds in each run; runs without it are left out."""
        found = [read(run.result) for run in self.runs]
        return [value for value in found if value is not None]


def find_runs(paths: Iterable[Path]) -> tuple[list[Run], list[Unfinished]]:
    """Returns the complete runs in or below `paths`, first started first, and all others.

    Raises ValueError where a path is no folder or no run is complete.
    """
    folders: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"PATH must be an existing folder, got {path}")
        files = (file for name in (FILE_NAME, _CONFIG) for file in path.rglob(name))
        own = {file.parent for file in files if not _NO_RUNS & set(file.relative_to(path).parts)}
        folders |= dict.fromkeys(sorted(own))
    found = [_read(folder) for folder in folders]
    complete = [run for run in found if isinstance(run, Run)]
    others = [run for run in found if isinstance(run, Unfinished)]
    if not complete:
        raise ValueError(f"PATH must be a folder with complete runs, got {len(others)} runs, none of them complete")
    return sorted(complete, key=lambda run: run.result.started), others


def _read(folder: Path) -> Run | Unfinished:
    """Returns the run in a folder, or what became of it."""
    if not (folder / FILE_NAME).is_file():
        return Unfinished(folder=folder, why="half-written: it goes on, or was killed")
    try:
        result = RunResult.read(folder)
    except ValueError as error:
        return Unfinished(folder=folder, why=str(error))
    if result.status != "complete":
        return Unfinished(folder=folder, why=result.status + (f": {result.error}" if result.error else ""))
    missing = [name for name in _NEEDED if getattr(result, name) is None]
    if missing:
        return Unfinished(folder=folder, why=f"{FILE_NAME} must have {', '.join(missing)} where it is complete")
    try:
        return Run(folder=folder, result=result, settings=_read_settings(folder))
    except (yaml.YAMLError, AttributeError, ValueError) as error:  # ValueError: bad bytes, and dates that are none
        return Unfinished(folder=folder, why=f"{_CONFIG} must be YAML with keys, got {' '.join(str(error).split())}")


def _read_settings(folder: Path) -> Settings:
    """Returns what config.yaml holds, flat; nothing where there is none."""
    file = folder / _CONFIG
    config = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER) if file.is_file() else {}
    return frozenset(_flat({key: value for key, value in config.items() if key not in _NOT_LEARNING}))


def _flat(node: object, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list) and node and all(isinstance(each, Mapping) and "name" in each for each in node):
        yield key, json.dumps([each["name"] for each in node])
        for each in node:
            yield from _flat({name: value for name, value in each.items() if name != "name"}, f"{key}.{each['name']}")
    else:
        yield key, node if isinstance(node, str) else json.dumps(node, default=str)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Returns runs of the same settings together, in the order of their first run.

    Of runs that share their seed as well, one made again, the last counts.
    """
    once = {(run.kind, run.settings, run.result.seed): run for run in runs}
    together: dict[tuple[Kind, Settings], list[Run]] = {}
    for run in once.values():
        together.setdefault((run.kind, run.settings), []).append(run)
    shared: dict[Kind, Settings] = {}
    for kind, settings in together:
        shared[kind] = shared.get(kind, settings) & settings
    return [
        Group(label=_label(kind, settings - shared[kind], kinds=shared.keys()), runs=tuple(members))
        for (kind, settings), members in together.items()
    ]


def _label(kind: Kind, unshared: Settings, *, kinds: Collection[Kind]) -> str:
    """Returns the method, with model and data where they differ, and the settings that its like do not share."""
    model, data, method = kind
    words = [method]
    words += [f"on {data}"] if len({other for _, other, _ in kinds}) > 1 else []
    words += [f"of {model}"] if len({other for other, _, _ in kinds}) > 1 else []
    unlike = dict(sorted(unshared))
    told = [key for key in unlike if not any(key.startswith(f"{other}.") for other in unlike)]  # a list tells its names
    return " ".join([*words, *(f"{key}={_short(unlike[key])}" for key in told)])


def _short(value: str) -> str:
    """Returns the beginning of a long value: a whole data set's settings make no label."""
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…"


def after(result: RunResult) -> float | None:
    """Returns the target's own score after; of several targets the mean."""
    return result.after_mean


def gain(result: RunResult) -> float | None:
    """Returns how much better the target became; of several targets the mean."""
    return result.gain_mean


def gained(task: str) -> Reader:
    """Returns what reads how much better one target became."""
    return lambda result: (result.gain or {}).get(task)


def mixed_targets(groups: Sequence[Group]) -> list[str]:
    """Returns the targets of the runs that have several, whose mean hides what each came to."""
    several = [run.result.targets for group in groups for run in group.runs if len(run.result.targets) > 1]
    return list(dict.fromkeys(name for targets in several for name in targets))


def mean_forgetting(result: RunResult) -> float | None:
    """Returns the mean over retained tasks that count."""
    return result.forgetting and result.forgetting["mean"]


def forgetting(result: RunResult) -> Mapping[str, float]:
    """Returns how much worse each retained task became."""
    return result.forgetting["tasks"] if result.forgetting else {}


def forgotten(task: str) -> Reader:
    """Returns what reads how much worse one task became."""
    return lambda result: forgetting(result).get(task)


def peak(result: RunResult) -> float | None:
    """Returns the peak of memory, in GB."""
    peak = result.cost and result.cost["peak_memory_bytes"]
    return None if peak is None else peak / 1e9


def seconds(result: RunResult) -> float | None:
    """Returns the seconds of training."""
    return result.cost and result.cost["train_seconds"]


def hardware(run: Run) -> str:
    """Returns what a run computed on."""
    machine = run.result.hardware
    if machine is None:
        return "unknown hardware"
    return f"{machine['device']}, {machine['devices']} of them, {machine['threads']} threads, {machine['precision']}"
