"""The tasks that a data set's settings describe: one target or several, and what is retained."""

from collections.abc import Iterable

from omegaconf import DictConfig

from forgetmenot.config.build import build
from forgetmenot.config.errors import ConfigError
from forgetmenot.data.mix import Mixing
from forgetmenot.data.task import Task

Tasks = tuple[Task, ...]


def tasks_of(data: DictConfig) -> tuple[Mixing, Tasks, Tasks]:
    """Returns how targets are mixed, the targets, and the retained tasks; one target is a mixture of itself.

    Raises ConfigError where settings cannot be used, or two tasks have one name.
    """
    node = data.copy()
    retained = node.pop("retained", None) or []
    if "tasks" in node:
        entries = node.pop("tasks") or []
        if not entries:
            raise ConfigError("data.tasks must name at least one data set, such as [sentiment, names], got none")
        targets = _built(entries, key="data.tasks")
        mixing = build(node, Mixing, key="data")
        if mixing.weights and len(mixing.weights) != len(targets):
            raise ConfigError(
                f"data.weights must be one for each of the {len(targets)} data.tasks, got {len(mixing.weights)}"
            )
    else:
        targets = (build(node, Task, key="data"),)
        mixing = Mixing.of_one(targets[0].name)
    kept = _built(retained, key="data.retained")
    names = [task.name for task in (*targets, *kept)]
    for name in names:
        if names.count(name) > 1:
            key, other = ("data.retained", "data.name") if len(targets) == 1 else ("data.tasks", "data.retained")
            raise ConfigError(f"{key} must be data sets of different names, also from {other}, got {name} twice")
    return mixing, targets, kept


def _built(entries: Iterable[DictConfig], *, key: str) -> Tasks:
    return tuple(build(entry, Task, key=f"{key}[{i}]") for i, entry in enumerate(entries))
