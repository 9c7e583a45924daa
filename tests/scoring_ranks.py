"""A program: scores a tiny model on ranks of its own and keeps what was logged, measured and seen by each rank.

python scoring_ranks.py FOLDER RANKS
"""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from test_scoring import data_module, data_of
from tiny_models import facts_of, tiny, word_tokenizer

from forgetmenot.data.types import ScoringBatch
from forgetmenot.module import AdaptationModule
from forgetmenot.scoring import Scoring
from forgetmenot.trainer import build_trainer

LENGTHS = [1, 2, 7, 1, 2, 7, 1, 2, 11, 1, 24, 15]
TOKENS = 32  # cuts of 4, 3, 2, 1, 1, 1 examples, dealt out in turn: 7 and 5


class Seen(Callback):
    """Counts the examples that this rank scored."""

    def __init__(self) -> None:
        self.examples = 0

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: ScoringBatch, *_: object
    ) -> None:
        self.examples += len(batch.indices) * batch.counted


def main() -> None:
    """Validates and tests; every rank writes what it came to."""
    folder, ranks = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    model, data = tiny("llama"), data_of("names", lengths=LENGTHS)
    scoring, seen = Scoring(validation=[data], tests=[data]), Seen()
    values = {"accelerator": "cpu", "devices": ranks, "strategy": "ddp" if ranks > 1 else "auto"}
    trainer = build_trainer(values, precision="fp32", callbacks=[scoring, seen], loggers=[], max_epochs=1)
    module, planned = (
        AdaptationModule(model, facts=facts_of(model), tokenizer=word_tokenizer()),
        data_module(data, tokens=TOKENS),
    )
    (logged,) = trainer.validate(module, planned, verbose=False)
    trainer.test(module, planned, verbose=False)
    measured = scoring.measured["names"]
    kept = {
        "val": logged, "test": measured.scores.totals, "each": measured.scores.sums_NS.tolist(),
        "answers": measured.answers, "seen": seen.examples,
    }  # fmt: skip
    (folder / f"rank_{trainer.global_rank}.json").write_text(json.dumps(kept))


if __name__ == "__main__":
    main()
