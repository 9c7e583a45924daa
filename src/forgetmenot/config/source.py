"""What is evaluated: a finished run's folder with the settings that it was made with, or a plain model's."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from forgetmenot.config.build import build
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.paths import choices
from forgetmenot.config.settings import Asking
from forgetmenot.config.trust import check_trusted
from forgetmenot.result import FILE_NAME

_AS_IT_IS = Asking()


@dataclass(frozen=True, kw_only=True)
class Source:
    """The config of a run; `folder` has what it learned, and is None for a model that nothing was added to."""

    config: DictConfig
    folder: Path | None


def is_run(path: str) -> bool:
    """Tells whether a run has ended in the folder `path`, well or not."""
    return (Path(str(path)).expanduser() / FILE_NAME).is_file()  # a file may name 2024, a number


def read_source(path: str, changes: Mapping[str, object], *, key: str = "run", asking: Asking = _AS_IT_IS) -> Source:
    """Returns the run at `path`, or the model that a folder or hub id names; `changes` that are not None count more.

    Raises ConfigError, naming the setting's `key`, where it is a run without its config.yaml, one that read prompts
    otherwise than `asking` says or runs its model's own code though that does not, or an evaluation.
    """
    folder = Path(path).expanduser()
    if is_run(path) and not (folder / "config.yaml").is_file():
        raise ConfigError(f"{key} must be a run that wrote its config.yaml, got {path} without one")
    if folder.is_dir() and not is_run(path) and not (folder / "config.json").is_file():
        raise ConfigError(
            f"{key} must be a finished run ({FILE_NAME}) or a model (config.json), got {path} without either"
        )
    config = _of_run(folder, key=key) if is_run(path) else _of_model(path)
    OmegaConf.set_struct(config, False)
    if is_run(path):
        check_trusted(config, of=str(path), trusted=asking.trust_remote_code)
    config.model.trust_remote_code = asking.trust_remote_code
    config.objective = config.direction = config.resume = config.logger = None  # a sweep's matter, and the run's own
    for name, value in changes.items():
        if value is not None:
            config[name] = value
    if asking.chat is not None:
        _ask_in_chat(config, asking.chat, run=path if is_run(path) else None)
    return Source(config=config, folder=folder if is_run(path) else None)


def _ask_in_chat(config: DictConfig, chat: bool, *, run: str | None) -> None:
    """Sets whether a plain model gets its chat template; a run gets what it was tuned with."""
    learned = config.model.get("chat", False)
    if run is not None and chat != learned:
        raise ConfigError(f"model.chat must be {str(learned).lower()}, as in the run {run}, got {str(chat).lower()}")
    config.model.chat = chat


def _of_run(folder: Path, *, key: str) -> DictConfig:
    """Returns the settings that a run was made with; keys that it did not know yet as they stand today."""
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    config.pop("defaults", None)
    if "run" in config:
        raise ConfigError(f"{key} must be a run of train, got {folder}, an evaluation of {config.run}")
    of_data = compose("data/local").data
    for data in (*targets_of(config.data), *config.data.retained):
        _fill(data, of_data)
    named = [group for group in ("model", "method") if config[group].name in choices(group)]  # others: the user's
    today = compose("train", overrides=[f"{group}={config[group].name}" for group in named])
    for group in named:
        _fill(config[group], today[group])
    return config


def _fill(settings: DictConfig, today: DictConfig) -> None:
    for name in today:
        if name not in settings and name != "retained":
            settings[name] = today[name]


def _of_model(path: str) -> DictConfig:
    """Returns the settings of a run from this model; what it would train with is never used."""
    config: DictConfig = compose("train", overrides=["model=causal", "method=lora", "method.rank=1", "logger=none"])
    OmegaConf.set_struct(config, False)
    config.model.path, config.model.name = path, Path(path).name
    config.pop("hydra", None)
    return config


def asking_of(config: DictConfig) -> Asking:
    """Returns how `evaluate`, `ask` or `export` is to take the model."""
    return build(config.get("model") or DictConfig({}), Asking, key="model")  # older evaluations lack the group


def targets_of(data: DictConfig) -> list[DictConfig]:
    """Returns the settings of each target of a data set: of its `tasks`, or its own."""
    return list(data.tasks) if "tasks" in data else [data]
