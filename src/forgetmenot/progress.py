"""Shows a long job's progress: a rich bar, or plain lines where there is no terminal.

Training tells its loss, tokens a second and the time left.
"""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from forgetmenot.data.types import ScoringBatch, Step

_PLAIN_LINES = 10  # lines that training prints where there is no terminal,
_PLAIN_SECONDS = 60  # and no longer without one than this


Item = TypeVar("Item")


def tracked(items: Iterable[Item], *, title: str, total: int, console: Console) -> Iterator[Item]:
    """Passes `items` on and tells how many of `total` are done: on a bar, or in plain lines."""
    if console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(title, total=total, told="")
            for item in items:
                yield item
                bar.advance(task)
        return
    started = told = time.perf_counter()
    console.print(title)
    for done, item in enumerate(items, 1):
        yield item
        now = time.perf_counter()
        if now - told > _PLAIN_SECONDS:
            told = now
            console.print(f"{title}: {done} of {total}, {(now - started) / done * (total - done):.0f} s left")


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
        console=console,
    )


class ProgressDisplay(Callback):
    """Rank 0 tells how far training and scoring are."""

    def __init__(self, console: Console, *, scoring: str) -> None:
        self.console = console
        self.scoring = scoring
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._started = 0.0
        self._first_step = 0
        self._tokens = 0
        self._told = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()
        self._first_step = trainer.global_step
        self._told = 0.0
        self._tokens = 0
        self._open(trainer, title="training", total=int(trainer.estimated_stepping_batches))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Step, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        self._tokens += batch.num_tokens
        step, total = trainer.global_step, int(trainer.estimated_stepping_batches)
        seconds = time.perf_counter() - self._started
        told = (
            f"loss {float(trainer.callback_metrics['train/loss']):.3f}, {self._tokens / seconds:,.0f} tokens a second"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, told=told)
        elif step in (1, total) or step % max(1, total // _PLAIN_LINES) == 0 or seconds - self._told > _PLAIN_SECONDS:
            self._told = seconds
            left = seconds / (step - self._first_step) * (total - step)
            self.console.print(f"training step {step} of {total}: {told}, {left:.0f} s left")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self._bar is not None:
            self._bar.refresh()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open(trainer, title=self.scoring, total=int(sum(trainer.num_test_batches)))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: ScoringBatch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if self._bar is not None:
            self._bar.update(self._task, advance=1, told=batch.task)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _open(self, trainer: Trainer, *, title: str, total: int) -> None:
        if not trainer.is_global_zero:
            return
        if not self.console.is_terminal:
            if title == self.scoring:
                self.console.print(f"{title}: {total} batches")
            return
        self._bar = _bar(self.console)
        self._task = self._bar.add_task(title, total=total, told="")
        self._bar.start()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
