"""The words of a command line: options before settings, texts that Hydra takes as they are."""

import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

_WITH_VALUE = frozenset(
    "--config-dir -cd --config-name -cn --config-path -cp --package -p --cfg -c --info -i --experimental-rerun".split()
)

_FOLDER = ("--config-dir", "-cd")

_LONG_OPTIONS = (
    "--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun", "--info",
)  # fmt: skip
"""Hydra's, which argparse also takes by any beginning that names one alone."""


_PATHS = (
    "resume", "run", "to", "model.path", "data.path", "regularizer.kl.reference", "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip
"""Keys whose values name a folder or a file."""


def path_as_text(word: str) -> str:
    """Returns a word that sets a path so that Hydra takes 2024 as text, and ~ in `resume` as the home folder.

    Other paths have ~ written out where they are read. Any other word is returned unchanged.
    """
    key, _, path = word.partition("=")
    if names(word) == "resume" and path.startswith("~/"):
        return f"{key}={Path(path).expanduser()}"
    like_a_number = re.fullmatch(r"[-+]?[0-9][-+.\w]*", path)
    return quoted(word, key=key) if names(word) in _PATHS and like_a_number else word


def quoted(word: str, *, key: str) -> str:
    """Returns `key=TEXT` so that Hydra takes TEXT as it is, whatever stands in it; any other word unchanged."""
    name, equals, text = word.partition("=")
    if name != key or not equals:
        return word
    as_it_is = text.replace("${", "\\${")  # else an interpolation
    return f"{key}={QuotedString(text=as_it_is, quote=Quote.double).with_quotes()}"


def pasted(key: str, text: str) -> str:
    """Returns `key=TEXT` to be pasted into a shell, quoted where that or Hydra would take it for something else."""
    word = f"{key}={text}"
    return word if re.fullmatch(r"[A-Za-z0-9_./-]+", text) else shlex.quote(quoted(word, key=key))


def parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the options, written out, with their values, and the settings: argparse takes options in front alone."""
    options: list[str] = []
    settings: list[str] = []
    takes_next = False
    for given in arguments:
        for word in [given] if takes_next else _written_out(given):
            (options if takes_next or word.startswith("-") else settings).append(word)
            takes_next = word in _WITH_VALUE
    return options, settings


def config_dirs(options: Sequence[str]) -> list[Path]:
    """Returns the folders of a user's own YAML files that the options of a command line name."""
    with_sign = [word.partition("=")[2] for word in options if word.startswith(tuple(f"{name}=" for name in _FOLDER))]
    apart = [value for name, value in pairwise(options) if name in _FOLDER]
    return [Path(folder) for folder in (*with_sign, *apart)]


def _written_out(word: str) -> list[str]:
    """Returns `--multirun` for `--multi`, `-m -m` for `-mm`, and any word that is neither unchanged."""
    if re.fullmatch(r"-[hmr]{2,}", word):  # Hydra's options of one letter that take no value
        return [f"-{letter}" for letter in word[1:]]
    name, equals, value = word.partition("=")
    meant = [option for option in _LONG_OPTIONS if option.startswith(name)]
    return [f"{meant[0]}{equals}{value}" if name.startswith("--") and len(meant) == 1 else word]


def value_of(key: str, arguments: Sequence[str]) -> str | None:
    """Returns what the last `key=TEXT` sets; None where there is none, or null."""
    values = [word.partition("=")[2] for word in arguments if names(word) == key and "=" in word]
    text = values[-1].strip("'\"") if values else ""
    return None if text in ("", "null", "None") else text


def names(word: str) -> str:
    """Returns the key that a setting's word names, without the signs for adding and deleting."""
    return word.partition("=")[0].lstrip("+~")
