"""Writes the retained tasks out: names under `data.retained` become the settings of those data sets."""

from hydra import compose
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from forgetmenot.config.errors import ConfigError, did_you_mean
from forgetmenot.config.paths import choices
from forgetmenot.config.source import is_run, read_source


def expand_retained(config: DictConfig) -> DictConfig:
    """Returns `config` with each name in data.retained replaced by that data set's own settings.

    Their own `retained` is left out, and so is the target itself (of the same name and path). Settings already written
    out stay as they are.
    """
    expanded = []
    if isinstance(config.data.retained, str):
        raise ConfigError(f"data.retained must be a list such as [{config.data.retained}], got {config.data.retained}")
    for entry in config.data.retained or []:
        node = _compose(entry) if isinstance(entry, str) else entry
        values = OmegaConf.to_container(node, resolve=True)
        assert isinstance(values, dict)
        values.pop("retained", None)
        if (values["name"], values["path"]) != (config.data.name, config.data.path):
            expanded.append(values)
    result = config.copy()
    OmegaConf.set_struct(result, False)  # composed and checked: from here on it is ours to change
    result.data.retained = expanded
    return result


def retain_targets_of_base(config: DictConfig) -> DictConfig:
    """Returns `config`, its retained tasks written out, with the targets of the runs that its base came from.

    A base that is no run adds none, and neither does a task that is there already (of the same name and path).
    """
    result = config.copy()
    present = [(data.name, data.path) for data in (config.data, *config.data.retained)]
    path = config.model.path
    while is_run(path):
        run = read_source(path, {}, key="model.path").config
        path, target = run.model.path, run.data
        if (target.name, target.path) not in present:
            result.data.retained.append({name: value for name, value in target.items() if name != "retained"})
            present.append((target.name, target.path))
    return result


def _compose(name: str) -> DictConfig:
    known = choices("data")
    try:
        composed: DictConfig = compose(config_name=f"data/{name}").data
        return composed
    except MissingConfigException as error:
        raise ConfigError(
            f"data.retained must name data sets ({', '.join(known)}), got {name}{did_you_mean(name, known)}"
        ) from error
