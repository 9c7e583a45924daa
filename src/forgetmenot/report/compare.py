"""Runs side by side in a terminal: mean and spread over seeds, and what they answered."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from forgetmenot.report.figures import figures, unlike_hardware
from forgetmenot.report.lines import read_predictions
from forgetmenot.report.runs import Group


def comparison(groups: Sequence[Group]) -> Table:
    """Returns one row a group, with every figure as mean ± spread."""
    columns, machines = figures(groups), unlike_hardware(groups)
    table = Table(title="mean ± standard deviation over seeds" if any(len(g.runs) > 1 for g in groups) else None)
    table.add_column("run")
    for heading in ("seeds", *(figure.heading for figure in columns)):
        table.add_column(heading, justify="right")
    if machines:
        table.add_column("hardware")
    for place, group in enumerate(groups):
        shown = [figure.shown(group) for figure in columns]
        table.add_row(escape(group.label), str(len(group.runs)), *shown, *machines[place : place + 1])
    return table


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
            name: [(line["prompt"], line["before"]) for line in islice(read_predictions(file), per_task)]
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
        for lines in zip(*(islice(read_predictions(file), per_task) for file in files), strict=True):
            shown = [lines[0]["prompt"].strip(), " / ".join(lines[0]["references"]), lines[0]["before"]]
            rows.append([*shown, *(line["after"] or "" for line in lines)])
    return Answers(headings=["prompt", "right", "base", *(group.label for group in groups)], rows=rows)


def _retained_predictions(group: Group) -> dict[str, Path]:
    """Returns the predictions of the first run for each retained task that answers."""
    run = group.runs[0]
    tasks = [name for name, task in (run.result.tasks or {}).items() if task["role"] == "retained"]
    files = {name: run.folder / "predictions" / f"{name}.jsonl" for name in tasks}
    return {name: file for name, file in files.items() if file.is_file()}
