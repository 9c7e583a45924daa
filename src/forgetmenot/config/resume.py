"""A member goes on where its sweep ended: what must be as it was, and what is kept aside."""

from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from forgetmenot.config.errors import ConfigError
from forgetmenot.config.retained import expand_retained, retain_targets_of_base
from forgetmenot.folder_lock import FILE_NAME as LOCK
from forgetmenot.result import EARLIER_ATTEMPTS

_MAY_DIFFER = ("trainer", "logger", "micro_batch_tokens", "resume", "defaults", "hydra")
"""Settings of the machine and of the record, and what is no setting of a run."""


def check_member(config: DictConfig, folder: Path, *, number: int, place: Path) -> None:
    """Raises ConfigError where `folder` is not that of this member in the sweep that is resumed from `place`."""
    if folder.parent.resolve() != (place / config.resume).resolve():
        raise ConfigError(f"hydra.sweep.dir must be left to resume={config.resume}, got {folder.parent}")
    others = [path.name for path in folder.parent.glob(f"{number}_*") if path.name != folder.name]
    if folder.name.startswith(f"{number}_") and others:
        raise ConfigError(
            f"resume must be the sweep that this command started, got {folder.name} for its member {others[0]}"
        )
    _check_same_settings(config, folder)


def _check_same_settings(config: DictConfig, folder: Path) -> None:
    """Raises ConfigError, naming both values, where an earlier attempt had other settings."""
    file = folder / "config.yaml"
    if not file.is_file():
        return  # it ended before it wrote them, and so before it computed anything
    was = dict(_flat(OmegaConf.to_container(OmegaConf.load(file))))
    whole = retain_targets_of_base(expand_retained(config))
    now = dict(_flat(OmegaConf.to_container(whole, resolve=True)))
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):  # a key that is newer than the attempt counts as null
            raise ConfigError(
                f"{key} must be {_shown(was.get(key))}, as in the sweep that is resumed, got {_shown(now.get(key))} "
                f"for its member {folder.name}"
            )


def keep_aside(folder: Path) -> None:
    """Moves what an earlier attempt wrote below `earlier_attempts`, where it counts as no run."""
    found = [path for path in folder.iterdir() if path.name not in (LOCK, EARLIER_ATTEMPTS)]
    left = [path for path in found if path.is_dir() or path.stat().st_size > 0]  # Hydra has opened an empty log
    if not left:
        return
    number = len(list((folder / EARLIER_ATTEMPTS).glob("*")))
    aside = folder / EARLIER_ATTEMPTS / str(number)
    aside.mkdir(parents=True)
    for path in left:
        path.rename(aside / path.name)


def _flat(node: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yields the settings that count, each by its full key; nothing for one that is null."""
    if isinstance(node, dict):
        for name, value in node.items():
            if key or name not in _MAY_DIFFER:
                yield from _flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list) and any(isinstance(each, dict) for each in node):
        for number, each in enumerate(node):
            yield from _flat(each, f"{key}[{number}]")
    elif node is not None:
        yield key, node


def _shown(value: object) -> str:
    return "null" if value is None else str(value)
