"""The trial for micro_batch_tokens: what fits is found, and nothing is left behind."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tiny_models import collator_of, packing, tiny
from tiny_tasks import make_task
from tiny_training import module_of
from torch import Tensor
from transformers import PreTrainedModel

import forgetmenot.module
from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.plan import Plan
from forgetmenot.data.rows import EncodedSplit, Rows
from forgetmenot.data.types import Batch
from forgetmenot.datamodule import AdaptationData
from forgetmenot.loss import loss_sum
from forgetmenot.model.facts import ModelFacts
from forgetmenot.trainer import build_trainer
from forgetmenot.trial import MicroBatchTrial, largest_that_fits


def memory_for(most: int, tried: list[int]) -> object:
    """Returns an attempt that has memory for `most` tokens."""

    def attempt(tokens: int) -> None:
        tried.append(tokens)
        if tokens > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return attempt


@pytest.mark.parametrize("start", [1, 7, 100, 1000, 100_000])
@pytest.mark.parametrize("most", [1, 5, 64, 999, 50_000])
def test_what_is_found_fits_and_is_at_least_half_of_what_would(start: int, most: int) -> None:
    tried: list[int] = []
    found = largest_that_fits(memory_for(most, tried), start=start, most=10_000)
    assert most / 2 <= found <= most or found == 10_000 <= most
    assert len(tried) <= 20


def test_no_more_is_tried_than_a_step_can_hold() -> None:
    tried: list[int] = []
    assert largest_that_fits(memory_for(10**9, tried), start=100, most=300) == 300
    assert max(tried) == 300


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    def broken(tokens: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        largest_that_fits(broken, start=4, most=8)


class Trying(Callback):
    """Makes the trial that an accelerator gets, on the CPU."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = torch.get_rng_state()
        MicroBatchTrial().find(trainer, pl_module)
        self.after = torch.get_rng_state()
        self.gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]


def test_the_plan_takes_what_fits_and_neither_weights_nor_random_numbers_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beside: list[int] = []

    def short(model: PreTrainedModel, batch: Batch, facts: ModelFacts) -> Tensor:
        beside.append(sum(p.grad.numel() for p in model.parameters() if p.grad is not None))
        if batch.input_ids_BT.numel() > 40:
            raise torch.OutOfMemoryError("injected")
        torch.rand(3)
        return loss_sum(model, batch, facts)

    monkeypatch.setattr(forgetmenot.module, "loss_sum", short)
    model = packing(tiny("llama"))
    rows = Rows.of([([5] * 6, [6] * 4)] * 12, is_encoder_decoder=False)
    split = EncodedSplit(rows=rows, example_indices=np.arange(12), truncated=0, dropped=0)
    plan = Plan(lengths=rows.lengths, batch_size=12, micro_batch_tokens=10, seed=0, packed=True)
    scoring = ScoringSet(task=make_task(), examples=(), rows=split, num_bytes=np.ones(0))
    data = AdaptationData(
        split, validation=[scoring], tests=(), plan=plan, collator=collator_of(tiny("llama"), packs=True)
    )
    trying = Trying()

    values = {"accelerator": "cpu", "devices": 1, "limit_val_batches": 0}
    trainer = build_trainer(values, precision="fp32", callbacks=[trying], loggers=[], max_epochs=1)
    trainer.fit(module_of(model, "llama", total_steps=1), data)

    assert data.plan.micro_batch_tokens == 40
    assert torch.equal(trying.before, trying.after)
    assert not trying.gradients
    assert set(beside[:4]) == {sum(p.numel() for p in model.parameters())}  # tokens tried: 10, 20, 40 and 80
    assert trainer.global_step == 1
