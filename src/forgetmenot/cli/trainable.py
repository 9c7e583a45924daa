"""What training needs beyond what scoring needs, checked before any weight is read."""

import warnings
from functools import partial

from torch import optim

from forgetmenot.cli.setup import Setup
from forgetmenot.config.errors import ConfigError
from forgetmenot.data.mix import Replay
from forgetmenot.muon import Muon
from forgetmenot.record import on_rank_zero


def check_trainable(setup: Setup) -> None:
    """Raises ConfigError where a task has nothing to learn from, or the target nothing to be judged by on the way."""
    for number, data in enumerate(setup.targets):
        key = "data" if len(setup.targets) == 1 else f"data.tasks[{number}]"
        for name, split in (("train", data.train), ("validation", data.validation)):
            if not split:
                raise ConfigError(f"{key}.path must hold a {name} split, got {data.task.path} without one")
    if setup.replay is not None and setup.method.trains:
        _check_replay(setup, setup.replay)
    if setup.shares_weights and setup.method.trains:
        check_shared_steps(setup)


def check_shared_steps(setup: Setup) -> None:
    """Raises ConfigError where a step would need whole weights, of which each device has a share."""
    optimizer = setup.make_optimizer.func if isinstance(setup.make_optimizer, partial) else None
    if isinstance(optimizer, type) and issubclass(optimizer, Muon | optim.Muon):
        raise ConfigError(
            "optimizer must be one that steps each weight by itself with trainer.strategy=fsdp, got "
            f"{optimizer.__name__}, which turns whole matrices; trainer=ddp takes it"
        )
    for regularizer in setup.regularizers:
        if regularizer.holds_weights:
            raise ConfigError(
                f"regularizer must be [] or kl with trainer.strategy=fsdp, got {regularizer.name}, which compares "
                "whole weights; trainer=ddp takes it"
            )


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
        on_rank_zero(warnings.warn)(
            f"replay.share={replay.share} of batch_size={setup.settings.batch_size} is no whole number of examples: "
            f"{share:g} of every step is replayed",
            stacklevel=4,
        )
