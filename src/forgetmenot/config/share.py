"""What a member of a sweep gets of the machine where several run at once: cores, threads and GPUs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep

from filelock import FileLock, Timeout
from omegaconf import DictConfig, ListConfig

from forgetmenot.config.errors import ConfigError

_POLL_SECONDS = 0.1


@contextmanager
def place_among(at_once: int, *, notes: Path) -> Iterator[int]:
    """Yields which of `at_once` places is free, and keeps it while the block runs."""
    with ExitStack() as stack:
        while True:
            for place in range(at_once):
                try:
                    stack.enter_context(FileLock(notes / f"place_{place}.lock", timeout=0))
                except Timeout:
                    continue
                yield place
                return
            sleep(_POLL_SECONDS)


def share(
    trainer: DictConfig, *, place: int, at_once: int, environment: Mapping[str, str], cores: int
) -> dict[str, str]:
    """Returns what the environment of the member at `place` gets: OMP_NUM_THREADS and CUDA_VISIBLE_DEVICES.

    Threads stay as the user has set them, and so do devices that are listed by number.
    """
    devices = trainer.get("devices", "auto")
    mine: dict[str, str] = {}
    own = _own_gpus(_gpus_for(trainer, environment), place=place, at_once=at_once)
    if own and not _are_listed(devices):
        mine["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    if "OMP_NUM_THREADS" not in environment:
        ranks = _number(devices) or max(1, len(own))
        mine["OMP_NUM_THREADS"] = str(max(1, cores // (at_once * ranks)))
    return mine


def check_gpus(trainer: DictConfig, *, at_once: int, environment: Mapping[str, str]) -> None:
    """Raises ConfigError where members ask for more GPUs each than their part, and there are enough for fewer members.

    Members of one GPU may share one.
    """
    asked, gpus = _number(trainer.get("devices", "auto")) or 1, _gpus_for(trainer, environment)
    if 1 < asked <= len(gpus) < asked * at_once:
        raise ConfigError(
            f"hydra.launcher.n_jobs must be at most {len(gpus) // asked} for members of {asked} GPUs each, where there "
            f"are {len(gpus)}, got {at_once}"
        )


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _are_listed(devices: object) -> bool:
    return isinstance(devices, ListConfig) or (isinstance(devices, str) and "," in devices)


def _number(devices: object) -> int | None:
    """Returns how many devices Lightning takes for this value of `trainer.devices`; None where that is up to it."""
    if isinstance(devices, ListConfig):
        return len(devices)
    words = [word for word in str(devices).split(",") if word.strip()]
    if _are_listed(devices):
        return len(words)
    return int(words[0]) if words and words[0].isdecimal() and int(words[0]) > 0 else None


def _gpus_for(trainer: DictConfig, environment: Mapping[str, str]) -> list[str]:
    return [] if trainer.get("accelerator") == "cpu" else _gpus(environment)


def _own_gpus(gpus: list[str], *, place: int, at_once: int) -> list[str]:
    """Returns the GPUs of a place: its part of them, or one that several share where there are fewer than places."""
    each = len(gpus) // at_once
    return gpus[place * each : (place + 1) * each] if each else gpus[place % len(gpus) :][:1] if gpus else []


def _gpus(environment: Mapping[str, str]) -> list[str]:
    """Returns the GPUs that may be used; without torch, which would hold memory of them for the whole sweep."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.split() if answer.returncode == 0 else []
