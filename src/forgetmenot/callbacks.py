"""Lightning callbacks that measure: scores of answers in the loop and in tests, and what training cost."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.types import ScoringBatch, Step
from forgetmenot.metric import answer_scores
from forgetmenot.module import Scored


class Scoring(Callback):
    """Gathers what every rank answered, in file order, and scores it.

    Validation is logged under `val/`; tests stay in `scores` and `answers`.
    """

    def __init__(self, *, validation: ScoringSet, tests: Sequence[ScoringSet]) -> None:
        self.validation = validation
        self.tests = tests
        self.scores: dict[str, dict[str, float]] = {}
        self.answers: dict[str, list[str]] = {}
        self.test_seconds = 0.0
        self._started = 0.0
        self._parts: list[Scored] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._parts = []

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._parts = []
        self._started = time.perf_counter()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: ScoringBatch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._keep(outputs, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: ScoringBatch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._keep(outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scores, _ = _score(self.validation, self._gathered())
        pl_module.log_dict({f"val/{name}": value for name, value in scores.items()}, rank_zero_only=False)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        parts = self._gathered()
        for data in self.tests:
            self.scores[data.task.name], self.answers[data.task.name] = _score(data, parts)
        self.test_seconds = time.perf_counter() - self._started

    def _keep(self, outputs: STEP_OUTPUT, batch: ScoringBatch) -> None:
        assert isinstance(outputs, Mapping), "the module's scoring steps return {'scored': Scored}"
        if batch.counted:
            self._parts.append(outputs["scored"])

    def _gathered(self) -> list[Scored]:
        """Returns the parts of all ranks."""
        if not torch.distributed.is_initialized():
            return self._parts
        everyone: list[list[Scored]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(everyone, self._parts)
        return [part for parts in everyone for part in parts]


def _score(data: ScoringSet, parts: Sequence[Scored]) -> tuple[dict[str, float], list[str]]:
    """Returns the scores of one task, and its answers in file order."""
    own = [part for part in parts if part.task == data.task.name]
    loss = sum(part.loss_sum for part in own) / sum(part.tokens for part in own)
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss of {data.task.name} must be a finite number, got {loss}: the weights are broken; "
            "a lower optimizer.lr or optimizer.clip_norm helps"
        )
    if not data.task.answers:
        return {"loss": loss}, []
    by_index = {i: text for part in own for i, text in zip(part.indices, part.answers, strict=True)}
    answers = [by_index[i] for i in range(len(data.examples))]
    return {**answer_scores(answers, [example.references for example in data.examples]), "loss": loss}, answers


class Cost(Callback):
    """Measures what training took: seconds in optimizer steps alone, tokens, and the peak of memory during fit."""

    def __init__(self) -> None:
        self.train_seconds = 0.0
        self.train_tokens = 0
        self.peak_memory_bytes: int | None = None
        self._started = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reset_peak_memory(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Step, batch_idx: int) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Step, batch_idx: int
    ) -> None:
        self.train_seconds += time.perf_counter() - self._started
        self.train_tokens += batch.num_tokens

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.peak_memory_bytes = peak_memory(pl_module.device)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.peak_memory_bytes = peak_memory(pl_module.device)


def reset_peak_memory(device: torch.device) -> None:
    """Starts the peak anew: CUDA's own count, or on a CPU Linux's resident peak of this process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Returns the peak since the last reset, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))  # elsewhere but on Windows there is no peak to read
