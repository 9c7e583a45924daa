"""Runs a command under Hydra, and turns whatever a user got wrong into one sentence and an exit code."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from omegaconf import DictConfig

from forgetmenot.config.errors import HYDRA_ERRORS, hydra_sentence, refuse_null_groups
from forgetmenot.config.paths import conf_folder, register_resolvers

Story = Callable[[DictConfig], float | None]

USER_ERRORS = (*HYDRA_ERRORS, ValueError, OSError)
"""What a user's input can raise; anything else is a bug of ours and keeps its traceback."""

_NONE_CHOSEN = ("experiment=null", "sweep=null")
"""Defaults that Hydra takes from no command line."""

_OPTIONS_WITH_VALUE = frozenset(
    "--config-dir -cd --config-name -cn --config-path -cp --package -p --cfg -c --info -i --experimental-rerun".split()
)


def run_app(
    story: Story, *, config_name: str, arguments: list[str], after_sweep: Callable[[Path], None] = lambda folder: None
) -> None:
    """Runs `story` with the config that `arguments` compose, or with each one of a sweep and then `after_sweep`.

    A user's error ends with one sentence and exit code 1, Ctrl-C with 130; a failed member does not stop a sweep.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing and exiting
    os.environ.setdefault("WANDB_SILENT", "true")  # what people should read of it we print
    register_resolvers()
    command_line = sys.argv
    ended = _Ended()

    def task(config: DictConfig) -> float | None:
        sys.argv = command_line  # Lightning starts its other ranks with it
        return ended.with_value_of(story, config)

    arguments = [word for word in arguments if word not in _NONE_CHOSEN]
    sys.argv = [command_line[0], *_options_first(arguments)]
    try:
        refuse_null_groups(arguments)
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(task)()
        if ended.sweep is not None:
            after_sweep(ended.sweep)
    except USER_ERRORS as error:
        ended.failures += 1
        _tell(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        sys.argv = command_line
    if ended.failures:
        sys.exit(1)


def quoted(word: str, *, key: str) -> str:
    """Returns `key=TEXT` so that Hydra takes TEXT as it is, whatever stands in it; any other word unchanged."""
    name, equals, text = word.partition("=")
    if name != key or not equals:
        return word
    as_it_is = text.replace("${", "\\${")  # else an interpolation
    return f"{key}={QuotedString(text=as_it_is, quote=Quote.double).with_quotes()}"


@dataclass(kw_only=True)
class _Ended:
    """How many runs failed, and the sweep's folder where one of its members ended well."""

    failures: int = 0
    sweep: Path | None = None

    def with_value_of(self, story: Story, config: DictConfig) -> float | None:
        """Returns what the story returns, or None where a user's error ended it: Hydra would print its own line."""
        try:
            value = story(config)
        except USER_ERRORS as error:
            self.failures += 1
            _tell(error)
            return None
        hydra_config = HydraConfig.get()
        if hydra_config.mode is RunMode.MULTIRUN:
            self.sweep = Path(hydra_config.sweep.dir)
        return value


def _options_first(arguments: list[str]) -> list[str]:
    """Returns the arguments with options before key=value, since argparse takes them in no other order."""
    options: list[str] = []
    words: list[str] = []
    takes_next = False
    for word in arguments:
        (options if takes_next or word.startswith("-") else words).append(word)
        takes_next = word in _OPTIONS_WITH_VALUE
    return [*options, *words]


def _tell(error: Exception) -> None:
    sentence = hydra_sentence(error) if isinstance(error, HYDRA_ERRORS) else " ".join(str(error).split())
    print(f"error: {sentence}", file=sys.stderr)
