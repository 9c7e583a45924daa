"""Errors in what a user gave, and Hydra's own errors, as one sentence: `<key> must be <rule>, got <value>`."""

from collections.abc import Iterable
from difflib import get_close_matches

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException


class ConfigError(ValueError):
    """A setting that cannot be used; the message names its key, the rule and the way out."""


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Returns "; did you mean X?" for the closest known word, or nothing."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def hydra_sentence(error: Exception) -> str:
    """Returns what went wrong before our own code ran, in one sentence."""
    if isinstance(error, MissingConfigException):
        return _missing_choice(error)
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} must be key=value in Hydra's grammar, got a text that does not parse; "
            "quote a value with special characters twice: 'data.prompt=\"{text} ?\"'"
        )
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) else error
    if isinstance(cause, OmegaConfBaseException):
        return _unknown_key(cause) if cause.full_key else _first_line(cause)
    return _first_line(cause or error)


def _missing_choice(error: MissingConfigException) -> str:
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.rpartition("/")
    if error.options is None:
        return f"{missing} must be a config of conf/ or of --config-dir, got a name that is not there"
    options = sorted(option for option in error.options)
    return (
        f"{group} must be one of {', '.join(options)}, got {choice}{did_you_mean(choice, options, prefix=f'{group}=')}"
    )


def _unknown_key(error: OmegaConfBaseException) -> str:
    key = error.full_key
    parent = error.parent_node
    known = [str(name) for name in parent] if parent is not None and hasattr(parent, "keys") else []
    word = str(error.key)
    where, _, _ = key.rpartition(".")
    if not known or word in known:
        return f"{key} must be a setting that can take this value, got: {_first_line(error)}"
    prefix = f"{where}." if where else ""
    place = f"of {where}" if where else "of the run"
    return f"{key} must be a key {place} ({', '.join(known)}), got {word}{did_you_mean(word, known, prefix=prefix)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


HYDRA_ERRORS = (HydraException, OmegaConfBaseException)
