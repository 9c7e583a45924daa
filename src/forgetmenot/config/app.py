"""Runs a command under Hydra, and turns whatever a user got wrong into one sentence and an exit code."""

import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from forgetmenot.config.errors import HYDRA_ERRORS, hydra_sentence

Story = Callable[[DictConfig], float | None]

USER_ERRORS = (*HYDRA_ERRORS, ValueError, OSError)
"""What a user's input can raise; anything else is a bug of ours and keeps its traceback."""

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_folder() -> Path:
    """Returns the YAML files: inside an installed package, or at the top of a clone."""
    packaged = _PACKAGE / "conf"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1] / "conf"


def register_resolvers() -> None:
    """Makes ${asset:}, ${folder_name:}, ${short_id:} and ${wandb_offline:} known to OmegaConf."""
    resolvers: dict[str, tuple[Callable[..., object], bool]] = {
        "asset": (lambda name: str(_PACKAGE / "assets" / name), False),
        "folder_name": (_folder_name, False),
        "short_id": (lambda _: uuid.uuid4().hex[:6], True),  # cached: one id a run, however often it is resolved
        "wandb_offline": (_wandb_offline, True),
    }
    for name, (function, use_cache) in resolvers.items():
        OmegaConf.register_new_resolver(name, function, use_cache=use_cache, replace=True)


def run_app(story: Story, *, config_name: str, arguments: list[str]) -> None:
    """Runs `story` with the config that `arguments` compose, or with each one of a sweep.

    A user's error ends with one sentence and exit code 1, Ctrl-C with 130; a failed member does not stop a sweep.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing and exiting
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

    sys.argv = [command_line[0], *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(task)()
    except USER_ERRORS as error:
        failures += 1
        _tell(error)
    except KeyboardInterrupt:
        print("interrupted; what is known is written in the run's folder", file=sys.stderr)
        sys.exit(130)
    finally:
        sys.argv = command_line
    if failures:
        sys.exit(1)


def _tell(error: Exception) -> None:
    sentence = hydra_sentence(error) if isinstance(error, HYDRA_ERRORS) else " ".join(str(error).split())
    print(f"error: {sentence}", file=sys.stderr)


def _folder_name(text: str) -> str:
    """Keeps letters, digits, '_', '-' and '.', so that a name from the config never leaves its folder."""
    return "".join(c if c.isalnum() or c in "_-." else "-" for c in str(text)).lstrip(".")


def _wandb_offline() -> bool:
    """Tells whether Weights & Biases has no key to log in with."""
    import wandb

    return not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key)
