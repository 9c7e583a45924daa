"""The run folder: result.json on every way out, config.yaml, predictions, and the facts of machine and versions."""

import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_only

from forgetmenot.data.examples import ScoringSet
from forgetmenot.durable import write_whole
from forgetmenot.folder_lock import only_writer
from forgetmenot.result import FILE_NAME, HardwareSection, RunResult, now

_PACKAGES = ("torch", "lightning", "transformers", "peft", "torchmetrics", "datasets", "hydra-core")

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)


def on_rank_zero(function: Callable[P, R]) -> Callable[P, R | None]:
    """Returns `function` for the one rank that writes; on the others it does nothing, and gives None."""
    return rank_zero_only(function)


@contextmanager
def recording(folder: Path, result: RunResult, *, goes_on: bool = False) -> Iterator[RunResult]:
    """Writes `result` into `folder` when the block ends: complete, failed with the error, or interrupted.

    A run that `goes_on` takes the place of its own earlier record once its model is there; the seconds that it took
    before are in `result`. Raises ValueError where another run has written there, or does.
    """
    with ExitStack() as stack:
        on_rank_zero(stack.enter_context)(only_writer(folder))
        if not goes_on:
            _refuse_ended(folder)
            on_rank_zero(_refuse_settings)(folder)  # which the others may find, written by the first
        with _recorded(folder, result, goes_on=goes_on):
            yield result


@contextmanager
def _recorded(folder: Path, result: RunResult, *, goes_on: bool) -> Iterator[None]:
    started = time.perf_counter()
    result.started = now()
    result.versions = {"forgetmenot": _own_version(), **{name: version(name) for name in _PACKAGES}}
    result.git_commit = _git_commit()
    try:
        yield
        result.status = "complete"
    except KeyboardInterrupt:
        result.status = "interrupted"
        on_rank_zero(print)(f"what is known lies in {folder}", file=sys.stderr)
        raise
    except BaseException as error:
        result.status = "failed"
        result.error = " ".join(str(error).split()) or type(error).__name__
        log.error("the run failed\n%s", traceback.format_exc())
        raise
    finally:
        result.seconds = (result.seconds or 0.0) + time.perf_counter() - started
        on_rank_zero(_write)(result, folder, goes_on=goes_on)


def record_interrupted(folder: Path, result: RunResult, *, since: float, goes_on: bool = False) -> None:
    """Writes what `recording` would, for a main thread that can no more, where the run has not ended by itself.

    `since` is when it began, by time.perf_counter.
    """
    if result.status == "interrupted":
        print(f"what is known lies in {folder}", file=sys.stderr)
        spent = (result.seconds or 0.0) + time.perf_counter() - since
        _write(replace(result, seconds=spent), folder, goes_on=goes_on)


def _write(result: RunResult, folder: Path, *, goes_on: bool) -> None:
    if result.method is not None or not goes_on:
        result.write(folder)


def _refuse_settings(folder: Path) -> None:
    """Raises ValueError where settings lie there: of a run that was killed, which has no record, or of something else.

    One that was interrupted before it wrote them has computed nothing.
    """
    if (folder / "config.yaml").exists():
        raise ValueError(
            f"hydra.run.dir must be a new folder, got {folder} with a config.yaml; resume={folder} goes on with a run "
            "of train"
        )


def _refuse_ended(folder: Path) -> None:
    """Raises ValueError where a run has ended there, but for one that was interrupted, maybe before it began."""
    if (folder / FILE_NAME).exists() and RunResult.read(folder).status != "interrupted":
        raise ValueError(f"hydra.run.dir must be a new folder, got {folder} with the {FILE_NAME} of another run")


def write_predictions(
    folder: Path,
    tests: Sequence[ScoringSet],
    *,
    before: Mapping[str, Sequence[str]],
    after: Mapping[str, Sequence[str]] | None,
) -> None:
    """Writes predictions/<task>.jsonl: one line per test example, in file order; plain text has none."""
    for data in tests:
        name = data.task.name
        was_said = before[name]
        is_said = [None] * len(was_said) if after is None else after[name]
        rows = zip(data.examples, was_said, is_said, strict=False)
        lines = [
            {"prompt": example.prompt, "references": list(example.references), "before": was, "after": now}
            for example, was, now in rows
        ]
        if lines:
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            write_whole(folder / "predictions" / f"{name}.jsonl", text)


def hardware(device: torch.device, *, devices: int, precision: str) -> HardwareSection:
    """Returns the machine as result.json names it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"device": name, "devices": devices, "threads": torch.get_num_threads(), "precision": precision}


def folder_bytes(folder: Path) -> int:
    """Returns the size of all files in `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _own_version() -> str:
    from forgetmenot import __version__

    return __version__


def _git_commit() -> str | None:
    """Returns the commit of the clone that this package runs from; None where it is installed from a wheel."""
    top = Path(__file__).resolve().parents[2]
    if not (top / ".git").exists() or shutil.which("git") is None:
        return None
    answer = subprocess.run(["git", "-C", str(top), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
