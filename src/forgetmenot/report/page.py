"""The page that compares runs: one file of HTML that needs no network, with charts, tables and answers."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from string import Template

from forgetmenot.durable import write_whole
from forgetmenot.report.charts import Chart, costs, curves, number_of, pareto, sweeps
from forgetmenot.report.compare import answers_side_by_side
from forgetmenot.report.figures import Figure, figures, unlike_hardware
from forgetmenot.report.lines import cut_files
from forgetmenot.report.runs import Group, Unfinished
from forgetmenot.report.significance import difference

_PER_TASK = 5  # prompts of each retained task whose answers are shown
_ANSWERING = 50  # groups whose answers stand side by side: of more nobody reads them, and a page has 6 MB
_ROUGE_NOTE = (
    "ROUGE counts words that answer and reference share. It does not see what they say: “It is cold outside” scores "
    "the same against “It is very cold” and “It is not cold”."
)


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The groups that are best by a figure or not significantly worse, and whether that was tested for all others."""

    figure: Figure
    good: tuple[Group, ...] = ()
    tested: bool = True


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a table shows, and the number that it sorts by; None sorts by the text."""

    text: str
    value: float | None = None
    numeric: bool = False
    best: bool = False


def write_page(file: Path, groups: Sequence[Group], unfinished: Sequence[Unfinished]) -> None:
    """Writes the page whole or not at all; raises ValueError where plotly is not installed."""
    if find_spec("plotly") is None:
        raise ValueError("--html needs plotly, got none; pip install 'forgetmenot-llm[report]' brings it")
    plotly: str = import_module("plotly.offline").get_plotlyjs()
    by_data: dict[str, list[Group]] = {}
    for group in groups:
        by_data.setdefault(group.runs[0].kind[1], []).append(group)
    charts: dict[str, Chart] = {}
    parts = [
        part
        for number, (data, members) in enumerate(by_data.items())
        for part in _section(number, data, members, charts)
    ]
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    runs = sum(len(group.runs) for group in groups)
    figures = json.dumps({name: chart.figure for name, chart in charts.items()})
    page = template.substitute(
        title=number_of(runs, "run"),
        summary=_summary(runs, groups=len(groups)),
        sections="\n".join([*parts, *_left_out(unfinished, groups)]),
        plotly=plotly,
        figures=figures.replace("<", "\\u003c"),
    )
    write_whole(file, page)


def _summary(runs: int, *, groups: int) -> str:
    told = f"{number_of(runs, 'complete run')} in {number_of(groups, 'group')}"
    return f"{told}, which differ by more than their seed." if groups > 1 else f"{told}."


def _section(number: int, data: str, groups: Sequence[Group], charts: dict[str, Chart]) -> list[str]:
    """Returns what the page tells of the runs on one data set, and adds its charts to `charts`."""
    trained = [group for group in groups if not group.runs[0].is_evaluation]
    found = [pareto(trained), *sweeps(trained), *costs(trained), curves(trained)] if trained else []
    parts = [f"<h2>{escape(data)}</h2>"]
    for chart in (chart for chart in found if chart is not None):
        name = f"{chart.name}_{number}"
        charts[name] = chart
        parts += [f"<h3>{escape(chart.title)}</h3>", f'<p class="note">{escape(chart.note)}</p>']
        parts.append(f'<div class="chart" id="{name}"></div>')
    marks = [_marks(groups, figure) for figure in figures(groups)]
    parts += ["<h3>All figures</h3>", f'<p class="note">{escape(_how_to_read(groups, marks))}</p>']
    parts.append(_table(groups, marks))
    each = "each group" if len(groups) <= _ANSWERING else f"each of the first {_ANSWERING} groups"
    for table in answers_side_by_side(groups[:_ANSWERING], per_task=_PER_TASK):
        parts += [
            "<h3>What they answered</h3>",
            f'<p class="note">The first run of {each}, to the same prompts.</p>',
        ]
        parts.append(
            _html_table(table.headings, [[Cell(text=text) for text in row] for row in table.rows], kind="text")
        )
    parts += ["<h3>Settings that differ</h3>", _settings(groups)]
    return parts


def _how_to_read(groups: Sequence[Group], marks: Sequence[Marks]) -> str:
    metrics = {task["metric"] for group in groups for task in (group.runs[0].result.tasks or {}).values()}
    text = (
        "Mean ± standard deviation over seeds; of one seed, its own figure. Green: the best gain, the least forgetting "
        "of a task, and whatever answers the same prompts not significantly worse (95%, test examples and seeds "
        "resampled together; of two or three seeds their spread is estimated low)."
    )
    untested = [mark.figure.heading for mark in marks if not mark.tested]
    if untested:
        text += (
            f" Not tested, so that only the best figure is green and others may be no worse: {', '.join(untested)} "
            "(means over targets, scores other than of answers, and what was not asked the same prompts)."
        )
    return f"{text} {_ROUGE_NOTE}" if any(metric.startswith("rouge") for metric in metrics) else text


def _table(groups: Sequence[Group], marks: Sequence[Marks]) -> str:
    """Returns the table of all figures."""
    machines = unlike_hardware(groups)
    rows = []
    for place, group in enumerate(groups):
        row = [Cell(text=group.label), Cell(text=str(len(group.runs)), value=len(group.runs), numeric=True)]
        row += [_cell(group, mark) for mark in marks]
        rows.append([*row, *(Cell(text=machine) for machine in machines[place : place + 1])])
    headings = ["run", "seeds", *(mark.figure.heading for mark in marks), *(["hardware"] if machines else [])]
    return _html_table(headings, rows, kind="sorts")


def _marks(groups: Sequence[Group], figure: Figure) -> Marks:
    """Returns the group that is best by a figure, and those whose answers to its task are not significantly worse.

    Of groups whose figure is the same to the last digit none is worse, tested or not.
    """
    read = figure.better
    if read is None:
        return Marks(figure=figure)
    tuned = [group for group in groups if group.values(read) and not group.runs[0].is_evaluation]
    if len(tuned) < 2:
        return Marks(figure=figure)
    means = [fmean(group.values(read)) for group in tuned]
    best = tuned[means.index(max(means))]
    good, tested = [], True
    for group, value in zip(tuned, means, strict=True):
        if value == max(means):
            good.append(group)
            continue
        ends = difference(best, group, task=figure.task)
        tested = tested and ends is not None
        if ends is not None and ends[0] <= 0:
            good.append(group)
    return Marks(figure=figure, good=tuple(good), tested=tested)


def _cell(group: Group, mark: Marks) -> Cell:
    values, shown = group.values(mark.figure.read), mark.figure.shown(group)
    return Cell(text=shown, value=fmean(values) if values else None, numeric=True, best=group in mark.good)


def _settings(groups: Sequence[Group]) -> str:
    """Returns a table of the settings that are not the same in all groups."""
    groups = [group for group in groups if not group.runs[0].is_evaluation] or groups
    shared = frozenset.intersection(*(group.runs[0].settings for group in groups))
    settings: list[Mapping[str, str]] = [dict(group.runs[0].settings - shared) for group in groups]
    keys = sorted({key for each in settings for key in each})
    if not keys:
        return "<p>None.</p>"
    rows = [[Cell(text=key), *(Cell(text=each.get(key, "")) for each in settings)] for key in keys]
    return _html_table(["setting", *(group.label for group in groups)], rows, kind="text")


def _left_out(runs: Iterable[Unfinished], groups: Sequence[Group]) -> list[str]:
    told = [*(f"{run.folder}: {run.why}" for run in runs), *cut_files(groups)]
    lines = [f"<li>{escape(each)}</li>" for each in told]
    return ["<h2>Not compared</h2>", f"<ul>{''.join(lines)}</ul>"] if lines else []


def _html_table(headings: Sequence[str], rows: Iterable[Sequence[Cell]], *, kind: str) -> str:
    """Returns a table; of kind `sorts` it has buttons for headings."""
    names = [f"<button>{escape(name)}</button>" if kind == "sorts" else escape(name) for name in headings]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _html_cell(cell: Cell) -> str:
    value = f' data-value="{"" if cell.value is None else cell.value}"' if cell.numeric else ""
    best = ' class="best"' if cell.best else ""
    return f"<td{value}{best}>{escape(cell.text)}</td>"
