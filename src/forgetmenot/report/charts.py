"""The charts of the page, as plotly reads them: plain dicts of traces and layout."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import mean, stdev

from forgetmenot.report.lines import read_metrics
from forgetmenot.report.runs import Group, Reader, Settings, after, gain, hardware, mean_forgetting, peak, seconds
from forgetmenot.result import Interval

Figure = dict[str, object]
Point = tuple[float, float, Group]
"""Mean forgetting, gain, and whose they are."""

_POINTS = 200  # of a curve, at most: more cannot be told apart on a screen
_OF_ALL_CURVES = 20_000  # points, in a page of 6 MB
_DIGITS = 5  # of a curve's value: what a screen can show
_MOST_TICKS = 10  # that find room beside each other on a phone
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star")
_COLOURS = 10  # of plotly, which then begin anew
_SHORT = 12  # letters of a name that finds room at its dot


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure with its heading and one sentence on how to read it."""

    name: str
    title: str
    note: str
    figure: Figure


def pareto(groups: Sequence[Group]) -> Chart | None:
    """Returns gain against mean forgetting: a dot a group, its size the share that was trained."""
    points: list[Point] = []
    for group in groups:
        gains, losses = group.values(gain), group.values(mean_forgetting)
        if gains and losses:
            points.append((mean(losses), mean(gains), group))
    if not points:
        return None
    best = front(points)
    traces: list[dict[str, object]] = []
    named = all(len(group.label) <= _SHORT for _, _, group in points)
    for number, (x, y, group) in enumerate(points):
        outline = {"width": 3 if (x, y, group) in best else 0}
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": text(group.label), "x": [x], "y": [y],
                **(_beside(group.label) if named else {}),
                "error_x": _error(group, mean_forgetting), "error_y": _error(group, gain),
                "marker": {"size": _size(group), "symbol": _symbol(number), "line": outline},
                "hovertext": text(_told(group)), "hoverinfo": "text",
            }
        )  # fmt: skip
    traces.append(  # behind the dots, and last of all: so each group has the same colour in every chart
        {
            "type": "scatter", "mode": "lines", "name": "Pareto front", "hoverinfo": "skip", "zorder": -1,
            "x": [x for x, _, _ in best], "y": [y for _, y, _ in best],
            "line": {"dash": "dot", "shape": "hv", "color": "#888"},
        }
    )  # fmt: skip
    note = (
        "Up is better, left is better: what lies on the dotted front is beaten by nothing in both. The larger the dot, "
        "the more was trained. Bars are the standard deviation over seeds, or of one seed the 95% interval."
    )
    layout = {
        "xaxis": {"title": {"text": "mean forgetting"}},
        "yaxis": {"title": {"text": "gain"}},
        "height": _height(len(points)),
    }
    return Chart(name="pareto", title="Gain against forgetting", note=note, figure={"data": traces, "layout": layout})


def front(points: Sequence[Point]) -> list[Point]:
    """Returns the points that no other beats in both, by rising forgetting."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def costs(groups: Sequence[Group]) -> list[Chart]:
    """Returns seconds and memory of training, one chart for each hardware: others are not compared."""
    machines: dict[str, list[Group]] = {}
    for group in groups:
        for machine in dict.fromkeys(map(hardware, group.runs)):
            runs = tuple(run for run in group.runs if hardware(run) == machine)
            part = Group(label=group.label, runs=runs)
            if part.values(seconds):
                machines.setdefault(machine, []).append(part)
    charts = []
    for number, (machine, members) in enumerate(machines.items()):
        labels = [text(group.label) for group in members]
        traces = [
            {
                "type": "bar", "orientation": "h", "name": name, "y": labels, "xaxis": axis,
                "x": [mean(values) if (values := group.values(read)) else None for group in members],
            }
            for name, axis, read in (("seconds of training", "x", seconds), ("peak memory, GB", "x2", peak))
        ]  # fmt: skip
        layout = {
            "xaxis": {"domain": [0, 0.47], "title": {"text": "seconds of training"}},
            "xaxis2": {"domain": [0.53, 1], "title": {"text": "peak memory, GB"}},
            "yaxis": {"automargin": True, "autorange": "reversed"},
            "showlegend": False,
            "height": 140 + 34 * len(members),
        }
        figure: Figure = {"data": traces, "layout": layout}
        charts.append(Chart(name=f"cost{number}", title="Cost of a run", note=f"On {machine}.", figure=figure))
    return charts


def curves(groups: Sequence[Group]) -> Chart | None:
    """Returns the validation score of every group's first run as it was trained."""
    traces: list[dict[str, object]] = []
    for group in groups:
        steps, values = _validation(group, points=min(_POINTS, _OF_ALL_CURVES // len(groups)))
        if len(values) > 1:
            traces.append(
                {
                    "type": "scatter", "mode": "lines+markers", "name": text(group.label), "x": steps, "y": values,
                    "marker": {"symbol": _symbol(len(traces))},
                }
            )  # fmt: skip
    if not traces:
        return None
    metrics = dict.fromkeys(task["metric"] for task in groups[0].runs[0].result.targets.values())
    layout = {
        "xaxis": {"title": {"text": "optimizer steps"}},
        "yaxis": {"title": {"text": text(f"validation {' and '.join(metrics)}")}},
        "height": _height(len(traces)),
    }
    note = "The target's score on validation examples (of several their mean), of each group's first run."
    return Chart(name="curves", title="Learning curves", note=note, figure={"data": traces, "layout": layout})


def sweeps(groups: Sequence[Group]) -> list[Chart]:
    """Returns gain and forgetting over every numeric setting that alone sets three or more groups apart."""
    charts: list[Chart] = []
    for kind in dict.fromkeys(group.runs[0].kind for group in groups):
        found = _sweeps_of([group for group in groups if group.runs[0].kind == kind])
        for key, shared, members in found:
            alike = frozenset.intersection(*(other for name, other, _ in found if name == key))
            unlike = " ".join(f"{name}={value}" for name, value in sorted(shared - alike))
            title = f"{kind[2]}{' ' if unlike else ''}{unlike} over {key}"
            charts.append(_sweep(members, key=key, name=f"sweep{len(charts)}", title=title))
    return charts


def _sweeps_of(groups: Sequence[Group]) -> list[tuple[str, Settings, list[Group]]]:
    """Returns each number by which alone some groups differ, with the settings that they share, and those groups."""
    together = frozenset.intersection(*(group.runs[0].settings for group in groups))
    members: dict[tuple[str, Settings], list[Group]] = {}
    for group in groups:
        unlike = group.runs[0].settings - together
        for key, value in sorted(unlike):
            if _is_number(value):
                members.setdefault((key, unlike - {(key, value)}), []).append(group)
    return [(key, shared, sweep) for (key, shared), sweep in members.items() if len(sweep) >= 3]


def _sweep(groups: Sequence[Group], *, key: str, name: str, title: str) -> Chart:
    """Returns gain and forgetting over the values of one setting."""
    values = [float(dict(group.runs[0].settings)[key]) for group in groups]
    order = sorted(range(len(groups)), key=lambda i: values[i])
    traces = []
    for label, read in (("gain", gain), ("mean forgetting", mean_forgetting)):
        measured = [groups[i].values(read) for i in order]
        down, up = zip(*(_ends(groups[i], read) for i in order), strict=True)
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": label, "x": [values[i] for i in order],
                "y": [mean(found) if found else None for found in measured],
                "error_y": {"symmetric": False, "arrayminus": list(down), "array": list(up)},
            }
        )  # fmt: skip
    wide = min(values) > 0 and max(values) / min(values) >= 8
    axis: dict[str, object] = {"title": {"text": text(key)}, "type": "log" if wide else "linear"}
    if wide and len(set(values)) <= _MOST_TICKS:  # plotly's own ticks of such an axis are single digits
        axis |= {"tickvals": sorted(set(values)), "ticktext": [f"{value:g}" for value in sorted(set(values))]}
    note = "Bars are the standard deviation over seeds, or of one seed the 95% interval."
    return Chart(name=name, title=title, note=note, figure={"data": traces, "layout": {"xaxis": axis}})


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _beside(label: str) -> dict[str, object]:
    """Returns what names a dot."""
    return {"mode": "markers+text", "text": [text(label)], "textposition": "top left", "textfont": {"size": 11}}


