"""What groups of a config come to, each by itself: root settings, regularizers, the logger, the Trainer's arguments."""

from collections.abc import Callable

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from forgetmenot.config.build import build, build_partial, plain
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.settings import Settings
from forgetmenot.loggers import check_places
from forgetmenot.regularizer.base import Regularizer
from forgetmenot.trainer import check_names, try_trainer

_NEEDED_GROUPS = ("model", "data", "method", "optimizer", "schedule", "trainer")
_GROUPS = (*_NEEDED_GROUPS, "regularizer", "replay", "logger")


def settings_of(config: DictConfig) -> Settings:
    """Returns what stands at the root; raises ConfigError where a group that every run needs is null."""
    for name in _NEEDED_GROUPS:
        if config.get(name) is None:
            raise ConfigError(f"{name} must be one of conf/{name}, got null")
    root = DictConfig({key: value for key, value in config.items() if key not in _GROUPS})
    return build(root, Settings, key="")


def regularizers_of(config: DictConfig, *, plugins: tuple[str, ...]) -> tuple[Regularizer, ...]:
    """Returns the penalties that are chosen."""
    if "regularizer" in config and config.regularizer is None:
        raise ConfigError("regularizer must be [], l2_sp or a list of them, got null; regularizer=[] takes none")
    chosen = config.get("regularizer") or {}
    built = {
        name: build(node, Regularizer, key=f"regularizer.{name}", plugins=plugins) for name, node in chosen.items()
    }
    for name, regularizer in built.items():
        if regularizer.name != name:  # what it is logged and told about by
            raise ConfigError(f"regularizer.{name}.name must be {name}, got {regularizer.name}")
    return tuple(built.values())


def logger_of(config: DictConfig, *, plugins: tuple[str, ...]) -> Callable[..., Logger] | None:
    """Returns what makes the chosen logger; None where metrics.jsonl is all."""
    if not config.get("logger"):
        return None
    check_places(plain(config.logger, key="logger"))
    return build_partial(config.logger, Logger, key="logger", plugins=plugins)


def trainer_values(config: DictConfig) -> dict[str, object]:
    """Returns the arguments of lightning.Trainer, which takes them on this machine."""
    values = plain(config.trainer, key="trainer")
    check_names(values)
    try_trainer(values)
    return dict(values)
