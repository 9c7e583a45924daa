"""What a sweep judges its members by, and whether more of it is better."""

from collections.abc import Mapping, Sequence
from typing import Literal

from forgetmenot.cli.setup import Setup
from forgetmenot.data.task import Task
from forgetmenot.forgetting import LOSSES
from forgetmenot.outcome import objective
from forgetmenot.result import ObjectiveSection, RunResult


def objective_section(setup: Setup, *, result: RunResult, validation: Mapping[str, float]) -> ObjectiveSection:
    """Returns what the run is judged by, as result.json has it."""
    name = setup.settings.objective or setup.monitor.replace("/", ".")
    direction = setup.settings.direction or direction_of(name, [data.task for data in setup.targets])
    return {"name": name, "value": objective(name, result=result, validation=validation), "direction": direction}


def direction_of(name: str, targets: Sequence[Task]) -> Literal["max", "min"]:
    """Returns whether the objective `name` gets better as it rises or as it falls."""
    metric = name.rpartition(".")[2]
    if metric == "mean" and not name.startswith("forgetting"):
        return "min" if all(task.metric in LOSSES for task in targets) else "max"
    return "min" if metric in (*LOSSES, "mean") else "max"
