"""When a checkpoint is due: by steps, by the clock, and never for more than a twentieth of the time."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from tiny_models import tiny

from forgetmenot import checkpointing
from forgetmenot.checkpointing import Checkpointing, StreamedFile
from forgetmenot.signals import Ending


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(checkpointing, "time", made)
    return made


def keeping(place: Path, *, steps: int | None, minutes: float | None, taking: float, clock: Clock) -> Checkpointing:
    """A callback whose checkpoints take some seconds to write; nothing is written."""
    callback = Checkpointing(place, every_steps=steps, every_minutes=minutes, facts=dict, ending=Ending())

    def save(trainer: Trainer) -> None:
        clock.now += taking
        callback._saved_at_step, callback._saved_at_second, callback._seconds = trainer.global_step, clock.now, taking
        saved.append(trainer.global_step)

    saved: list[int] = []
    callback.save, callback.saved = save, saved  # type: ignore[method-assign, attr-defined]
    return callback


def trainer_at(step: int) -> SimpleNamespace:
    """What the callback asks a Trainer of one rank."""
    strategy = SimpleNamespace(checkpoint_io=StreamedFile())
    return SimpleNamespace(global_step=step, is_global_zero=True, world_size=1, should_stop=False, strategy=strategy)


def train(callback: Checkpointing, clock: Clock, *, steps: int, seconds_a_step: float) -> list[int]:
    """Returns the steps that checkpoints were written at."""
    for step in range(steps):
        trainer = trainer_at(step)
        callback.on_train_batch_start(trainer, tiny("llama"), None, step)  # type: ignore[arg-type]
        clock.now += seconds_a_step
    trainer = trainer_at(steps)
    callback.on_train_end(trainer, tiny("llama"))  # type: ignore[arg-type]
    return callback.saved  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("steps", "minutes", "taking", "expected"),
    [
        (4, None, 0, [4, 8, 10]),
        (None, 1, 0, [6, 10]),
        (None, 1, 30, [6, 10]),
        (None, 0.1, 0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (None, 0.1, 1, [1, 3, 5, 7, 9, 10]),
        (None, None, 0, []),
    ],
)
def test_checkpoints_come_by_steps_and_by_the_clock_and_take_a_twentieth_of_the_time(
    tmp_path: Path, clock: Clock, steps: int | None, minutes: float | None, taking: float, expected: list[int]
) -> None:
    callback = keeping(tmp_path, steps=steps, minutes=minutes, taking=taking, clock=clock)
    assert train(callback, clock, steps=10, seconds_a_step=10) == expected


def test_a_file_that_cannot_be_written_is_told_of_when_all_ranks_can_hear_it(tmp_path: Path, clock: Clock) -> None:
    callback, trainer = keeping(tmp_path, steps=None, minutes=None, taking=0, clock=clock), trainer_at(3)
    (tmp_path / "taken").write_text("a file where a folder should be")
    trainer.strategy.checkpoint_io.save_checkpoint({"weights": torch.ones(2)}, tmp_path / "taken" / "best.ckpt")
    with pytest.raises(OSError, match=r"File exists: .*taken.*, at step 3 in .*; checkpoints before it are whole"):
        callback.on_train_batch_start(trainer, tiny("llama"), None, 3)  # type: ignore[arg-type]
    callback.on_train_batch_start(trainer, tiny("llama"), None, 4)  # type: ignore[arg-type]
