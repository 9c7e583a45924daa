"""A program: trains on two tasks and replays a third on ranks of its own, and keeps what each step logged.

python mixed_ranks.py FILE RANKS
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tiny_models import packing
from tiny_tasks import make_task
from tiny_training import module_of
from two_ranks import STEPS, adapted, base, data

from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.mix import Mix
from forgetmenot.trainer import build_trainer

MIX = Mix(sizes=(6, 5, 3), counts=(4, 7), replayed=2)  # of the 14 examples


class Kept(Callback):
    """Keeps the losses and tokens of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def main() -> None:
    """Trains and, on rank 0, writes what was logged."""
    file, ranks = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    training = data(25)
    training.plan = replace(training.plan, mix=MIX)
    training.tests = [
        ScoringSet(task=make_task(name), examples=(), rows=training.train, num_bytes=np.ones(0))
        for name in ("mood", "names", "kept")
    ]
    module = module_of(adapted(packing(base()), dropout=0.0), "llama", total_steps=STEPS)
    kept = Kept()
    strategy = "ddp" if ranks > 1 else "auto"
    values = {"accelerator": "cpu", "devices": ranks, "strategy": strategy, "limit_val_batches": 0}
    trainer = build_trainer(
        {**values, "log_every_n_steps": 1}, precision="fp32", callbacks=[kept], loggers=[], max_epochs=2
    )
    trainer.fit(module, training)
    if trainer.is_global_zero:
        file.write_text(json.dumps(kept.steps))


if __name__ == "__main__":
    main()
