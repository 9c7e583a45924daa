"""The LightningModule: one training step is one optimizer step, cut into micro-batches.

Scoring answers prompts and sums the loss.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forgetmenot.data.types import IGNORE_INDEX, ScoringBatch, Step
from forgetmenot.generate import answer
from forgetmenot.loss import loss_sum
from forgetmenot.model.load import ModelFacts
from forgetmenot.optim import parameter_groups
from forgetmenot.regularizer.base import Penalty


class MakeOptimizer(Protocol):
    """An optimizer class with its settings, waiting for parameters."""

    def __call__(self, params: list[dict[str, object]], *, lr: float) -> Optimizer: ...


class MakeSchedule(Protocol):
    """A schedule class with its settings, waiting for an optimizer."""

    def __call__(self, optimizer: Optimizer, *, total_steps: int) -> LRScheduler: ...


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How weights are stepped: `lr` as used, decay for matrices alone, gradients clipped to `clip_norm` (None: not)."""

    make_optimizer: MakeOptimizer
    make_schedule: MakeSchedule
    lr: float
    weight_decay: float
    clip_norm: float | None
    total_steps: int


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What scoring one batch gave: answers (none for plain text), the loss summed in nats, its supervised tokens."""

    task: str
    indices: tuple[int, ...]
    answers: tuple[str, ...]
    loss_sum: float
    tokens: int


class AdaptationModule(LightningModule):
    """A model under adaptation, or the base alone to be scored (then `optimization` is None)."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        facts: ModelFacts,
        tokenizer: PreTrainedTokenizerBase,
        penalties: Sequence[Penalty] = (),
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.facts = facts
        self.tokenizer = tokenizer
        self.penalties = nn.ModuleList(penalties)
        self.optimization = optimization

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """Returns the optimizer over what is trained, and its schedule."""
        plan = self.optimization
        assert plan is not None, "the base is scored, never fitted"
        groups = parameter_groups(self.model, weight_decay=plan.weight_decay)
        optimizer = plan.make_optimizer(groups, lr=plan.lr)
        return [optimizer], [plan.make_schedule(optimizer, total_steps=plan.total_steps)]

    def training_step(self, step: Step, index: int) -> None:
        """Takes one optimizer step: the exact mean over the step's supervised tokens, plus the penalties once."""
        plan, optimizer, schedule = self._stepping()
        scale = self.trainer.world_size / step.supervised_tokens
        total = penalty = 0.0

        for number, (batch, weight) in enumerate(zip(step.micro_batches, step.weights, strict=True), start=1):
            last = number == len(step.micro_batches)
            with nullcontext() if last else self._without_sync():
                loss = loss_sum(self.model, batch, self.facts) * scale * weight
                total += loss.item()
                if last and self.penalties:
                    added = self._penalty()
                    penalty = added.item()
                    loss = loss + added
                self.manual_backward(loss)

        total = self._finite(total)
        self._finite(penalty)
        lr = float(schedule.get_last_lr()[0])
        if plan.clip_norm is not None:
            self.clip_gradients(optimizer.optimizer, gradient_clip_val=plan.clip_norm, gradient_clip_algorithm="norm")
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        self.log_dict({"train/loss": total, "train/lr": lr, "train/tokens": float(step.num_tokens)})

    def validation_step(self, batch: ScoringBatch, index: int) -> dict[str, Scored]:
        """Answers and sums the loss; a callback gathers and scores."""
        return {"scored": self._score(batch)}

    def test_step(self, batch: ScoringBatch, index: int) -> dict[str, Scored]:
        """Answers and sums the loss; a callback gathers and scores."""
        return {"scored": self._score(batch)}

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Keeps only what is trained: checkpoints are adapter-sized where the base is frozen."""
        trained = {f"model.{name}" for name, p in self.model.named_parameters() if p.requires_grad}
        weights = checkpoint["state_dict"]
        assert isinstance(weights, dict)
        checkpoint["state_dict"] = {name: weight for name, weight in weights.items() if name in trained}

    def _score(self, batch: ScoringBatch) -> Scored:
        loss = loss_sum(self.model, batch.rows, self.facts)
        answers: list[str] = []
        if batch.prompts is not None:
            answers = answer(self.model, batch.prompts, tokenizer=self.tokenizer, max_new_tokens=batch.max_new_tokens)
        tokens = int((batch.rows.labels_BS != IGNORE_INDEX).sum())
        return Scored(
            task=batch.task, indices=batch.indices, answers=tuple(answers), loss_sum=loss.item(), tokens=tokens
        )

    def _stepping(self) -> tuple[Optimization, LightningOptimizer, LRScheduler]:
        """Returns what configure_optimizers chose, as Lightning wraps it."""
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert self.optimization is not None
        assert isinstance(optimizer, LightningOptimizer)
        assert isinstance(schedule, LRScheduler)
        return self.optimization, optimizer, schedule

    def _penalty(self) -> Tensor:
        return torch.stack([penalty(self.model) for penalty in self.penalties]).sum()

    def _without_sync(self) -> AbstractContextManager[None]:
        """Lets gradients of all but a step's last micro-batch add up on each rank before they are exchanged."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def _finite(self, loss: float) -> float:
        """Returns the step's loss, the same on every rank; raises ValueError where it is no number."""
        mean = float(self.trainer.strategy.reduce(torch.tensor(loss, device=self.device), reduce_op="mean"))
        if not math.isfinite(mean):
            raise ValueError(
                f"the loss and its penalties must stay finite numbers, got {mean} at step {self.global_step}; "
                "a lower optimizer.lr or optimizer.clip_norm helps"
            )
        return mean
