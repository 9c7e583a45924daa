"""Runs that end before their time, and what they have in common with those that do not."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import Finished, Train, read_lines, read_result

from forgetmenot.module import AdaptationModule

LORA = ("method=lora", "method.dropout=0.2")
STEPS = ("batch_size=2", "epochs=2", "checkpoint_steps=3")  # 16 steps


def end_before_step(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Sends the signal as training step `step` begins, so that the run ends after it."""
    original = AdaptationModule.training_step

    def stepping(self: AdaptationModule, batch: object, index: int) -> None:
        if self.global_step == step:
            os.kill(os.getpid(), number)
        original(self, batch, index)  # type: ignore[arg-type]

    monkeypatch.setattr(AdaptationModule, "training_step", stepping)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*/*model.safetensors")
    return load_file(file)


def assert_same(run: Path, whole: Path) -> None:
    """The two have learned the same, bit by bit, and have each step once on record."""
    first, second = weights(run), weights(whole)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    *steps, end = read_lines(run / "metrics.jsonl")
    *expected, end_of_whole = read_lines(whole / "metrics.jsonl")
    assert steps == expected
    assert {k: v for k, v in end.items() if "cost/" not in k} == {
        k: v for k, v in end_of_whole.items() if "cost/" not in k
    }
    result, of_whole = read_result(run), read_result(whole)
    for key in ("tasks", "gain", "forgetting", "drift", "data", "method", "objective", "overrides", "seed", "model"):
        assert result[key] == of_whole[key], key
    assert result["cost"]["train_tokens"] == of_whole["cost"]["train_tokens"]  # type: ignore[index]


def killed(train: Train, monkeypatch: pytest.MonkeyPatch, *words: str) -> Finished:
    """A run that a fault ended in its eighth step: its last checkpoint is of step 6."""

    def fault(self: AdaptationModule, batch: object, index: int) -> None:
        if self.global_step == 7:
            raise ValueError("a fault must be told, got one")
        original(self, batch, index)  # type: ignore[arg-type]

    original = AdaptationModule.training_step
    with monkeypatch.context() as patched:
        patched.setattr(AdaptationModule, "training_step", fault)
        return train(*LORA, *STEPS, *words)
