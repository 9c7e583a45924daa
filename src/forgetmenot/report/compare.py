"""Runs side by side in a terminal: mean and spread over seeds, and what they answered."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, ConsoleOptions, JustifyMethod
from rich.markup import escape
from rich.table import Table

from forgetmenot.report.figures import figures, unlike_hardware
from forgetmenot.report.lines import first_predictions
from forgetmenot.report.runs import Group

_LABELS = 3  # of a terminal's width, a label takes one part in so many at most
_FRAME = 3  # columns that a figure takes beside its own: a line and a space on both sides


@dataclass(frozen=True, kw_only=True)
class _Column:
    heading: str
    cells: tuple[str, ...]
    justify: JustifyMethod = "right"

    @property
    def width(self) -> int:
        return _FRAME + max(map(len, (self.heading, *self.cells)))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every figure of groups of runs as mean ± spread, a row each.

    What is wider than the terminal goes on in a table below: no figure is cut.
    """

    groups: tuple[Group, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        labels = [group.label for group in self.groups]
        most = max(len("run"), min(max(map(len, labels)), options.max_width // _LABELS))
        title = "mean ± standard deviation over seeds" if any(len(group.runs) > 1 for group in self.groups) else None
        for columns in _that_fit(_columns(self.groups), room=options.max_width - most - _FRAME - 1):
            table = Table(title=title)
            table.add_column("run", overflow="fold", max_width=most)
            for column in columns:
                table.add_column(column.heading, justify=column.justify, overflow="fold")
            for place, label in enumerate(labels):
                table.add_row(escape(label), *(escape(column.cells[place]) for column in columns))
            yield table
            title = None


def comparison(groups: Sequence[Group]) -> Comparison:
    """Returns groups side by side, to be printed."""
    return Comparison(groups=tuple(groups))


def _columns(groups: Sequence[Group]) -> list[_Column]:
    """Returns what stands beside each group's label."""
    seeds = _Column(heading="seeds", cells=tuple(str(len(group.runs)) for group in groups))
    shown = [
        _Column(heading=figure.heading, cells=tuple(figure.shown(group) for group in groups))
        for figure in figures(groups)
    ]
    machines = tuple(unlike_hardware(groups))
    return [seeds, *shown, *([_Column(heading="hardware", cells=machines, justify="left")] if machines else [])]


def _that_fit(columns: Sequence[_Column], *, room: int) -> list[list[_Column]]:
    """Returns columns in as many parts as it takes for each to have room; one that is wider stands alone."""
    parts: list[list[_Column]] = [[]]
    for column in columns:
        if parts[-1] and sum(each.width for each in (*parts[-1], column)) > room:
            parts.append([])
        parts[-1].append(column)
    return parts


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
            name: [(line["prompt"], line["before"]) for line in first_predictions(file, per_task)]
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
        for lines in zip(*(first_predictions(file, per_task) for file in files), strict=True):
            shown = [lines[0]["prompt"].strip(), " / ".join(lines[0]["references"]), lines[0]["before"]]
            rows.append([*shown, *(line["after"] or "" for line in lines)])
    return Answers(headings=["prompt", "right", "base", *(group.label for group in groups)], rows=rows)


def _retained_predictions(group: Group) -> dict[str, Path]:
    """Returns the predictions of the first run for each retained task that answers."""
    run = group.runs[0]
    tasks = [name for name, task in (run.result.tasks or {}).items() if task["role"] == "retained"]
    files = {name: run.folder / "predictions" / f"{name}.jsonl" for name in tasks}
    return {name: file for name, file in files.items() if file.is_file()}
