"""Writes tasks out: names under `data.retained` and `data.tasks` become the settings of those data sets."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hydra import compose
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from forgetmenot.config.errors import ConfigError, did_you_mean
from forgetmenot.config.paths import choices
from forgetmenot.config.settings import Asking
from forgetmenot.config.source import is_run, read_source, targets_of


def expand_retained(config: DictConfig) -> DictConfig:
    """Returns `config` with each name in data.retained, and in data.tasks, replaced by that data set's own settings.

    Their own `retained` is left out, and so is what is a target itself (of the same name and path) from the retained
    ones. Settings already written out stay as they are.
    """
    result = config.copy()
    OmegaConf.set_struct(result, False)  # composed and checked: from here on it is ours to change
    targets: Sequence[Mapping[str, object]] = [config.data]
    if "tasks" in config.data:
        result.data.tasks = targets = _expanded(config.data.tasks, key="data.tasks")
    known = [(task["name"], task["path"]) for task in targets]
    retained = _expanded(config.data.retained, key="data.retained")
    result.data.retained = [values for values in retained if (values["name"], values["path"]) not in known]
    return result


def retain_targets_of_base(config: DictConfig) -> DictConfig:
    """Returns `config`, its retained tasks written out, with the targets of the runs that its base came from.

    A base that is no run adds none, and neither does a task that is there already (of the same name and path).
    """
    result = config.copy()
    path = config.model.path
    if is_run(path):  # the run that is made of it may be looked at from another folder
        result.model.path = path = str(Path(str(path)).expanduser().resolve())
    asking = Asking(trust_remote_code=bool(config.model.get("trust_remote_code")))
    while is_run(path):
        run = read_source(path, {}, key="model.path", asking=asking).config
        path = run.model.path
        retain(result, targets_of(run.data))
    return result


def retain(config: DictConfig, targets: Iterable[DictConfig]) -> None:
    """Adds to the retained tasks of `config`, which are written out, what is not there already, by name and path."""
    for target in targets:
        present = [(data.name, data.path) for data in (*targets_of(config.data), *config.data.retained)]
        if (target.name, target.path) not in present:
            config.data.retained.append({name: value for name, value in target.items() if name != "retained"})


def _expanded(entries: Iterable[str | DictConfig] | None, *, key: str) -> list[dict[str, object]]:
    """Returns data sets, by name or as settings, as settings without what they retain."""
    if isinstance(entries, str):
        raise ConfigError(f"{key} must be a list such as [{entries}], got {entries}")
    expanded = []
    for entry in entries or []:
        values = OmegaConf.to_container(_compose(entry, key=key) if isinstance(entry, str) else entry, resolve=True)
        if not isinstance(values, dict) or "tasks" in values:
            raise ConfigError(f"{key} must be single data sets, got {entry}")
        values.pop("retained", None)
        expanded.append({str(name): value for name, value in values.items()})
    return expanded


def _compose(name: str, *, key: str) -> DictConfig:
    known = choices("data")
    try:
        composed: DictConfig = compose(config_name=f"data/{name}").data
        return composed
    except MissingConfigException as error:
        raise ConfigError(
            f"{key} must name data sets ({', '.join(known)}), got {name}{did_you_mean(name, known)}"
        ) from error
