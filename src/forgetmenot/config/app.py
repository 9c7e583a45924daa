"""Runs a command under Hydra, and turns whatever a user got wrong into one sentence and an exit code."""

import os
import sys
from collections.abc import Callable

import hydra
from omegaconf import DictConfig

from forgetmenot.config.errors import HYDRA_ERRORS, hydra_sentence, refuse_null_groups
from forgetmenot.config.paths import conf_folder, register_resolvers

Story = Callable[[DictConfig], float | None]

USER_ERRORS = (*HYDRA_ERRORS, ValueError, OSError)
"""What a user's input can raise; anything else is a bug of ours and keeps its traceback."""

_OPTIONS_WITH_VALUE = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p")


def run_app(story: Story, *, config_name: str, arguments: list[str]) -> None:
    """Runs `story` with the config that `arguments` compose, or with each one of a sweep.

    A user's error ends with one sentence and exit code 1, Ctrl-C with 130; a failed member does not stop a sweep.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing and exiting
    os.environ.setdefault("WANDB_SILENT", "true")  # what people should read of it we print
    register_resolvers()
    command_line = sys.argv
    failures = 0

    def task(config: DictConfig) -> float | None:
        nonlocal failures
        sys.argv = command_line  # Lightning starts its other ranks with it
        try:
            return story(config)
        except USER_ERRORS as error:  # caught here, since Hydra would print a line of its own first
            failures += 1
            _tell(error)
            return None

    sys.argv = [command_line[0], *_options_first(arguments)]
    try:
        refuse_null_groups(arguments)
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(task)()
    except USER_ERRORS as error:
        failures += 1
        _tell(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        sys.argv = command_line
    if failures:
        sys.exit(1)


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
