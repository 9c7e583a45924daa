"""A run or a member of a sweep goes on where it ended: what must be as it was, and what is kept aside."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, ValueType
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from forgetmenot.config.count import SUBDIR
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.retained import expand_retained, retain_targets_of_base
from forgetmenot.config.trust import check_trusted
from forgetmenot.config.words import names
from forgetmenot.folder_lock import FILE_NAME as LOCK
from forgetmenot.result import EARLIER_ATTEMPTS

_MAY_DIFFER = (
    "trainer", "logger", "micro_batch_tokens", "checkpoint_steps", "checkpoint_minutes", "resume", "defaults", "hydra",
)  # fmt: skip
"""Settings of the machine and of the record, and what is no setting of a run."""
_SETTINGS = frozenset(("seed", "model", "data"))
"""Some that every run and evaluation has."""
_MORE_THAN_WORDS = frozenset(("hydra/sweeper", "sweep", "experiment"))
"""Words that bring members, or choose them as they go: the others then do not tell which member has what."""
_MAY_BE_LONGER = (*_MAY_DIFFER, "epochs", "max_steps")
"""What may differ where a run goes on."""


def settings_of_run(config: DictConfig, folder: Path, *, words: Sequence[str]) -> DictConfig:
    """Returns the settings of the run in `folder`, with what `words` of the command line set in `config` on top.

    Raises ConfigError where the run wrote no settings, and, naming both values, for one that has to be as it was.
    """
    if not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"resume must be a run that wrote its config.yaml, got {folder}, which ended before; start it anew"
        )
    was = _read_settings(folder / "config.yaml")
    was.pop("defaults", None)
    if "run" in was:
        raise ConfigError(f"resume must be a run of train, got {folder}, an evaluation of {was.run}")
    check_trusted(was, of=str(folder), trusted=bool(config.model.get("trust_remote_code")))
    whole = retain_targets_of_base(expand_retained(config))
    result = was.copy()
    for key in {names(word) for word in words} - {"resume"}:
        if key in ("experiment", "sweep") or "@" in key:
            result = whole
            break
        OmegaConf.update(result, key, OmegaConf.select(whole, key), merge=False, force_add=True)
    result.resume = config.resume
    _check_same(was, result, may_differ=_MAY_BE_LONGER, of="in the run that is resumed")
    return result


def _read_settings(file: Path) -> DictConfig:
    """Returns what a run was made with; raises ConfigError where the file is not what a run wrote."""
    try:
        settings = OmegaConf.load(file)
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} must hold a run's settings, got {error}; put it back, or start a new run") from error
    if not isinstance(settings, DictConfig) or not settings.keys() >= _SETTINGS:
        raise ConfigError(f"{file} must hold a run's settings, got a part of them; put it back, or start a new run")
    return settings


def check_as_at_checkpoint(was: DictConfig, now: DictConfig) -> None:
    """Raises ConfigError, naming both values, where a run's own file has other settings than its checkpoint."""
    _check_same(was, now, may_differ=_MAY_BE_LONGER, of="at its last checkpoint")


def check_same_words(asked: Sequence[str], settings: Sequence[str]) -> None:
    """Raises ConfigError, naming both values, where a sweep was `asked` for with another value for any of its members.

    There may be fewer of them, and others behind. Those that files choose, or a search, are checked one by one.
    """
    was, now = _values_by_key(asked), _values_by_key(settings)
    keys = sorted(was.keys() | now.keys())
    was |= {key: ["left out"] for key in keys if key not in was}
    now |= {key: ["nothing"] for key in keys if key not in now}
    if None in (*was.values(), *now.values()) or not _MORE_THAN_WORDS.isdisjoint(keys):
        keys = [key for key in keys if _is_one(was[key]) and _is_one(now[key])]
        was, now = ({key: each[key] for key in keys} for each in (was, now))
    for number, (before, after) in enumerate(zip(_members(was), _members(now), strict=False)):
        for key in keys:
            if before[key] != after[key] and not _may_differ(key):
                where = "" if _is_one(was[key]) and _is_one(now[key]) else f" for its member {number}"
                raise ConfigError(
                    f"{key} must be {before[key]}, as in the sweep that is resumed, got {after[key]}{where}"
                )


def _values_by_key(words: Sequence[str]) -> dict[str, list[str] | None]:
    """Returns what words set, one value or those of a sweep; None where the words alone do not tell which."""
    parsed = OverridesParser.create().parse_overrides(list(words))
    return {word.get_key_element().lstrip("+"): _values(word) for word in parsed}


