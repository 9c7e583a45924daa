"""`sequence`: learns data sets one after another, each a normal run on the one before.

forgetmenot sequence method=lora data=[sentiment,party,names]
"""

import os
import re
import sys
import uuid
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console

from forgetmenot.config.child import PROGRAM, own_environment, run_child, stopping
from forgetmenot.config.errors import HYDRA_ERRORS, ConfigError, hydra_sentence
from forgetmenot.config.paths import conf_folder, register_resolvers
from forgetmenot.config.sweep import asks_for_sweep
from forgetmenot.config.words import parted
from forgetmenot.report.sequence import FILE_NAME, Transfer
from forgetmenot.result import RunResult
from forgetmenot.signals import exit_code

_LIST = re.compile(r"data=\[([^\[\]]*)\]")
_OURS = ("hydra.run.dir", "resume")  # what a sequence decides by itself, or cannot have


def main(arguments: Sequence[str]) -> None:
    """Runs all stages, each in a process of its own; raises ValueError where one cannot be started or fails."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(f"{__doc__.strip()}\n\nAll other settings are those of train: forgetmenot train --help")
        return
    names, settings = _parse(arguments)
    _check_stages(settings, names)
    folder = _folder()
    console = Console()

    stages: list[Path] = []
    for number, name in enumerate(names):
        stage = folder / f"{number}_{name}"
        console.print(f"stage {number + 1} of {len(names)}: {name}", markup=False)
        base = [f"model.path={stages[-1]}"] if stages else []  # behind the user's own, so that it counts
        _train([*settings, f"data={name}", *base, f"hydra.run.dir={stage}"], stage=stage)
        stages.append(stage)

    transfer = Transfer.of([RunResult.read(stage) for stage in stages])
    transfer.write(folder)
    console.print(transfer.table())
    console.print(transfer.sentence())
    console.print(f"The stages and {FILE_NAME} lie in {folder}", soft_wrap=True, markup=False)


def _parse(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the data sets in their order, and train's own settings."""
    lists = [match for word in arguments if (match := _LIST.fullmatch(word))]
    names = [name.strip() for name in lists[0][1].split(",")] if len(lists) == 1 else []
    given = ", ".join(word for word in arguments if word.startswith("data=")) or "none"
    if not names or not all(names) or len(set(names)) < len(names):
        raise ConfigError(f"data must be a list of different data sets such as [sentiment,party], got {given}")
    settings = [word for word in arguments if not _LIST.fullmatch(word)]
    options = [word for word in parted(settings)[0] if not asks_for_sweep([word])]  # where a user's presets lie
    for word in settings:
        if word.partition("=")[0] in _OURS or asks_for_sweep([*options, word]):
            raise ConfigError(f"sequence must be one run after another in a folder of its own, got {word}")
    return names, settings


def _check_stages(settings: Sequence[str], names: Sequence[str]) -> None:
    """Raises ConfigError before anything is trained where a stage cannot be one: all that a run checks beforehand."""
    from forgetmenot.cli.penalties import check_penalties
    from forgetmenot.cli.setup import set_up
    from forgetmenot.cli.trainable import check_trainable
    from forgetmenot.config.retained import expand_retained, retain, retain_targets_of_base
    from forgetmenot.export import check_mergeable

    register_resolvers()
    earlier: list[DictConfig] = []  # which later stages retain
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        for number, name in enumerate(names, start=1):
            try:
                config = compose("train", overrides=[*_overrides(settings), f"data={name}"])
                if "tasks" in config.data:
                    raise ConfigError(f"data must be a list of single data sets, got {name}, which mixes several")
                config = retain_targets_of_base(expand_retained(config))
                if config.data.name in [data.name for data in earlier]:
                    raise ConfigError(f"data.name must be another in each stage, got {config.data.name} twice")
                retain(config, earlier)
                earlier.append(config.data)
                with warnings.catch_warnings(action="ignore"):  # the stage itself warns
                    stage = set_up(config, merges=False)
                    check_trainable(stage)
                    check_penalties(stage)
                if len(names) > 1:
                    check_mergeable(stage.method, key="method")
            except (ValueError, OSError, *HYDRA_ERRORS) as error:
                sentence = hydra_sentence(error) if isinstance(error, HYDRA_ERRORS) else str(error)
                raise ConfigError(f"{sentence} (stage {number}, data={name})") from error


def _overrides(settings: Sequence[str]) -> list[str]:
    """Returns the settings with --config-dir as Hydra's compose takes it."""
    joined = re.sub(r"(^|\0)--config-dir\0", r"\1--config-dir=", "\0".join(settings)).split("\0")
    found = [word.partition("=") for word in joined]
    return [
        f"hydra.searchpath=[{Path(value).resolve().as_uri()}]" if name == "--config-dir" else f"{name}{equals}{value}"
        for name, equals, value in found
    ]


def _folder() -> Path:
    """Returns a new folder, unique even when two sequences start at once."""
    now = datetime.now()
    return Path("outputs") / "sequences" / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{uuid.uuid4().hex[:6]}"


def _train(arguments: Sequence[str], *, stage: Path) -> None:
    """Runs `train` in a process of its own, which leaves no memory of one stage to the next, and can start ranks."""
    asked: list[int] = []

    def interrupt(number: int) -> bool:
        """Returns whether this is the first time."""
        asked.append(number)
        return len(asked) == 1

    environment = own_environment(os.environ)
    with stopping(interrupt):
        command = [*PROGRAM, "train", *arguments]
        code = run_child(command, environment=environment, place=Path.cwd(), stopped=lambda: bool(asked))
    if asked:
        sys.exit(exit_code(KeyboardInterrupt(asked[0])))
    if code != 0:
        raise ValueError(
            f"data must be data sets that train ends well on, got exit code {code} from {stage.name} in {stage.parent}"
        )
