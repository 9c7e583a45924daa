"""A program: trains a tiny model on two ranks, once for every case, and keeps each step's loss and the weights.

python two_ranks.py FILE
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tiny_models import collator_of, packing, prompt_of, rows_for, tiny
from tiny_penalties import supplies_of
from tiny_tasks import make_task
from tiny_training import LR, module_of
from torch import Tensor
from transformers import PreTrainedModel

import forgetmenot.module
from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.plan import Plan
from forgetmenot.data.rows import EncodedSplit, Rows
from forgetmenot.data.types import IGNORE_INDEX, Batch, Encoded
from forgetmenot.datamodule import AdaptationData
from forgetmenot.loss import loss_sum
from forgetmenot.method.lora import Lora
from forgetmenot.model.facts import ModelFacts
from forgetmenot.regularizer.base import Penalty, TokenPenalty
from forgetmenot.regularizer.ewc import EWC
from forgetmenot.regularizer.kl import KL
from forgetmenot.regularizer.l2_sp import L2SP
from forgetmenot.trainer import build_trainer

LENGTHS = [
    (9, 1),
    (2, 9),
    (5, 1),
    (4, 4),
    (12, 2),
    (3, 7),
    (7, 1),
    (2, 2),
    (6, 12),
    (5, 3),
    (8, 2),
    (4, 1),
    (3, 3),
    (11, 5),
]


@dataclass(frozen=True, kw_only=True)
class Case:
    """How a model is trained; memory runs out on the last rank in the step `short_at`."""

    micro_batch_tokens: int
    dropout: float = 0.0
    short_at: int | None = None
    penalized: bool = False


WHOLE, CUT = Case(micro_batch_tokens=1000), Case(micro_batch_tokens=25)
SHORT = {
    Case(micro_batch_tokens=60, dropout=0.5, short_at=0): Case(micro_batch_tokens=15, dropout=0.5),
    Case(micro_batch_tokens=60, short_at=3): Case(micro_batch_tokens=15),
}
"""Cases that run short, and those that are cut from the first step on as they end."""

PENALIZED = tuple(
    Case(micro_batch_tokens=tokens, short_at=step, penalized=True)
    for tokens, step in ((1000, None), (25, None), (60, 3))
)
CASES = (WHOLE, CUT, *SHORT, *SHORT.values(), *PENALIZED)
BATCH = 6  # two whole steps and a smaller one an epoch
STEPS = 6  # two epochs


def base() -> PreTrainedModel:
    """Returns the model that every rank starts from."""
    return tiny("llama")


def examples() -> list[Encoded]:
    """Returns rows whose completions are of very unequal lengths."""
    return rows_for(base(), LENGTHS)


def plan(micro_batch_tokens: int) -> Plan:
    """Returns the plan that all ranks follow."""
    lengths = np.asarray([row.num_tokens for row in examples()])
    return Plan(lengths=lengths, batch_size=BATCH, micro_batch_tokens=micro_batch_tokens, seed=3, packed=True)


def adapted(model: PreTrainedModel, *, dropout: float) -> PreTrainedModel:
    """Returns the model with LoRA, which brings the dropout, and all its own weights trained as well."""
    torch.manual_seed(1)
    method = Lora(name="lora", lr=LR, rank=2, alpha=4, dropout=dropout, target_modules=("all-linear",))
    return method.apply(model).requires_grad_(True).train()


def penalties(model: PreTrainedModel) -> dict[str, Penalty | TokenPenalty]:
    """Returns one of each kind, around the untrained model."""
    supplies = replace(supplies_of("llama"), collator=collator_of(base(), packs=True))
    chosen = (
        L2SP(name="l2_sp", weight=0.5),
        EWC(name="ewc", weight=2.0, source="samples", num_examples=6, max_tokens=5),
        KL(name="kl", weight=1.0, reference=None, positions="all"),
    )
    return {regularizer.name: regularizer.prepare(model, supplies) for regularizer in chosen}


def data(micro_batch_tokens: int) -> AdaptationData:
    """Returns the examples as training data."""
    pairs = [(prompt_of(row).tolist(), row.labels[row.labels != IGNORE_INDEX].tolist()) for row in examples()]
    rows = Rows.of(pairs, is_encoder_decoder=False)
    train = EncodedSplit(rows=rows, example_indices=np.arange(len(LENGTHS)), truncated=0, dropped=0)
    unscored = ScoringSet(task=make_task(), examples=(), rows=train, num_bytes=np.ones(0))
    return AdaptationData(
        train,
        validation=[unscored],
        tests=(),
        plan=plan(micro_batch_tokens),
        collator=collator_of(base(), packs=True),
    )


class Kept(Callback):
    """Keeps the loss of every step, and each penalty."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.penalties: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.losses.append(logged["train/loss"])
        self.penalties.append({name: value for name, value in logged.items() if name.startswith("train/penalty/")})


@contextmanager
def running_short(rank: int, *, at_step: int, module: LightningModule) -> Iterator[None]:
    """Makes memory run out on one rank, in each micro-batch of a step that holds several rows."""

    def short(model: PreTrainedModel, batch: Batch, facts: ModelFacts) -> Tensor:
        loss = loss_sum(model, batch, facts)
        several = batch.row_lengths is not None and len(batch.row_lengths) > 1
        if module.global_rank == rank and module.global_step == at_step and several:
            raise torch.OutOfMemoryError("injected")
        return loss

    forgetmenot.module.loss_sum = short
    try:
        yield
    finally:
        forgetmenot.module.loss_sum = loss_sum


def trained(case: Case, *, ranks: int) -> dict[str, object]:
    """Returns what a case came to: losses, penalties, weights, and micro_batch_tokens at the end."""
    training = data(case.micro_batch_tokens)
    model = adapted(packing(base()), dropout=case.dropout)
    held = penalties(model) if case.penalized else {}
    training.comparisons = [penalty.comparison for penalty in held.values() if isinstance(penalty, TokenPenalty)]
    module = module_of(model, "llama", penalties=held, total_steps=STEPS)
    kept = Kept()
    values = {
        "accelerator": "cpu",
        "devices": ranks,
        "strategy": "ddp" if ranks > 1 else "auto",
        "limit_val_batches": 0,
    }
    trainer = build_trainer(
        {**values, "log_every_n_steps": 1}, precision="fp32", callbacks=[kept], loggers=[], max_epochs=2
    )
    torch.manual_seed(7)  # dropout's numbers, the same on every rank
    with nullcontext() if case.short_at is None else running_short(ranks - 1, at_step=case.short_at, module=module):
        trainer.fit(module, training)
    weights = {name: p.detach().clone() for name, p in module.model.named_parameters()}
    tokens = training.plan.micro_batch_tokens
    return {"losses": kept.losses, "penalties": kept.penalties, "weights": weights, "micro_batch_tokens": tokens}


def main() -> None:
    """Trains each case and, on rank 0, writes what they came to."""
    torch.set_num_threads(1)
    came_to = [trained(case, ranks=2) for case in CASES]
    if torch.distributed.get_rank() == 0:
        torch.save(came_to, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
