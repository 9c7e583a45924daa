"""Steps cut as one likes, our module fitted on them, and the plain PyTorch loop that it has to equal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from tiny_models import collator_of, facts_of, reference_inputs, tiny, word_tokenizer
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from forgetmenot.data.compare import Comparison
from forgetmenot.data.types import ComparedStep, Encoded, Step
from forgetmenot.module import AdaptationModule
from forgetmenot.optim import LinearSchedule, MakeOptimizer, Optimization
from forgetmenot.regularizer.base import Penalty, TokenPenalty
from forgetmenot.trainer import build_trainer

Cut = list[list[int]]

LR = 0.05
DECAY = 0.1
MOMENTUM: MakeOptimizer = partial(SGD, momentum=0.9)


@dataclass(frozen=True, kw_only=True)
class Stepping:
    """How both sides step: an optimizer class, and the norm that gradients are clipped to."""

    make_optimizer: MakeOptimizer = MOMENTUM
    clip_norm: float | None = None


def steps_of(
    family: str, examples: Sequence[Sequence[Encoded]], *, cut: Cut, comparisons: Sequence[Comparison] = ()
) -> list[Step]:
    """Returns one step per group of examples, each cut into micro-batches in the same way."""
    collator = collator_of(tiny(family))
    return [
        Step(
            number=number,
            examples=tuple(range(len(rows))),
            micro_batches=tuple(collator.rows([rows[i] for i in part]) for part in cut),
            weights=(1.0,) * len(cut),
            supervised_tokens=sum(row.num_supervised for row in rows),
            num_tokens=sum(row.num_tokens for row in rows),
            compared=tuple(
                ComparedStep(
                    micro_batches=tuple(comparison.of([rows[i] for i in part]) for part in cut),
                    tokens=comparison.tokens(rows),
                )
                for comparison in comparisons
            ),
        )
        for number, rows in enumerate(examples)
    ]


def module_of(
    model: PreTrainedModel,
    family: str,
    *,
    penalties: Mapping[str, Penalty | TokenPenalty] | None = None,
    stepping: Stepping | None = None,
    total_steps: int = 3,
) -> AdaptationModule:
    """Returns the LightningModule around an adapted model, with a linear schedule that does not warm up."""
    how = stepping or Stepping()
    optimization = Optimization(
        make_optimizer=how.make_optimizer,
        make_schedule=partial(LinearSchedule, warmup=0.0),
        lr=LR,
        weight_decay=DECAY,
        clip_norm=how.clip_norm,
        total_steps=total_steps,
    )
    return AdaptationModule(
        model,
        facts=facts_of(tiny(family)),
        tokenizer=word_tokenizer(),
        penalties=penalties or {},
        optimization=optimization,
    )


def trainer_of(*callbacks: Callback, loggers: Sequence[Logger] = ()) -> Trainer:
    """Returns the Trainer that a run on the CPU gets, for one epoch."""
    values = {"accelerator": "cpu", "devices": 1, "log_every_n_steps": 1}
    return build_trainer(values, precision="fp32", callbacks=callbacks, loggers=loggers, max_epochs=1)


def fit(
    module: AdaptationModule, steps: Sequence[Step], *callbacks: Callback, loggers: Sequence[Logger] = ()
) -> Trainer:
    """Takes the steps under Lightning's Trainer, once each and in order."""
    trainer = trainer_of(*callbacks, loggers=loggers)
    trainer.fit(module, DataLoader(steps, batch_size=None))
    return trainer


def plain_loop(
    model: PreTrainedModel,
    steps: Sequence[Step],
    *,
    stepping: Stepping | None = None,
    penalty: Callable[[nn.Module], Tensor] | None = None,
) -> list[float]:
    """Takes the same steps in plain PyTorch with transformers' loss, each in one batch; returns the losses."""
    how = stepping or Stepping()
    trained = [p for p in model.parameters() if p.requires_grad]
    decaying, still = ([p for p in trained if (p.ndim > 1) is matrix] for matrix in (True, False))
    groups = [{"params": decaying, "weight_decay": DECAY}, {"params": still, "weight_decay": 0.0}]
    optimizer = how.make_optimizer([group for group in groups if group["params"]], lr=LR)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(steps))
    losses = []
    for step in steps:
        (batch,) = step.micro_batches
        loss = model(**reference_inputs(batch, causal=not model.config.is_encoder_decoder)).loss
        losses.append(loss.item())
        (loss if penalty is None else loss + penalty(model)).backward()
        if how.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(trained, how.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return losses
