"""Compares runs by their result files: what differs between them, mean and spread over seeds, answers side by side."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import yaml
from rich.markup import escape
from rich.table import Table

from forgetmenot.result import FILE_NAME, RunResult

_NOT_LEARNING = ("seed", "hydra", "logger", "micro_batch_tokens")  # settings that do not set runs apart
Settings = frozenset[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run, the folder that it lies in, and its settings less the seed as (key, value)."""

    folder: Path
    result: RunResult
    settings: Settings

    @property
    def kind(self) -> tuple[str, str, str]:
        """What a run is first called by: its model, data and method."""
        model, data, method = self.result.model, self.result.data, self.result.method
        assert model is not None and data is not None and method is not None, "complete runs have them"
        return model["name"], data["name"], method["name"]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ by their seed alone; `label` says what sets them apart from the other groups."""

    label: str
    runs: tuple[Run, ...]

    def values(self, read: Callable[[RunResult], float | None]) -> list[float]:
        """Returns what `read` finds in each run; runs without it are left out."""
        found = [read(run.result) for run in self.runs]
        return [value for value in found if value is not None]


def find_runs(paths: Iterable[Path]) -> tuple[list[Run], int]:
    """Returns the complete runs in or below `paths`, first started first, and how many others there are.

    Raises ValueError where a path is no folder or no run is complete.
    """
    folders: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"PATH must be an existing folder, got {path}")
        folders |= dict.fromkeys(file.parent for file in sorted(path.rglob(FILE_NAME)))
    found = [Run(folder=folder, result=RunResult.read(folder), settings=_read_settings(folder)) for folder in folders]
    complete = sorted((run for run in found if run.result.status == "complete"), key=lambda run: run.result.started)
    if not complete:
        raise ValueError(f"PATH must be a folder with complete runs, got {len(found)} runs, none of them complete")
    return complete, len(found) - len(complete)


def _read_settings(folder: Path) -> Settings:
    """Returns what config.yaml holds, flat; nothing where the run ended before it was written."""
    file = folder / "config.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return frozenset(_flat({key: value for key, value in config.items() if key not in _NOT_LEARNING}))


def _flat(node: object, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node if isinstance(node, str) else json.dumps(node)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Returns runs of the same settings together, in the order of their first run.

    Of runs that share their seed as well, one made again, the last counts.
    """
    once = {(run.kind, run.settings, run.result.seed): run for run in runs}
    together: dict[tuple[tuple[str, str, str], Settings], list[Run]] = {}
    for run in once.values():
        together.setdefault((run.kind, run.settings), []).append(run)
    return [Group(label=_label(members[0], runs), runs=tuple(members)) for members in together.values()]


def _label(run: Run, runs: Sequence[Run]) -> str:
    """Returns the method, with model and data where they differ, and the settings that its like do not share."""
    model, data, method = run.kind
    words = [method]
    words += [f"on {data}"] if len({other.kind[1] for other in runs}) > 1 else []
    words += [f"of {model}"] if len({other.kind[0] for other in runs}) > 1 else []
    shared = frozenset.intersection(*(other.settings for other in runs if other.kind == run.kind))
    return " ".join([*words, *sorted(f"{key}={value}" for key, value in run.settings - shared)])


def comparison(groups: Sequence[Group]) -> Table:
    """Returns one row a group: the target after, gain, forgetting task by task, and cost, as mean ± spread."""
    retained = list(dict.fromkeys(name for group in groups for run in group.runs for name in _forgetting(run.result)))
    table = Table(title="mean ± standard deviation over seeds" if any(len(g.runs) > 1 for g in groups) else None)
    table.add_column("run")
    for heading in ("seeds", "after", "gain", "forgetting", *retained, "trained %", "train s", "peak GB"):
        table.add_column(heading, justify="right")
    for group in groups:
        table.add_row(
            escape(group.label),
            str(len(group.runs)),
            spread(group.values(_after)),
            spread(group.values(_gain), sign="+"),
            spread(group.values(lambda result: result.forgetting and result.forgetting["mean"]), sign="+"),
            *(spread(group.values(_forgotten(name)), sign="+") for name in retained),
            spread(group.values(lambda result: result.method and result.method["trainable_percent"]), digits=1),
            spread(group.values(lambda result: result.cost and result.cost["train_seconds"]), digits=0),
            spread(group.values(_peak), digits=2),
        )
    return table


def spread(values: Sequence[float], *, digits: int = 3, sign: str = "") -> str:
    """Returns mean ± standard deviation (n - 1); of one value itself, of none nothing."""
    if not values:
        return ""
    text = format(mean(values), f"{sign}.{digits}f")
    return text if len(values) == 1 or digits < 3 else f"{text} ± {stdev(values):.{digits}f}"


def answers(groups: Sequence[Group], *, per_task: int) -> list[Table]:
    """Returns what each group's first run answered to the first prompts of every retained task, beside the base.

    Groups of one base, asked the same, share a table.
    """
    together: dict[str, list[Group]] = {}
    for group in groups:
        asked = {
            name: [(line["prompt"], line["before"]) for line in _read_lines(file, per_task)]
            for name, file in _retained_predictions(group).items()
        }
        together.setdefault(json.dumps(asked), []).append(group)
    return [_answers_of_one_base(members, per_task=per_task) for members in together.values()]


def _answers_of_one_base(groups: Sequence[Group], *, per_task: int) -> Table:
    table = Table(title="the first run of each: what it answered")
    for heading in ("prompt", "right", "base", *(escape(group.label) for group in groups)):
        table.add_column(heading, overflow="fold")
    files_of = [_retained_predictions(group) for group in groups]
    for name in files_of[0]:
        files = [files[name] for files in files_of]
        for lines in zip(*(_read_lines(file, per_task) for file in files), strict=True):
            shown = (lines[0]["prompt"].strip(), " / ".join(lines[0]["references"]), lines[0]["before"])
            table.add_row(*map(escape, (*shown, *(line["after"] for line in lines))))
        table.add_section()
    return table


def _retained_predictions(group: Group) -> dict[str, Path]:
    """Returns the predictions of the first run for each retained task that answers."""
    run = group.runs[0]
    tasks = [name for name, task in (run.result.tasks or {}).items() if task["role"] == "retained"]
    files = {name: run.folder / "predictions" / f"{name}.jsonl" for name in tasks}
    return {name: file for name, file in files.items() if file.is_file()}


def _read_lines(file: Path, count: int) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]


def _after(result: RunResult) -> float | None:
    task = result.target
    return task["after"][task["metric"]] if task and task["after"] else None


def _gain(result: RunResult) -> float | None:
    return next(iter((result.gain or {}).values()), None)


def _forgetting(result: RunResult) -> Mapping[str, float]:
    return result.forgetting["tasks"] if result.forgetting else {}


def _forgotten(task: str) -> Callable[[RunResult], float | None]:
    return lambda result: _forgetting(result).get(task)


def _peak(result: RunResult) -> float | None:
    peak = result.cost and result.cost["peak_memory_bytes"]
    return None if peak is None else peak / 1e9
