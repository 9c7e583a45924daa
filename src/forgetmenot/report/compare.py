"""Runs side by side in a terminal: mean and spread over seeds, and what they answered."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from rich.markup import escape
from rich.table import Table

from forgetmenot.report.runs import (
    Group,
    after,
    forgetting,
    forgotten,
    gain,
    gained,
    hardware,
    mean_forgetting,
    mixed_targets,
    peak,
    seconds,
)


def comparison(groups: Sequence[Group]) -> Table:
    """Returns one row a group: the target after, gain, forgetting task by task, and cost, as mean ± spread.

    Of several targets `after` and `gain` are means, and each has its own gain behind them.
    """
    mixed = mixed_targets(groups)
    retained = list(dict.fromkeys(name for group in groups for run in group.runs for name in forgetting(run.result)))
    table = Table(title="mean ± standard deviation over seeds" if any(len(g.runs) > 1 for g in groups) else None)
    machines = {hardware(run) for group in groups for run in group.runs}
    table.add_column("run")
    shown = ["seeds", "after", "gain", *(f"gain {name}" for name in mixed), "forgetting", *retained]
    for heading in (*shown, "trained %", "train s", "peak GB"):
        table.add_column(heading, justify="right")
    if len(machines) > 1:  # costs on unlike machines say nothing about the runs
        table.add_column("hardware")
    for group in groups:
        table.add_row(
            escape(group.label),
            str(len(group.runs)),
            spread(group.values(after)),
            spread(group.values(gain), sign="+"),
            *(spread(group.values(gained(name)), sign="+") for name in mixed),
            spread(group.values(mean_forgetting), sign="+"),
            *(spread(group.values(forgotten(name)), sign="+") for name in retained),
            spread(group.values(lambda result: result.method and result.method["trainable_percent"]), digits=1),
            spread(group.values(seconds), digits=0),
            spread(group.values(peak), digits=2),
            *(["; ".join(dict.fromkeys(map(hardware, group.runs)))] if len(machines) > 1 else []),
        )
    return table


def spread(values: Sequence[float], *, digits: int = 3, sign: str = "") -> str:
    """Returns mean ± standard deviation (n - 1); of one value itself, of none nothing."""
    if not values:
        return ""
    text = format(mean(values), f"{sign}.{digits}f")
    return text if len(values) == 1 or digits < 3 else f"{text} ± {stdev(values):.{digits}f}"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Prompts of retained tasks, and what the base and each of some groups answered."""

    headings: list[str]
    rows: list[list[str]]


def answers_table(answers: Answers) -> Table:
    """Returns the answers as a table for the terminal."""
    table = Table(title="the first run of each: what it answered")
    for heading in answers.headings:
        table.add_column(escape(heading), overflow="fold")
    for row in answers.rows:
        table.add_row(*map(escape, row))
    return table


def answers_side_by_side(groups: Sequence[Group], *, per_task: int) -> list[Answers]:
    """Returns what each group's first run answered to the first prompts of every retained task, beside the base.

    Groups of one base, asked the same, stand together.
    """
    together: dict[str, list[Group]] = {}
    for group in groups:
        asked = {
            name: [(line["prompt"], line["before"]) for line in _read_lines(file, per_task)]
            for name, file in _retained_predictions(group).items()
        }
        if asked:
            together.setdefault(json.dumps(asked), []).append(group)
    return [_of_one_base(members, per_task=per_task) for members in together.values()]


def _of_one_base(groups: Sequence[Group], *, per_task: int) -> Answers:
    files_of = [_retained_predictions(group) for group in groups]
    rows = []
    for name in files_of[0]:
        files = [files[name] for files in files_of]
        for lines in zip(*(_read_lines(file, per_task) for file in files), strict=True):
            shown = [lines[0]["prompt"].strip(), " / ".join(lines[0]["references"]), lines[0]["before"]]
            rows.append([*shown, *(line["after"] or "" for line in lines)])
    return Answers(headings=["prompt", "right", "base", *(group.label for group in groups)], rows=rows)


def _retained_predictions(group: Group) -> dict[str, Path]:
    """Returns the predictions of the first run for each retained task that answers."""
    run = group.runs[0]
    tasks = [name for name, task in (run.result.tasks or {}).items() if task["role"] == "retained"]
    files = {name: run.folder / "predictions" / f"{name}.jsonl" for name in tasks}
    return {name: file for name, file in files.items() if file.is_file()}


def _read_lines(file: Path, count: int) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]
