"""What is measured of every contender in the same way: real tokens a second, and the peak of resident memory."""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from benchmarks.workload import Workload


@dataclass(kw_only=True)
class Stopwatch:
    """Counts the real tokens that go through a model, and the seconds of the steps after those that warm up."""

    work: Workload
    tokens: int = 0
    steps: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    _started: float = 0.0
    _before: int = 0

    def watch(self, model: nn.Module) -> None:
        """Starts, and counts what every forward pass of `model` is given, padding aside."""
        model.register_forward_pre_hook(self._count, with_kwargs=True)
        self.start()

    def start(self) -> None:
        """Lets memory's peak begin here; who does not watch a model adds to `tokens` what a step has read."""
        Path("/proc/self/clear_refs").write_text("5")
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._started = time.perf_counter()

    def stepped(self) -> None:
        """Tells that an optimizer step has been taken."""
        self.steps += 1
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if self.steps == self.work.warmup:
            self._started, self._before = time.perf_counter(), self.tokens
        self.seconds = time.perf_counter() - self._started

    def report(self) -> None:
        """Prints one line of JSON: the last one of the process."""
        status = Path("/proc/self/status").read_text().splitlines()
        resident = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024
        result = {
            "steps": self.steps - self.work.warmup,
            "tokens": self.tokens - self._before,
            "seconds": self.seconds,
            "tokens_per_second": (self.tokens - self._before) / self.seconds,
            "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident,
        }
        print(json.dumps(result))

    def _count(self, model: nn.Module, arguments: object, named: dict[str, object]) -> None:
        mask, ids = named.get("attention_mask"), named.get("input_ids")
        counted = mask if isinstance(mask, torch.Tensor) and mask.ndim == 2 else None
        if counted is not None:
            self.tokens += int(counted.sum())
        elif isinstance(ids, torch.Tensor):
            self.tokens += ids.numel()


def workload() -> Workload:
    """Returns the workload that the command line gives as JSON, with torch on its threads."""
    work = Workload(**json.loads(sys.argv[1]))
    torch.set_num_threads(work.threads)
    return work


def device() -> torch.device:
    """Returns where all contenders train."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
