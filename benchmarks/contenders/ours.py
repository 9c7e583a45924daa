"""Forgetmenot: the LightningModule, DataModule and Trainer of a run, with its logger and progress."""

import io
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from torch.optim import AdamW
from transformers import AutoTokenizer

from benchmarks.contenders.measure import Stopwatch, workload
from benchmarks.contenders.model import base, config
from benchmarks.workload import MAX_LENGTH, RANK, TARGETS, Workload, read
from forgetmenot.cost import Cost
from forgetmenot.data.collate import Collator
from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.plan import Plan
from forgetmenot.data.rows import EncodedSplit, Rows
from forgetmenot.data.types import Step
from forgetmenot.datamodule import AdaptationData
from forgetmenot.loggers import JsonlLogger
from forgetmenot.method.base import Method
from forgetmenot.method.full import Full
from forgetmenot.method.lora import Lora
from forgetmenot.model.budget import micro_batch_tokens
from forgetmenot.model.facts import read_facts
from forgetmenot.model.load import Model
from forgetmenot.model.packing import use_packed_attention
from forgetmenot.module import AdaptationModule
from forgetmenot.optim import LinearSchedule, Optimization
from forgetmenot.progress import ProgressDisplay
from forgetmenot.trainer import base_dtype, build_trainer, choose_precision


class Timed(Callback):
    """Tells the stopwatch of every step."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        self.watch.tokens += batch.num_tokens  # a head in chunks calls the model more than once
        self.watch.stepped()


def data_of(work: Workload, *, packs: bool) -> AdaptationData:
    """Returns the examples as training data."""
    rows = Rows.of(((ids[:prompt], ids[prompt:]) for ids, prompt in read(work)), is_encoder_decoder=False)
    split = EncodedSplit(rows=rows, example_indices=np.arange(len(rows)), truncated=0, dropped=0)
    unscored = ScoringSet(task=None, examples=(), rows=split, num_bytes=rows.lengths)  # never scored
    plan = Plan(
        lengths=rows.lengths,
        batch_size=work.batch_size,
        micro_batch_tokens=micro_batch_tokens(
            config(work.shape), max_length=MAX_LENGTH, selects_head=True, on_cuda=torch.cuda.is_available()
        ),
        seed=work.seed,
        group_by_length=work.grouped,
        packed=packs,
    )
    collator = Collator(
        pad_id=0, num_virtual_tokens=0, first_virtual_id=0, decoder_start_id=None, max_length=MAX_LENGTH, packs=packs
    )
    return AdaptationData(split, validation=[unscored], tests=(), plan=plan, collator=collator)


def method_of(work: Workload) -> Method:
    """Returns the method with the settings that all contenders share."""
    if work.method == "full":
        return Full(name="full", lr=1e-4)
    return Lora(name="lora", lr=1e-4, rank=RANK, alpha=2 * RANK, dropout=0.0, target_modules=TARGETS)


def main() -> None:
    """Trains the workload."""
    work = workload()
    method, precision = method_of(work), choose_precision("auto", on_cuda=torch.cuda.is_available())
    described = Model(
        name=work.shape, path="", weights="random", lr_scale="auto", trust_remote_code=False, attention="auto"
    )
    facts = read_facts(described, config(work.shape))
    data = data_of(work, packs=facts.packs)
    model = base(work, dtype=base_dtype(precision, freezes_base=method.freezes_base))
    use_packed_attention(model)
    optimization = Optimization(
        make_optimizer=partial(AdamW, fused=True),
        make_schedule=partial(LinearSchedule, warmup=0.1),
        lr=1e-4,
        weight_decay=0.01,
        clip_norm=1.0,
        total_steps=work.max_steps,
    )
    tokenizer = AutoTokenizer.from_pretrained(Path(work.shared) / "models" / "gpt2_tokenizer")
    module = AdaptationModule(method.apply(model).train(), facts=facts, tokenizer=tokenizer, optimization=optimization)
    watch = Stopwatch(work=work)
    progress = ProgressDisplay(Console(file=io.StringIO()), scoring="")
    logger = JsonlLogger(Path(tempfile.mkdtemp()) / "metrics.jsonl")
    trainer = build_trainer(
        {"accelerator": "auto", "devices": 1, "limit_val_batches": 0},
        precision=precision,
        callbacks=[Cost(), progress, Timed(watch)],
        loggers=[logger],
        max_steps=work.max_steps,
    )
    trainer.fit(module, data)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    watch.report()


if __name__ == "__main__":
    main()
