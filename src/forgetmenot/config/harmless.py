"""What Hydra itself would build, import or set of a config, which may come from anybody: refused before it does.

Hydra does so before it calls us. What a config's own groups may name is decided by build.py.
"""

import re
from collections.abc import Iterator, Sequence
from functools import wraps
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.plugins.config_source import ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from forgetmenot.config.errors import ConfigError
from forgetmenot.config.paths import conf_folder
from forgetmenot.config.trust import TRUST, check_trusted
from forgetmenot.config.words import names

_BUILT = re.compile(
    r"hydra\._internal\.core_plugins\.basic_(launcher\.BasicLauncher|sweeper\.BasicSweeper)"
    r"|hydra_plugins\.forgetmenot_slurm\.SlurmLauncher"
    r"|hydra_plugins\.hydra_joblib_launcher\.joblib_launcher\.JoblibLauncher"
    r"|hydra_plugins\.hydra_optuna_sweeper\.optuna_sweeper\.OptunaSweeper"
    r"|optuna\.samplers\.[A-Z]\w*"
)
"""What `_target_` may name of how sweeps run."""

_LOGS = re.compile(r"logging\.(StreamHandler|FileHandler|NullHandler|Formatter)")
_LOG_FILE = re.compile(r"\$\{hydra\.runtime\.output_dir\}/(\$\{hydra\.job\.name\}|[\w-]+)\.log")
_STREAM = re.compile(r"ext://sys\.(stdout|stderr)")


def guard_hydra() -> None:
    """Has whatever Hydra loads in this process raise ConfigError where `check_hydra` does; again it changes nothing."""
    load = ConfigLoaderImpl.load_configuration
    if hasattr(load, "__wrapped__"):
        return

    @wraps(load)
    def checked(
        loader: ConfigLoaderImpl, config_name: str | None, overrides: list[str], *rest: object, **named: object
    ) -> DictConfig:
        config: DictConfig = load(loader, config_name, overrides, *rest, **named)  # type: ignore[arg-type]
        check_hydra(config.hydra)
        _check_overrides(config.hydra.overrides, overrides)
        if not _is_ours(loader, config_name):
            _check_whole(config, overrides)
        return config

    ConfigLoaderImpl.load_configuration = checked  # type: ignore[method-assign, assignment]
    make = ConfigSource.__init__

    @wraps(make)
    def made(source: ConfigSource, provider: str, path: str) -> None:
        if provider == "hydra.searchpath in main" and source.scheme() != "file":  # else a package is imported
            raise ConfigError(f"hydra.searchpath must be folders, but for the command line's, got {path} in a config")
        make(source, provider, path)

    ConfigSource.__init__ = made  # type: ignore[method-assign, assignment]


def _is_ours(loader: ConfigLoaderImpl, config_name: str | None) -> bool:
    """Tells whether the whole config is one of this project's, from its own folder."""
    places = [place.path for place in loader.config_search_path.get_path() if place.provider == "main"]
    names_own = re.fullmatch(r"\w+", config_name or "") and (conf_folder() / f"{config_name}.yaml").is_file()
    return bool(names_own) and [Path(str(place).removeprefix("file://")) for place in places] == [conf_folder()]


def _check_overrides(written: DictConfig, overrides: Sequence[str]) -> None:
    """Raises ConfigError where a config brings words that would count as the command line's."""
    if len(written.task) + len(written.hydra) != len(overrides):  # Hydra has put the command line's behind them
        raise ConfigError("hydra.overrides must be empty in a config, since it is the command line's record")


def _check_whole(config: DictConfig, overrides: Sequence[str]) -> None:
    """Raises ConfigError for what a whole config, as a run's config.yaml, does without the user's word.

    So it runs a model's code, and asks a cluster for what jobs run in.
    """
    said = set(map(names, overrides))
    check_trusted(config, of="this config", trusted=TRUST in said)
    if config.hydra.mode != RunMode.RUN:  # a member has its sweep's launcher, and starts nothing
        for name in config.hydra.launcher.get("additional_parameters") or {}:
            key = f"hydra.launcher.additional_parameters.{name}"
            if key not in said:
                raise ConfigError(f"{key} must be on the command line too, since this config is none of ours")


def check_hydra(hydra: DictConfig) -> None:
    """Raises ConfigError where Hydra would build, import or set more than sweeps and logs need."""
    for key, instead in (("callbacks", "Lightning's are set by us"), ("job.env_set", "the shell sets variables")):
        value = OmegaConf.select(hydra, key)
        if value:
            raise ConfigError(f"hydra.{key} must be empty, since {instead}, got {value}")
    for key in hydra.sweeper.get("params") or {}:
        if names(key).startswith("hydra") or names(key) in (TRUST, "plugins"):
            raise ConfigError(f"hydra.sweeper.params must be settings of runs that sweeps are over, got {key}")
    for key in ("sweeper", "launcher"):
        for place, name, value in _leaves(OmegaConf.to_container(hydra[key], resolve=True), f"hydra.{key}"):
            if (name == "_target_" and not _BUILT.fullmatch(str(value))) or (name == "custom_search_space" and value):
                raise ConfigError(
                    f"{place} must be what Hydra's launchers and sweepers or Optuna's samplers bring, got {value}"
                )
    for key in ("job_logging", "hydra_logging"):
        for place, name, value in _leaves(OmegaConf.to_container(hydra[key], resolve=False), f"hydra.{key}"):
            if not _is_plain_log(name, value):
                raise ConfigError(
                    f"{place} must be a handler or formatter of logging itself, for the terminal or the run's folder, "
                    f"got {value}"
                )
        for name, handler in (hydra[key].get("handlers") or {}).items():
            if "class" not in (handler or {}):  # as of hydra/job_logging=disabled, since every run has its run.log
                place = f"hydra.{key}.handlers.{name}"
                raise ConfigError(f"{place} must have a class, got none; hydra/{key}=default has it")


def _is_plain_log(name: str, value: object) -> bool:
    text = str(value)
    if name == "class":
        return bool(_LOGS.fullmatch(text))
    if name == "filename":
        return bool(_LOG_FILE.fullmatch(text))
    return name != "()" and "${" not in text and ("://" not in text or bool(_STREAM.fullmatch(text)))


def _leaves(value: object, place: str, name: str = "") -> Iterator[tuple[str, str, object]]:
    """Yields what stands in a container: where, under which name, and what."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, f"{place}.{key}", str(key))
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each, place, name)
    else:
        yield place, name, value
