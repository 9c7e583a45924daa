"""The machine that a run is planned for: which devices it has and how many, of which this one may have none."""

import re

import torch
from omegaconf import DictConfig

from forgetmenot.config.build import plain
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.settings import Planning
from forgetmenot.trainer import choose_precision

_MOST = 1_000_000  # devices of a machine, of which Lightning makes a list, and machines


def for_this_machine(config: DictConfig, asked: Planning) -> bool:
    """Lets `config` be set up on this machine, which may lack the devices; returns whether they are CUDA devices.

    Such devices are planned for without them: as processes on a CPU, of the same number and in the same precision.
    """
    values = plain(config.trainer, key="trainer")
    wanted = values.get("accelerator", "auto")
    _check_device(asked.device, accelerator=wanted)
    _check_most("num_nodes", values.get("num_nodes"))
    there = torch.cuda.is_available()
    on_cuda = asked.device == "cuda" or (
        asked.device == "auto" and (wanted in ("gpu", "cuda") or (there and wanted != "cpu"))
    )
    if on_cuda and config.precision == "auto":
        config.precision = choose_precision("auto", on_cuda=True) if there else "bf16"
    config.trainer.devices = _number(values.get("devices", "auto"), on_cuda=on_cuda)
    config.trainer.accelerator = "cpu"
    return on_cuda


def _check_device(device: str, *, accelerator: object) -> None:
    """Raises ConfigError where the run would train on another device than it is planned for, or on one unknown here."""
    if accelerator not in ("auto", "cpu", "gpu", "cuda"):
        shown = "null" if accelerator is None else accelerator
        raise ConfigError(f"trainer.accelerator must be auto, cpu, gpu or cuda for a plan, got {shown}")
    trained_on = {"auto": device, "cpu": "cpu"}.get(str(accelerator), "cuda")
    if device not in ("auto", trained_on):
        raise ConfigError(f"device must be auto or {trained_on} with trainer.accelerator={accelerator}, got {device}")


def _check_most(name: str, number: object) -> None:
    if isinstance(number, int) and number > _MOST:
        raise ConfigError(f"trainer.{name} must be at most {_MOST:,} for a plan, got {number}")


def _number(devices: object, *, on_cuda: bool) -> int | str:
    """Returns how many a machine has of the devices that Lightning would take for these, of auto itself."""
    read = _read(devices)
    if on_cuda and torch.cuda.is_available() and (devices == "auto" or read == -1):
        return torch.cuda.device_count()
    if devices == "auto":
        return "auto"
    _check_most("devices", read)
    if isinstance(read, int) and read >= 1:
        return read
    shown = "null" if devices is None else str(devices) or "nothing"
    if not on_cuda:
        hint = "; device=cuda plans for GPUs" if isinstance(read, list) or read == -1 else ""
        raise ConfigError(
            f"trainer.devices must be auto or a number of processes, at least 1, for a CPU, got {shown}{hint}"
        )
    if read == -1:
        raise ConfigError(f"trainer.devices must be a number where this machine has no GPUs to count, got {shown}")
    if not isinstance(read, list) or not read or min(read) < 0 or len(set(read)) < len(read):
        raise ConfigError(
            f"trainer.devices must be auto, a number of GPUs, at least 1, or a list of different ones, got {shown}"
        )
    return len(read)


def _read(devices: object) -> int | list[int] | None:
    """Returns a number of devices, or theirs, as Lightning reads them; None for what it does not take."""
    if isinstance(devices, str):
        words = [word.strip() for word in devices.split(",") if word.strip()]
        if not words or not all(re.fullmatch(r"-?[0-9]{1,9}", word) for word in words):
            return None
        return [int(word) for word in words] if "," in devices else int(words[0])
    if isinstance(devices, list):
        return devices if all(type(each) is int for each in devices) else None
    return devices if type(devices) is int else None
