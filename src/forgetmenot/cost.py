"""The Lightning callback that measures what training cost: seconds, tokens and the peak of memory."""

import time
from pathlib import Path

import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from forgetmenot.data.types import Step


class Cost(Callback):
    """Measures what training took: seconds in optimizer steps alone, tokens, and the peak of memory during fit."""

    def __init__(self) -> None:
        self.train_seconds = 0.0
        self.train_tokens = 0
        self.replayed_examples = 0
        self.peak_memory_bytes: int | None = None
        self._started = 0.0
        self._earlier_peak = 0
        self._device = torch.device("cpu")

    def state_dict(self) -> dict[str, float]:
        """Returns what it took so far, for a run that goes on."""
        return {
            "train_seconds": self.train_seconds,
            "train_tokens": self.train_tokens,
            "replayed_examples": self.replayed_examples,
            "peak_memory_bytes": max(self._earlier_peak, peak_memory(self._device)),
        }

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Goes on from what an earlier part of the run took."""
        self.train_seconds = state_dict["train_seconds"]
        self.train_tokens = int(state_dict["train_tokens"])
        self.replayed_examples = int(state_dict["replayed_examples"])
        self._earlier_peak = int(state_dict["peak_memory_bytes"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._device = pl_module.device
        reset_peak_memory(self._device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Step, batch_idx: int) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Step, batch_idx: int
    ) -> None:
        self.train_seconds += time.perf_counter() - self._started
        self.train_tokens += batch.num_tokens
        self.replayed_examples += batch.replayed_rows

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.peak_memory_bytes = max(self._earlier_peak, peak_memory(pl_module.device))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.peak_memory_bytes = max(self._earlier_peak, peak_memory(pl_module.device))


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
