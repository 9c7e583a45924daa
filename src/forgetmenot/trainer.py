"""From settings to lightning.Trainer: its own names pass through, those that we own are refused with our key's name."""

import inspect
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

from forgetmenot.checkpoint import CHECKPOINTS, rank_file
from forgetmenot.checkpointing import BEST, StreamedFile
from forgetmenot.config.settings import TRAINER_KEYS_OF_OURS, Settings
from forgetmenot.model.sharding import is_sharded
from forgetmenot.model.shares import shared_weights
from forgetmenot.sharded_strategy import ShardedStrategy
from forgetmenot.signals import StoppedError

SHARDED = "fsdp"
"""The strategy that shares out weights: FSDP2, and not Lightning's own of that name, which is FSDP1."""

Precision = Literal["fp32", "bf16"]

_BF16_PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # instructions of x86 and of ARM


def check_names(values: Mapping[str, object]) -> None:
    """Raises ValueError for a key under trainer that Lightning does not take, or that has a name of ours."""
    known = [name for name in inspect.signature(Trainer).parameters if name != "self"]
    hints = get_type_hints(Trainer.__init__)
    for name, value in values.items():
        if name in TRAINER_KEYS_OF_OURS:
            raise ValueError(f"trainer.{name} must be set by {TRAINER_KEYS_OF_OURS[name]}, got trainer.{name}={value}")
        if name not in known:
            close = next(iter(get_close_matches(name, known, n=1)), None)
            hint = f"; did you mean {TRAINER_KEYS_OF_OURS.get(close, f'trainer.{close}')}?" if close else ""
            raise ValueError(f"trainer.{name} must be an argument of lightning.Trainer, got {name}{hint}")
        if not _fits(value, hints[name]):
            raise ValueError(f"trainer.{name} must be of the type that lightning.Trainer takes, got {value}")
    for name in ("num_nodes", "check_val_every_n_epoch"):
        number = values.get(name)
        if isinstance(number, int) and number < 1:
            raise ValueError(f"trainer.{name} must be at least 1, got {number}")
    strategy = str(values.get("strategy", "auto"))
    if strategy.endswith(("spawn", "fork", "notebook")):
        raise ValueError(f"trainer.strategy must start ranks as commands of their own, such as ddp, got {strategy}")
    if strategy not in ("auto", "single_device", SHARDED) and not strategy.startswith("ddp"):
        raise ValueError(
            f"trainer.strategy must be auto, single_device, ddp or {SHARDED}, which are known to come to the same, "
            f"got {strategy}"
        )


def _fits(value: object, hint: object) -> bool:
    """Tells whether a value is of a type that `hint` allows, where that is made of plain types alone."""
    options = get_args(hint) or (hint,)
    if not set(options) <= {int, float, bool, str, type(None)}:
        return True
    return type(value) in options or (isinstance(value, int) and not isinstance(value, bool) and float in options)


def try_trainer(values: Mapping[str, object]) -> None:
    """Raises ValueError where lightning.Trainer does not take the values, before anything is loaded for it."""
    try:
        build_trainer(values, precision="fp32", callbacks=[], loggers=[])
    except (MisconfigurationException, TypeError, ValueError, AttributeError, ImportError) as error:
        shown = ", ".join(f"trainer.{name}={value}" for name, value in values.items())
        raise ValueError(
            f"trainer must be settings that Lightning takes on this machine, got {shown} ({error})"
        ) from error


def uses_cuda(values: Mapping[str, object]) -> bool:
    """Tells whether a Trainer with these settings computes on CUDA devices."""
    return torch.cuda.is_available() and values.get("accelerator") != "cpu"


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], *, on_cuda: bool) -> Precision:
    """Returns bf16 where the hardware computes in it and nothing else was asked for."""
    if wanted != "auto":
        return wanted
    if on_cuda:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    processor = (
        torch.cpu.get_capabilities()
    )  # oneDNN says yes on any AVX-512, where bf16 takes three times as long as fp32
    return "bf16" if any(processor.get(name, False) for name in _BF16_PRODUCTS) else "fp32"


def base_dtype(precision: Precision, *, freezes_base: bool) -> torch.dtype:
    """Returns the type that base weights are held in: trained weights always in fp32."""
    return torch.bfloat16 if precision == "bf16" and freezes_base else torch.float32


