"""The table at the end of a run: task by task before, after, gain or forgetting, and the cost."""

from rich.console import Console
from rich.table import Table

from forgetmenot.result import RunResult


def print_result(result: RunResult, *, folder: str, console: Console) -> None:
    """Prints a complete run's table and where it lies."""
    console.print(result_table(result))
    console.print(cost_sentence(result))
    console.print(f"The run lies in {folder}", soft_wrap=True, markup=False)


def result_table(result: RunResult) -> Table:
    """Returns one row a task; gain counts what became better, forgetting what became worse."""
    assert result.tasks is not None and result.gain is not None and result.forgetting is not None
    table = Table(title=f"{result.method['name']} on {result.data['name']}" if result.method and result.data else None)
    for heading in ("task", "metric"):
        table.add_column(heading)
    for heading in ("before", "after", "gain", "forgetting"):
        table.add_column(heading, justify="right")
    table.add_column("not counted")
    for name, task in result.tasks.items():
        metric, after = task["metric"], task["after"]
        gain, forgotten = result.gain.get(name), result.forgetting["tasks"].get(name)
        table.add_row(
            name,
            metric,
            _number(task["before"][metric], ".3f"),
            "" if after is None else _number(after[metric], ".3f"),
            _number(gain, "+.3f"),
            _number(forgotten, "+.3f"),
            task.get("reason") or "",
        )
    mean = result.forgetting["mean"]
    table.add_section()
    table.add_row("mean forgetting", "", "", "", "", _number(mean, "+.3f") or "none counts")
    return table


def cost_sentence(result: RunResult) -> str:
    """Returns what the run cost, in one sentence with units."""
    assert result.cost and result.method and result.model
    cost, method = result.cost, result.method
    speed = _number(cost["train_tokens_per_second"], ",.0f") or "unknown"
    memory = cost["peak_memory_bytes"]
    peak = "unknown" if memory is None else f"{memory / 1e9:.2f} GB"
    saved, waited = method["saved_bytes"], cost["loading_seconds"] / (cost["train_seconds"] or 1)
    return (
        f"Trained {method['trainable_percent']:.1f}% of {result.model['parameters'] / 1e6:.1f} M parameters "
        f"in {cost['train_seconds']:.0f} s ({speed} tokens a second, {waited:.1%} of it waiting for data, "
        f"peak memory {peak}), "
        f"scored in {cost['evaluate_seconds']:.0f} s, saved {(saved or 0) / 1e6:.2f} MB."
    )


def _number(value: float | None, layout: str) -> str:
    return "" if value is None else format(value, layout)
