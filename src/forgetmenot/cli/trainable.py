"""What data must hold beyond a test split, so that a run can learn from it."""

import warnings

from forgetmenot.cli.setup import Setup
from forgetmenot.config.errors import ConfigError
from forgetmenot.data.mix import Replay


def check_trainable(setup: Setup) -> None:
    """Raises ConfigError where a task has nothing to learn from, or the target nothing to be judged by on the way."""
    for number, data in enumerate(setup.targets):
        key = "data" if len(setup.targets) == 1 else f"data.tasks[{number}]"
        for name, split in (("train", data.train), ("validation", data.validation)):
            if not split:
                raise ConfigError(f"{key}.path must hold a {name} split, got {data.task.path} without one")
    if setup.replay is not None and setup.method.trains:
        _check_replay(setup, setup.replay)


def _check_replay(setup: Setup, replay: Replay) -> None:
    without = [data.task.name for data in setup.retained if not data.train]
    if without or not setup.retained:
        raise ConfigError(
            f"data.retained must be data sets with a train split where replay=mixed, got {', '.join(without) or 'none'}"
            f"{' without one' if without else ''}; replay=none replays nothing"
        )
    try:
        share = replay.per_step(setup.settings.batch_size) / setup.settings.batch_size
    except ValueError as error:
        raise ConfigError(f"replay.{error}") from error
    if share != replay.share:
        warnings.warn(
            f"replay.share={replay.share} of batch_size={setup.settings.batch_size} is no whole number of examples: "
            f"{share:g} of every step is replayed",
            stacklevel=3,
        )