def _values(word: Override) -> list[str] | None:
    if not word.is_sweep_override():
        return [_said(word.value())]
    shuffled = getattr(word.value(), "shuffle", False)
    if shuffled or word.value_type is ValueType.GLOB_CHOICE_SWEEP or not word.is_discrete_sweep():
        return None
    return [_said(value) for value in word.sweep_iterator()]


def _said(value: object) -> str:
    """Returns what a word's value says, however it was written."""
    if isinstance(value, list):
        return f"[{','.join(map(_said, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(sorted(f'{_said(key)}:{_said(each)}' for key, each in value.items()))}}}"
    if isinstance(value, QuotedString):
        return value.text
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _members(values: Mapping[str, list[str] | None]) -> Iterator[dict[str, str]]:
    """Yields what each member has of the values, in the order of Hydra's numbers."""
    for chosen in product(*(each or [] for each in values.values())):
        yield dict(zip(values, chosen, strict=True))


def _is_one(values: list[str] | None) -> bool:
    return values is not None and len(values) == 1


def _may_differ(key: str) -> bool:
    return names(key) != SUBDIR and re.split(r"[./@]", names(key))[0] in _MAY_DIFFER


def check_member(config: DictConfig, folder: Path, *, number: int, place: Path) -> None:
    """Raises ConfigError where `folder` is not that of this member in the sweep that is resumed from `place`."""
    if folder.parent.resolve() != (place / config.resume).resolve():
        raise ConfigError(f"hydra.sweep.dir must be left to resume={config.resume}, got {folder.parent}")
    others = [path.name for path in folder.parent.glob(f"{number}_*") if path.name != folder.name and _written(path)]
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
    whole = retain_targets_of_base(expand_retained(config))
    was = _read_settings(file)
    where = f" for its member {folder.name}"
    _check_same(was, whole, may_differ=_MAY_DIFFER, of="in the sweep that is resumed", where=where)


def _check_same(was: DictConfig, now: DictConfig, *, may_differ: Sequence[str], of: str, where: str = "") -> None:
    """Raises ConfigError, naming both values, for a setting that has to be as it was; one that was unknown is null."""
    before = dict(_flat(OmegaConf.to_container(was), may_differ=may_differ))
    after = dict(_flat(OmegaConf.to_container(now, resolve=True), may_differ=may_differ))
    for key in sorted(before.keys() | after.keys(), key=_names_first):
        if before.get(key) != after.get(key):
            raise ConfigError(f"{key} must be {_shown(before.get(key))}, as {of}, got {_shown(after.get(key))}{where}")


def keep_aside(folder: Path) -> None:
    """Moves what an earlier attempt wrote below `earlier_attempts`, where it counts as no run."""
    left = [path for path in _written(folder) if path.name not in (LOCK, EARLIER_ATTEMPTS)]
    if not left:
        return
    number = len(list((folder / EARLIER_ATTEMPTS).glob("*")))
    aside = folder / EARLIER_ATTEMPTS / str(number)
    aside.mkdir(parents=True)
    for path in left:
        path.rename(aside / path.name)


def remove_unused(folder: Path) -> None:
    """Removes the folder that Hydra made for a member, where none was started in it: it would be found as another's."""
    if not _written(folder):
        shutil.rmtree(folder)


def _written(folder: Path) -> list[Path]:
    """Returns what lies in a folder, but for the empty log that Hydra opens there."""
    return [path for path in folder.iterdir() if path.name == LOCK or path.is_dir() or path.stat().st_size > 0]


def _flat(node: object, key: str = "", *, may_differ: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Yields the settings that count, each by its full key; nothing for one that is null."""
    if isinstance(node, dict):
        for name, value in node.items():
            if key or name not in may_differ:
                yield from _flat(value, f"{key}.{name}" if key else str(name), may_differ=may_differ)
    elif isinstance(node, list) and any(isinstance(each, dict) for each in node):
        for number, each in enumerate(node):
            yield from _flat(each, f"{key}[{number}]", may_differ=may_differ)
    elif node is not None:
        yield key, node


def _names_first(key: str) -> tuple[bool, bool, str]:
    """Orders settings for people: what was chosen before what follows from it."""
    return (not key.endswith(".name"), "_target_" in key, key)


def _shown(value: object) -> str:
    return "null" if value is None else str(value)
