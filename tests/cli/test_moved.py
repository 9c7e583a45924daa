"""A run whose folder was moved after it ended goes on there as it would have where it was."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from ended_runs import assert_same, killed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_runs import Train, finish

from forgetmenot.cli import fitting

BEST = ("select=best", "+trainer.val_check_interval=2", "optimizer.lr=1e-9")  # all score the same: the first is best


def test_a_run_that_was_moved_still_knows_its_best_weights(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[float, int]] = []

    def telling(trainer: Trainer, module: LightningModule, *, last: Mapping[str, float]) -> bool:
        keeper = trainer.checkpoint_callback
        assert isinstance(keeper, ModelCheckpoint) and keeper.best_model_score is not None
        step = torch.load(keeper.best_model_path, weights_only=True)["global_step"]
        found.append((float(keeper.best_model_score), step))
        return original(trainer, module, last=last)

    original = fitting.take_best
    monkeypatch.setattr(fitting, "take_best", telling)
    whole = train("method=lora", "method.dropout=0.2", "batch_size=2", "epochs=2", "checkpoint_steps=3", *BEST)
    failed = killed(train, monkeypatch, *BEST)
    moved = failed.folders[-1].rename(failed.place / "moved")

    done = finish([f"resume={moved}"], failed.place)

    assert done.code == 0, done.stderr
    assert found == [found[0]] * 2 and found[0][1] == 2, "the first that was validated"
    assert [file.parent for file in Path(failed.place).glob("**/best*.ckpt")] == [
        moved / "checkpoints", whole.folders[0] / "checkpoints",
    ]  # fmt: skip
    assert_same(moved, whole.folders[0])
