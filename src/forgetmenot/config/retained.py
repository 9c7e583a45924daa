"""Writes the retained tasks out: names under `data.retained` become the settings of those data sets."""

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from forgetmenot.config.errors import ConfigError


def expand_retained(config: DictConfig) -> DictConfig:
    """Returns `config` with each name in data.retained replaced by that data set's own settings.

    Their own `retained` is left out, and so is the target itself. Settings already written out stay as they are.
    """
    expanded = []
    if isinstance(config.data.retained, str):
        raise ConfigError(f"data.retained must be a list such as [{config.data.retained}], got {config.data.retained}")
    for entry in config.data.retained or []:
        node = compose(config_name=f"data/{entry}").data if isinstance(entry, str) else entry
        values = OmegaConf.to_container(node, resolve=True)
        assert isinstance(values, dict)
        values.pop("retained", None)
        if values["name"] != config.data.name:
            expanded.append(values)
    result = config.copy()
    OmegaConf.set_struct(result, False)  # composed and checked: from here on it is ours to change
    result.data.retained = expanded
    return result
