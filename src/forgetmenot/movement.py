"""Tells when training has not moved off its starting loss.

The losses of the last quarter of steps are set beside those of the first. Steps are noisy, since each sees other
examples, so a fall counts only beyond what such noise makes of the two means: twice the standard error of their
difference, which chance alone passes once in 44 runs. The noise of a step is taken from the differences of neighbouring
steps (von Neumann 1941), which a trend hardly adds to, and by their median, which a steep fall at the beginning leaves.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from rich.console import Console

from forgetmenot.data.types import Step

_FEWEST = 20  # steps: fewer leave too little of a quarter to tell noise from learning
_ERRORS = 2.0
_LEAST = 1e-3  # of the starting loss: where all steps see the same examples, rounding is all the noise there is
_MEDIAN_TO_DEVIATION = 1 / (0.6745 * math.sqrt(2))  # of normal noise: the difference of two steps has both's


def has_moved(losses: Sequence[float]) -> bool:
    """Tells whether the last quarter of the losses lies below the first beyond noise; too few are taken to have."""
    if len(losses) < _FEWEST:
        return True
    first, last = _ends(losses)
    noise = _MEDIAN_TO_DEVIATION * median(abs(b - a) for a, b in pairwise(losses))
    fall, chance = fmean(first) - fmean(last), _ERRORS * noise * math.sqrt(2 / len(first))
    return fall > max(chance, _LEAST * fmean(first))


def _ends(losses: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    number = len(losses) // 4
    return losses[:number], losses[-number:]


class Movement(Callback):
    """Tells at the end of training where the loss is still what it was; rank 0 does, since all ranks have one loss."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.losses: list[float] = []
        self.lr = 0.0

    def state_dict(self) -> dict[str, list[float]]:
        """Returns the losses so far and the highest rate, for a run that goes on."""
        return {"losses": self.losses, "lr": [self.lr]}

    def load_state_dict(self, state_dict: dict[str, list[float]]) -> None:
        """Goes on from what an earlier part of the run saw."""
        self.losses, (self.lr,) = list(state_dict["losses"]), state_dict["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Step, batch_idx: int
    ) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.lr = max(self.lr, float(trainer.callback_metrics["train/lr"]))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if has_moved(self.losses) or not trainer.is_global_zero:
            return
        first, last = _ends(self.losses)
        self.console.print(
            f"The training loss has not moved off its start: {fmean(first):.3f} nats a token over the first "
            f"{len(first)} steps, {fmean(last):.3f} over the last, no less beyond the noise of single steps; "
            f"another optimizer.lr than {self.lr:.2g}, a higher one as a rule, or more steps may help.",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip
