"""Errors in what a user gave, and Hydra's own errors, as one sentence: `<key> must be <rule>, got <value>`."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import yaml
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from forgetmenot.config.paths import choices, conf_folder
from forgetmenot.config.settings import TRAINER_KEYS_OF_OURS

HYDRA_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)

_EXTRAS = {"hydra/launcher/joblib": "sweep", "hydra/sweeper/optuna": "optuna"}
"""Choices that another package brings, and the extra of ours that brings it."""


class ConfigError(ValueError):
    """A setting that cannot be used; the message names its key, the rule and the way out."""


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Returns "; did you mean X?" for the closest known word, or nothing."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def refuse_null_groups(arguments: Sequence[str]) -> None:
    """Raises ConfigError for GROUP=null, alone or in a sweep, which Hydra refuses without naming the group."""
    for word in arguments:
        match = re.fullmatch(r"(\w+)=([^\[\]]*)", word)
        if match and {"", "null", "None"} & set(match[2].split(",")) and choices(match[1]):
            way_out = f"; {match[1]}=[] takes none" if match[1] == "regularizer" else ""
            raise ConfigError(f"{match[1]} must be one of {', '.join(choices(match[1]))}, got null{way_out}")


def hydra_sentence(error: Exception) -> str:
    """Returns what went wrong before our own code ran, in one sentence."""
    if isinstance(error, MissingConfigException):
        return _missing_choice(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        place = error.problem_mark
        return f"{place.name} must be YAML, got line {place.line + 1}, where {error.problem}"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} must be key=value in Hydra's grammar, got a text that does not parse; "
            "quote a value with special characters twice: 'data.prompt=\"{text} ?\"'"
        )
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) else error
    missing = re.search(r"[Mm]issing mandatory value: ([\w.]+)", str(cause))
    if missing:
        return f"{missing[1]} must be given, got nothing; add {missing[1]}=VALUE"
    several = re.search(r"(Ambiguous value for argument|Sweep parameters) '(.*)'", str(error))
    if several:
        return _sweep_without_option(several[2], may_be_one=several[1].startswith("Ambiguous"))
    if isinstance(cause, OmegaConfBaseException):
        return _unknown_key(cause) if cause.full_key else _first_line(cause)
    return _first_line(cause or error)


def _sweep_without_option(word: str, *, may_be_one: bool) -> str:
    """Returns what to do about a word of several values in a single run; with commas alone it may be a list or text."""
    key, _, values = word.partition("=")
    if key in ("sweep", "experiment"):
        return f"{key} must be one at a time, got {values}; give each a command of its own"
    way_out = f", {key}=[{values}] is a list and '{key}=\"{values}\"' a text" if may_be_one else ""
    return f"{key} must be one value in a single run, got {values}; -m sweeps over several{way_out}"


def _missing_choice(error: MissingConfigException) -> str:
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.rpartition("/")
    if missing in _EXTRAS:
        return f"{group} must be one that is installed, got {choice}; pip install 'forgetmenot-llm[{_EXTRAS[missing]}]'"
    options = sorted(error.options or choices(group))
    if not options:
        return f"{missing} must be a config of conf/ or of --config-dir, got a name that is not there"
    return (
        f"{group} must be one of {', '.join(options)}, got {choice}{did_you_mean(choice, options, prefix=f'{group}=')}"
    )


def _unknown_key(error: OmegaConfBaseException) -> str:
    key = str(error.full_key)
    where, _, word = key.rpartition(".")
    if where == "trainer" and word in TRAINER_KEYS_OF_OURS:
        return f"{key} must be set by {TRAINER_KEYS_OF_OURS[word]}, got {key}"
    known = [str(name) for name in error.parent_node] if isinstance(error.parent_node, DictConfig) else []
    if where == "hydra.launcher" and known == ["_target_"]:
        other = "slurm" if word in OmegaConf.load(conf_folder() / "hydra" / "launcher" / "slurm.yaml") else "joblib"
        return f"{key} must be set together with hydra/launcher={other}, got a launcher without {word}"
    if not where and choices(key):
        return f"{key} must be chosen before it is set, as {key}=[{'|'.join(choices(key))}], got none that was"
    if not known and where and choices(where):
        return f"{key} must be a setting of the chosen {where}, got {word}, which that one does not have"
    if not known or word in known:
        return f"{key} must be a setting that can take this value, got: {_first_line(error)}"
    place = f"of {where}" if where else "of the run"
    inner = [] if where else [f"{name}.{word}" for name in known if _holds(error.parent_node, name, word)]
    hint = f"; did you mean {' or '.join(inner)}?" if inner else _other_choice(where, word)
    hint = hint or did_you_mean(word, known, prefix=_dotted(where))
    if where == "trainer" and not hint:
        meant = next(iter(get_close_matches(word, TRAINER_KEYS_OF_OURS, n=1)), None)
        if meant:
            return f"{key} must be set by {TRAINER_KEYS_OF_OURS[meant]}, got {key}"
        hint = f"; +{key}=VALUE adds another argument of lightning.Trainer"
    return f"{key} must be a key {place} ({', '.join(name for name in known if name != '_target_')}), got {word}{hint}"


def _dotted(where: str) -> str:
    return f"{where}." if where else ""


def _holds(config: object, group: str, key: str) -> bool:
    """Tells whether a group of the root config has the key."""
    node = config.get(group) if isinstance(config, DictConfig) else None
    return isinstance(node, DictConfig) and key in node


def _other_choice(group: str, key: str) -> str:
    """Returns "; GROUP=X has it" where other choices of a group set the key, or nothing."""
    names = choices(group) if group else []  # what lies beside the groups is a command's
    files = {name: OmegaConf.load(conf_folder() / group / f"{name}.yaml") for name in names}
    having = [f"{group}={name}" for name, settings in files.items() if key in settings]
    return f"; {' or '.join(having)} has it" if having else ""


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