def _symbol(number: int) -> str:
    """Returns the shape of a group's marks: another one each time that colours begin anew."""
    return _SYMBOLS[number // _COLOURS % len(_SYMBOLS)]


def _height(entries: int) -> int:
    """Returns the pixels of a chart with a legend below it, which on a phone has a line an entry."""
    return 380 + 20 * entries


def number_of(count: int, noun: str) -> str:
    """Returns a count with its noun, which takes an s where there are more than one, or none."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def text(words: str) -> str:
    """Returns words for plotly, which takes tags for markup but leaves quotes as they are."""
    return escape(words, quote=False)


def _error(group: Group, read: Reader) -> dict[str, object]:
    """Returns the bars around a dot."""
    values, (down, up) = group.values(read), _ends(group, read)
    if not values or down == up == 0.0:
        return {"visible": False}
    return {"type": "data", "symmetric": False, "array": [up], "arrayminus": [down]}


def _ends(group: Group, read: Reader) -> tuple[float, float]:
    """Returns how far bars go down and up from the mean: the spread over seeds, or the interval of one."""
    values = group.values(read)
    if len(values) > 1:
        return stdev(values), stdev(values)
    result = group.runs[0].result
    ends: Interval | None = None
    if read is gain:
        ends = result.gain_mean_ci
    elif result.forgetting_ci:
        ends = result.forgetting_ci["mean"]
    if ends is None or not values:
        return 0.0, 0.0
    return values[0] - ends[0], ends[1] - values[0]


def _size(group: Group) -> float:
    """Returns a dot's width in pixels: 10 for a thousandth of a percent and less, 34 for all weights."""
    shares = group.values(lambda result: result.method and result.method["trainable_percent"])
    share = max(mean(shares), 1e-3) if shares else 1e-3
    return 10 + 24 * (math.log10(share) + 3) / 5


def _told(group: Group) -> str:
    """Returns what hovering over a dot tells."""
    figures: Mapping[str, list[float]] = {
        "after": group.values(after), "gain": group.values(gain), "mean forgetting": group.values(mean_forgetting),
    }  # fmt: skip
    told = [f"{name} {mean(values):.3f}" for name, values in figures.items() if values]
    return f"{group.label}: {', '.join(told)}, {number_of(len(group.runs), 'seed')}, {group.runs[0].folder.name}"


def _validation(group: Group, *, points: int) -> tuple[list[int], list[float]]:
    """Returns the steps at which the first run was validated, and its target's scores there, no more than `points`."""
    run = group.runs[0]
    file, metrics = run.folder / "metrics.jsonl", [task["metric"] for task in run.result.targets.values()]
    if not metrics or not file.is_file():
        return [], []
    key = f"val/{metrics[0]}" if len(metrics) == 1 else "val/mean"
    lines = read_metrics(file, holding=key)
    found = [(step, value) for line in lines if (step := line["step"]) is not None and (value := line[key]) is not None]
    every = -(-len(found) // max(1, points)) or 1
    return [int(step) for step, _ in found[::every]], [float(f"{value:.{_DIGITS}g}") for _, value in found[::every]]
