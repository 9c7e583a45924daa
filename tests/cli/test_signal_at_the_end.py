"""A run that is asked to end when it has nearly come to its end saves, and goes on from there."""

import os
import signal
from pathlib import Path

import pytest
import torch
from ended_runs import LORA, STEPS, end_before_step, weights
from tiny_runs import Train, finish, read_result

import forgetmenot.checkpointing
from forgetmenot.checkpoint import Facts, seal


def test_a_signal_in_the_last_step_ends_the_run_before_it_is_scored(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(*LORA, *STEPS)
    with monkeypatch.context() as patched:
        end_before_step(patched, 15, signal.SIGUSR1)
        ended = train(*LORA, *STEPS, "checkpoint_steps=null", "checkpoint_minutes=null")
    folder = ended.folders[-1]
    assert (ended.code, read_result(folder)["status"]) == (138, "interrupted")
    done = finish([f"resume={folder}", "checkpoint_steps=3", "checkpoint_minutes=10"], ended.place)
    assert done.code == 0, done.stderr
    assert all(torch.equal(weight, weights(whole.folders[0])[name]) for name, weight in weights(folder).items())


def test_a_signal_while_the_last_checkpoint_is_written_waits_for_it(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(folder: Path, *, step: int, facts: Facts) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        seal(folder, step=step, facts=facts)

    monkeypatch.setattr(forgetmenot.checkpointing, "seal", signalled)
    ended = train(*LORA, *STEPS, "checkpoint_steps=100")
    assert (ended.code, read_result(ended.folder)["status"]) == (138, "interrupted")
    (checkpoint,) = (ended.folder / "checkpoints").iterdir()
    assert checkpoint.name == "step-00000016"
