"""What the two ways of a run, to train or to prompt, get to work with and hand back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.loggers import Logger
from rich.console import Console

from forgetmenot.checkpoint import Checkpoint
from forgetmenot.cli.wiring import AdaptedScores
from forgetmenot.result import RunResult
from forgetmenot.signals import Ending


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where a run notes what it comes to, what asks it to end, and its `last` checkpoint where it goes on."""

    folder: Path
    result: RunResult
    loggers: list[Logger]
    console: Console
    ending: Ending
    last: Checkpoint | None


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """What adapting came to: scores after, the targets' on validation examples, and the optimizer steps taken."""

    scores: AdaptedScores
    validation: Mapping[str, float]
    steps: int
