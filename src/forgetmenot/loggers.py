"""Where a run is logged: metrics.jsonl always, one line a step, and W&B where it is wanted."""

import json
import logging
import math
import os
import re
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import datasets
import transformers
import wandb
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from forgetmenot.data.examples import ScoringSet

METRICS = "metrics.jsonl"

_PLACES = ("version", "sub_dir", "id", "prefix", "artifact_location", "tracking_uri")
"""Settings of loggers by which their files are called, beside the folder that they get."""

Answers = Mapping[str, Sequence[str]]
"""By task, in file order."""


class JsonlLogger(Logger):
    """Lightning's record in a file of its own; what one step logs in several calls stands on one line."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self._step: int | None = None
        self._start = 0  # of the open line, in bytes
        self._values: dict[str, float | int | None] = {}

    @property
    def name(self) -> str:
        """The folder's name for Lightning."""
        return "metrics"

    @property
    def version(self) -> str:
        """One run, one file."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds to the line of `step` and writes it."""
        if self._step is None:
            self._reopen()
        if step != self._step:
            self._step = step
            self._values = {}
            self._start = self.file.stat().st_size if self.file.exists() else 0
        numbers = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        self._values |= {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self.save()

    def _reopen(self) -> None:
        """Takes the last line of a run that goes on as open: it may have ended before its step was validated."""
        lines = self.file.read_bytes().splitlines(keepends=True) if self.file.exists() else []
        if lines:
            self._values = json.loads(lines[-1])
            step = self._values.pop("step")
            self._step = None if step is None else int(step)
            self._start = sum(map(len, lines[:-1]))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, object] | Namespace, *args: object, **kwargs: object) -> None:
        """Settings stand in config.yaml."""

    @rank_zero_only
    def save(self) -> None:
        """Writes the line of the step that is open, in place of what it held so far."""
        if not self._values:
            return
        with self.file.open("r+b" if self.file.exists() else "wb") as stream:
            stream.truncate(self._start)
            stream.seek(self._start)
            stream.write(json.dumps({"step": self._step, **self._values}, allow_nan=False).encode() + b"\n")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the line that is open."""
        self.save()


def check_places(values: Mapping[str, object], *, key: str = "logger") -> None:
    """Raises ValueError, naming the setting's key, where a logger would write outside of the run's folder."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            check_places(value, key=f"{key}.{name}")
        elif name in ("dir", "root_dir") and value is not None:
            raise ValueError(f"{key}.{name} must be left out, since a run is logged in its own folder, got {value}")
        elif name in _PLACES and isinstance(value, str) and _leaves(value):
            raise ValueError(f"{key}.{name} must be a name or a path within the run's folder, got {value}")


def _leaves(text: str) -> bool:
    return text.startswith(("/", "~", "file:")) or ".." in Path(text).parts


def open_logger(make_logger: Callable[..., Logger], folder: Path) -> Logger | None:
    """Returns the chosen logger, writing into the run's folder; None where WANDB_MODE=disabled turns W&B off.

    Raises ValueError where it cannot be opened.
    """
    if os.environ.get("WANDB_MODE") == "disabled" and getattr(make_logger, "func", None) is WandbLogger:
        return None
    try:
        logger = make_logger(save_dir=str(folder), name=folder.name, **_same_run(make_logger, folder))
        if isinstance(logger, WandbLogger):
            logger.experiment.id  # noqa: B018  opens the run now, where an error can be told in a sentence
    except (TypeError, wandb.errors.Error) as error:
        raise ValueError(
            f"logger must be settings that W&B can be opened with, got an error: {error}; "
            "logger.offline=true keeps the run here, logger=none does without"
        ) from error
    return logger


def _same_run(make_logger: Callable[..., Logger], folder: Path) -> dict[str, str]:
    """Returns W&B's id of the run that goes on in `folder`, which the folders that it leaves there are named by."""
    if getattr(make_logger, "func", None) is not WandbLogger:
        return {}
    names = [path.name for path in (folder / "wandb").glob("*run-*")]
    ids = [found[1] for name in names if (found := re.fullmatch(r"(?:offline-)?run-\d+_\d+-(.+)", name))]
    return {"id": ids[0]} if ids else {}


def log_outcome(
    loggers: Sequence[Logger],
    metrics: Mapping[str, float],
    *,
    step: int,
    tests: Sequence[ScoringSet],
    before: Answers,
    after: Answers,
) -> None:
    """Writes down what a run came to; W&B gets a table a task: prompts, references, answers before and after."""
    for logger in loggers:
        logger.log_metrics(dict(metrics), step=step)
        logger.save()
        if isinstance(logger, WandbLogger):
            for data in (data for data in tests if data.task.answers):
                name = data.task.name
                texts = [(example.prompt, " / ".join(example.references)) for example in data.examples]
                rows = [[*pair, was, now] for pair, was, now in zip(texts, before[name], after[name], strict=True)]
                logger.log_table(f"predictions/{name}", columns=["prompt", "references", "before", "after"], data=rows)


def close_wandb(loggers: Sequence[Logger]) -> str | None:
    """Ends the W&B run; returns the command that uploads it where it was kept offline."""
    line = None
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            line = f"wandb sync {Path(run.dir).parent}" if run.offline else None
            run.finish()
    return line


def quiet_libraries() -> None:
    """Sends what libraries have to say to run.log, so that the terminal is for the run."""
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # on a full disk, a line that finds no room is no error of its own
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "transformers", "datasets"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
