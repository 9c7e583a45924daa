"""The table at the end of a run: task by task before, after, gain or forgetting, and the cost."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from forgetmenot.forgetting import BASE_CANNOT, BY_CONSTRUCTION
from forgetmenot.result import Interval, RunResult

_BELOW = (BASE_CANNOT, BY_CONSTRUCTION)  # reasons that would break a task's row


def print_result(result: RunResult, *, folder: str, console: Console) -> None:
    """Prints a complete run's table and where it lies."""
    console.print(result_table(result))
    console.print(cost_sentence(result))
    scores = [name for name in result.reused if name.startswith("before.")]
    if scores:
        console.print(f"The base's scores were known from an earlier run ({len(scores)} tasks).")
    for name in result.reused[len(scores) :]:  # what penalties reused comes after
        console.print(f"The {name.capitalize()} was known from an earlier run.")
    console.print(f"The run lies in {folder}", soft_wrap=True, markup=False)


def print_evaluation(result: RunResult, *, folder: str, console: Console) -> None:
    """Prints a complete evaluation's table and where it lies."""
    console.print(result_table(result))
    assert result.cost is not None
    console.print(f"Scored in {result.cost['evaluate_seconds']:.0f} s.")
    console.print(f"The evaluation lies in {folder}", soft_wrap=True, markup=False)


def result_table(result: RunResult) -> Table:
    """Returns one row a task; gain counts what became better, forgetting what became worse.

    The 95% interval is that of the gain or of the forgetting; where there is one model alone, of its score. Behind the
    name of a task that does not count stands why; a longer reason is told below, where there is room.
    """
    assert result.tasks is not None and result.data is not None
    model = result.method["name"] if result.method else result.model["name"] if result.model else ""
    title = f"{model} on {result.data['name']}"
    table = Table(title=title, pad_edge=False, caption_justify="left")  # fits a terminal of 80 columns
    for heading in ("task", "metric"):
        table.add_column(heading)
    for heading in ("before", "after", "gain", "forgetting", "95%"):
        table.add_column(heading, justify="right")
    gain, forgetting = result.gain or {}, result.forgetting or {"tasks": {}, "mean": None}
    intervals = _intervals(result)
    reasons = {name: task.get("reason") for name, task in result.tasks.items()}
    table.caption = _told_below(reasons)
    for name, task in result.tasks.items():
        metric, after = task["metric"], task["after"]
        reason = reasons[name]
        table.add_row(
            name if reason is None or reason in _BELOW else f"{name}, {reason}",
            metric,
            _number(task["before"][metric], ".3f"),
            "" if after is None else _number(after[metric], ".3f"),
            _number(gain.get(name), "+.3f"),
            _number(forgetting["tasks"].get(name), "+.3f"),
            _interval(intervals.get(name)),
        )
    table.add_section()
    if len(gain) > 1:
        table.add_row("mean gain", "", "", "", _number(result.gain_mean, "+.3f"), "", _interval(result.gain_mean_ci))
    if result.forgetting is not None:
        mean, ends = forgetting["mean"], result.forgetting_ci["mean"] if result.forgetting_ci else None
        told = _number(mean, "+.3f") or "none counts"
        table.add_row("mean forgetting", "", "", "", "", told, _interval(ends))
    return table


def _told_below(reasons: Mapping[str, str | None]) -> str | None:
    """Returns a line for each of the longer reasons, with the tasks that it holds for."""
    named = {reason: [name for name, of_task in reasons.items() if of_task == reason] for reason in _BELOW}
    return "\n".join(f"{reason}: {', '.join(names)}" for reason, names in named.items() if names) or None


def _intervals(result: RunResult) -> Mapping[str, Interval]:
    """Returns the interval that a task's row shows; none where an older file has none."""
    if result.gain_ci is not None and result.forgetting_ci is not None:
        return {**result.gain_ci, **result.forgetting_ci["tasks"]}
    tasks = result.tasks or {}
    return {name: task["ci"]["before"][task["metric"]] for name, task in tasks.items() if "ci" in task}


def _interval(ends: Interval | None) -> str:
    return "" if ends is None else f"{ends[0]:.2f}–{ends[1]:.2f}"


def cost_sentence(result: RunResult) -> str:
    """Returns what the run cost, in one sentence with units."""
    assert result.cost and result.method and result.model
    cost, method = result.cost, result.method
    if cost["train_seconds"] is None:
        tokens = _number(cost["prompt_tokens_per_example"], ",.0f") or "unknown"
        return f"Trained nothing; prompts have {tokens} tokens in the mean, scored in {cost['evaluate_seconds']:.0f} s."
    speed = _number(cost["train_tokens_per_second"], ",.0f") or "unknown"
    memory = cost["peak_memory_bytes"]
    peak = "unknown" if memory is None else f"{memory / 1e9:.2f} GB"
    seconds = cost["train_seconds"] or 0.0
    saved, waited = method["saved_bytes"], (cost["loading_seconds"] or 0.0) / (seconds or 1)
    return (
        f"Trained {method['trainable_percent']:.1f}% of {result.model['parameters'] / 1e6:.1f} M parameters "
        f"in {seconds:.0f} s ({speed} tokens a second, {waited:.1%} of it waiting for data, "
        f"peak memory {peak}), "
        f"scored in {cost['evaluate_seconds']:.0f} s, saved {(saved or 0) / 1e6:.2f} MB."
    )


def _number(value: float | None, layout: str) -> str:
    return "" if value is None else format(value, layout)
