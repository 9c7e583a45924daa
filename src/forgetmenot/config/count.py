"""How many members a sweep has, and its launcher gets at a time: neither tells them, the words of the sweep do."""

import re
from collections.abc import Sequence
from math import prod
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from forgetmenot.config.errors import ConfigError
from forgetmenot.config.words import names

ASKED = "multirun.yaml"
"""Where Hydra's own sweeper keeps what it was asked for, before it starts members."""

SUBDIR = "hydra.sweep.subdir"
"""The setting that names the folders of members."""


def check_swept(settings: Sequence[str]) -> None:
    """Raises ConfigError for a word of which there would be no members, wrong folders, one run, and two sweeps."""
    for word in OverridesParser.create().parse_overrides(list(settings)):
        key = names(word.get_key_element())
        if word.is_sweep_override() and _values(word) == 0:
            raise ConfigError(f"{key} must have a value to run with, got none in {word.input_line}")
        if key == "hydra.launcher.n_jobs" and word.value() == 0:
            raise ConfigError(f"{key} must be above 0, or below it to count from the cores (-1: as many), got 0")
        if key == "hydra.run.dir":
            raise ConfigError(
                f"{key} must be left out of a sweep, got {word.value()}; hydra.sweep.dir=FOLDER holds its runs"
            )
        if key == "hydra.mode" and word.value() == RunMode.RUN.name:
            raise ConfigError(f"{key} must be left out with -m, got RUN; without -m it is one run")
        if key == SUBDIR and not re.search(r"\$\{hydra[.:]job\.num\}", str(word.value())):
            raise ConfigError(
                f"{key} must hold ${{hydra.job.num}}, so that each member has a folder of its own, got {word.value()}"
            )
        if key == SUBDIR and "/" in re.sub(r"\$\{[^}]*\}", "", str(word.value())):
            raise ConfigError(f"{key} must be a name without /, so that the sweep is found again, got {word.value()}")
        if key == "sweep" and (word.is_sweep_override() or isinstance(word.value(), list)):
            raise ConfigError(f"sweep must be one at a time, got {word.input_line}; give each a command of its own")


def words_asked(sweep: Path) -> list[str] | None:
    """Returns the words that the sweep in that folder was asked for with; None where no whole record of them is.

    Of Hydra's own settings it is the one that names members' folders.
    """
    try:
        asked = OmegaConf.load(sweep / ASKED)
    except (OSError, ValueError, YAMLError):  # a process that is killed leaves half of it
        return None
    words = OmegaConf.select(asked, "hydra.overrides") if isinstance(asked, DictConfig) else None
    if words is None:
        return None
    told = OmegaConf.to_container(words)  # as they were written, with ${...}
    assert isinstance(told, dict)
    return [*map(str, told["task"]), *(word for word in told.get("hydra", []) if names(word) == SUBDIR)]


def members_at_a_time(hydra: HydraConf, *, sweep: Path) -> int | None:
    """Returns how many members of the sweep in that folder there can be beside each other; None where none can tell.

    Optuna proposes as many as its `n_jobs`; Hydra's own sweeper hands over all, or `max_batch_size` of them.
    """
    sweeper = hydra.sweeper
    if "n_jobs" in sweeper:
        return int(sweeper.n_jobs)
    asked = words_asked(sweep)
    if asked is None:
        return None
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    words = OverridesParser.create().parse_overrides([*params, *asked])
    counts = {word.get_key_element(): _values(word) for word in words}
    if None in counts.values():
        return None
    members = prod(count for count in counts.values() if count is not None)
    return min(members, sweeper.get("max_batch_size") or members)


def _values(word: Override) -> int | None:
    """Returns how many values a word has; None where the files of a group say so."""
    if not word.is_sweep_override():
        return 1
    return None if word.value_type is ValueType.GLOB_CHOICE_SWEEP else len(list(word.sweep_string_iterator()))