def build_trainer(
    values: Mapping[str, object],
    *,
    precision: Precision,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    max_epochs: int | None = None,
    max_steps: int | None = None,
) -> Trainer:
    """Returns the Trainer; batches are planned and progress is ours, so Lightning's own of both are off."""
    make: Callable[..., Trainer] = Trainer  # the user's arguments: config/build.py checks names, Lightning values
    trainer = make(
        **{"num_sanity_val_steps": 0, **values, **_sharding(values)},
        plugins=[StreamedFile()],
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        max_epochs=max_epochs if max_epochs is not None else -1,
        max_steps=max_steps if max_steps is not None else -1,
        callbacks=list(callbacks),
        logger=list(loggers),
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
    )
    _leave_signals_alone(trainer)
    trainer._checkpoint_connector = _GivenCheckpoints(trainer)
    return trainer


class _GivenCheckpoints(_CheckpointConnector):
    """Goes on from what it is given alone.

    Lightning's own goes on, in a job of Slurm's, from any hpc_ckpt_N.ckpt that another one left in the working folder.
    """

    _hpc_resume_path = None


def _leave_signals_alone(trainer: Trainer) -> None:
    """Takes Lightning's own answers to signals away.

    At SIGTERM it would wait for the other ranks amid whatever these compute together, and a job of Slurm's it would
    save in its own way and queue again.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def _sharding(values: Mapping[str, object]) -> dict[str, ShardedStrategy]:
    """Returns the strategy that shares out weights over all devices of all nodes, where it is chosen."""
    devices = sharing_ranks(values)
    if devices is None:
        return {}
    return {"strategy": ShardedStrategy(data_parallel_size=devices, tensor_parallel_size=1)}


def sharing_ranks(values: Mapping[str, object]) -> int | None:
    """Returns over how many ranks a Trainer with these settings shares weights out; None where each has them whole."""
    if values.get("strategy") != SHARDED:
        return None
    make: Callable[..., Trainer] = Trainer
    hardware = {name: values[name] for name in ("accelerator", "devices", "num_nodes") if name in values}
    counted = make(**hardware, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    return counted.num_devices * counted.num_nodes  # as Lightning reads what was asked for


def selection(settings: Settings, monitor: str, folder: Path, *, mode: Literal["min", "max"]) -> list[Callback]:
    """Returns the callbacks that keep the best weights and stop when they no longer improve."""
    checkpoints = folder / CHECKPOINTS
    chosen: list[Callback] = []
    if settings.select == "best":
        chosen.append(ModelCheckpoint(checkpoints, filename=BEST, monitor=monitor, mode=mode, save_weights_only=True))
    if settings.patience is not None:
        chosen.append(EarlyStopping(monitor, mode=mode, patience=settings.patience))
    return chosen


@contextmanager
def ctrl_c_interrupts() -> Iterator[None]:
    """Turns Lightning's exit on Ctrl-C back into KeyboardInterrupt, so that the run is recorded as interrupted."""
    try:
        yield
    except StoppedError as error:
        raise KeyboardInterrupt(*error.args) from error
    except SystemExit as error:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning has left it ignored
        cause = error.__context__
        raise KeyboardInterrupt(*(cause.args if isinstance(cause, KeyboardInterrupt) else ())) from error


def take_best(trainer: Trainer, module: LightningModule, *, last: Mapping[str, float]) -> bool:
    """Loads the best weights into `module` where some were kept that beat the `last` ones' scores; returns whether.

    The last step need not be one that was validated in the loop, so its scores are given.
    """
    keeper = trainer.checkpoint_callback
    if not isinstance(keeper, ModelCheckpoint) or keeper.best_model_score is None:
        return False
    assert keeper.monitor is not None
    best, score = float(keeper.best_model_score), last[keeper.monitor]
    if (score <= best) if keeper.mode == "min" else (score >= best):
        return False
    file = Path(keeper.best_model_path)
    own = rank_file(file, trainer.global_rank) if is_sharded(module) else file
    weights = torch.load(own, map_location=module.device, weights_only=True)["state_dict"]
    module.load_state_dict(shared_weights(module, weights), strict=False)  # what is frozen is not in there
    return True
