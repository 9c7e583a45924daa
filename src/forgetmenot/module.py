"""The LightningModule: one training step is one optimizer step, cut into micro-batches.

Scoring answers prompts and sums the loss.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forgetmenot.data.types import Batch, Compared, ScoringBatch, Step
from forgetmenot.datamodule import AdaptationData
from forgetmenot.generate import Prefix, answer
from forgetmenot.loss import loss_sum, loss_sums, row_divergences, row_losses
from forgetmenot.memory import MEMORY_ERRORS, RandomState, is_out_of_memory
from forgetmenot.model.facts import ModelFacts
from forgetmenot.model.packing import padded_attention
from forgetmenot.model.sharding import check_repeatable, exchange_in_backward, is_sharded, shard
from forgetmenot.optim import Optimization, parameter_groups
from forgetmenot.penalties import Penalties, leave_out_of_exchange, reaching
from forgetmenot.regularizer.base import Penalty, TokenPenalty


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What scoring one batch gave, row by row.

    Answers (none for plain text), losses in nats, whether the likeliest of the choices is the right one (none without
    choices), and KL from the base in nats (none where it is not compared).
    """

    answers: tuple[str, ...]
    nats: tuple[float, ...]
    chosen: tuple[bool, ...]
    divergences: tuple[float, ...] = ()


class AdaptationModule(LightningModule):
    """A model under adaptation, or one to be scored (without `optimization`), beside its `base` where it has one."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        facts: ModelFacts,
        tokenizer: PreTrainedTokenizerBase,
        penalties: Mapping[str, Penalty | TokenPenalty] = MappingProxyType({}),
        optimization: Optimization | None = None,
        base: PreTrainedModel | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold what is trained alone
        self.model = model
        self.facts = facts
        self.tokenizer = tokenizer
        self.penalties = Penalties(penalties)
        self.optimization = optimization
        self.base = base
        self._prefixes: dict[str, Prefix] = {}
        leave_out_of_exchange(self, self.penalties)

    def configure_model(self) -> None:
        """Shares out weights where the strategy asks for it, before an optimizer sees them."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            assert self.device_mesh is not None, "the strategy has made it by now"
            shard(self, self.device_mesh["data_parallel"])

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
        random = RandomState.now(self.device)

        shares, penalties, out_of_memory = self._accumulate(step)
        while out_of_memory:
            optimizer.zero_grad()
            random.restore()
            step = self._smaller(step)
            shares, penalties, out_of_memory = self._accumulate(step)

        if self.global_step == 0:
            self._check_gradients()
        penalties |= self._exchange()
        loss = sum(shares)
        self._check_finite(loss + sum(penalties.values()), step)
        lr = float(schedule.get_last_lr()[0])
        if plan.clip_norm is not None:
            clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], plan.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        told = {"train/loss": loss, "train/lr": lr, "train/tokens": float(step.num_tokens)}
        self._log_step({**told, **step.logged(shares), **penalties})

    def on_validation_epoch_end(self) -> None:
        """Forgets keys and values, which other weights would not have."""
        self._prefixes.clear()

    def on_test_epoch_end(self) -> None:
        """Forgets keys and values, which other weights would not have."""
        self._prefixes.clear()

    def validation_step(self, batch: ScoringBatch, index: int) -> dict[str, Scored]:
        """Answers and sums the loss; a callback gathers and scores."""
        return {"scored": self._score(batch)}

    def test_step(self, batch: ScoringBatch, index: int) -> dict[str, Scored]:
        """Answers and sums the loss; a callback gathers and scores."""
        return {"scored": self._score(batch)}

    def rehearse(self, batch: Batch, *, compared: Sequence[Compared] = ()) -> None:
        """Takes `batch` through forward and backward, as a step would, on each rank alone."""
        with self._without_sync():
            self.manual_backward(loss_sum(self.model, batch, self.facts))
            for penalty, pair in zip(self.penalties.on_tokens.values(), compared, strict=True):
                self.manual_backward(penalty(self.model, pair, self.facts))

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Keeps only what is trained, and how steps are cut: checkpoints are adapter-sized where the base is frozen."""
        trained = {f"model.{name}" for name, p in self.model.named_parameters() if p.requires_grad}
        weights = checkpoint["state_dict"]
        assert isinstance(weights, dict)
        checkpoint["state_dict"] = {name: weight for name, weight in weights.items() if name in trained}
        data = AdaptationData.of(self.trainer)
        if data is not None:
            checkpoint["micro_batch_tokens"] = data.plan.micro_batch_tokens

    def _score(self, batch: ScoringBatch) -> Scored:
        with padded_attention(self.model), nullcontext() if self.base is None else padded_attention(self.base):
            return self._scored(batch)

    def _scored(self, batch: ScoringBatch) -> Scored:
        nats_B = row_losses(self.model, batch.rows, self.facts)
        answers: list[str] = []
        if batch.prompts is not None:
            answers = answer(
                self.model, batch.prompts, facts=self.facts, tokenizer=self.tokenizer,
                max_new_tokens=batch.max_new_tokens, prefix=self._prefix(batch),
            )  # fmt: skip
        chosen: list[bool] = []
        if batch.choices:
            nats_CB = torch.stack([row_losses(self.model, choice, self.facts) for choice in batch.choices])
            chosen = (nats_CB.argmin(0).cpu() == torch.tensor(batch.right)).tolist()
        divergences: list[float] = []
        if self.base is not None and batch.base_rows is not None:
            divergences = row_divergences(
                self.model, batch.rows, self.facts, base=self.base, base_batch=batch.base_rows
            ).tolist()
        return Scored(
            answers=tuple(answers), nats=tuple(nats_B.tolist()), chosen=tuple(chosen), divergences=tuple(divergences)
        )

    def _prefix(self, batch: ScoringBatch) -> Prefix | None:
        """Returns keys and values of what the task's prompts begin with, made at its first batch."""
        if batch.prefix is None:
            return None
        if batch.task not in self._prefixes:
            self._prefixes[batch.task] = Prefix.of(self.model, batch.prefix)
        return self._prefixes[batch.task]

    def _log_step(self, values: Mapping[str, float]) -> None:
        """Logs what this step has; Lightning alone would tell what an earlier one had beside it once more."""
        results = self.trainer._results
        assert results is not None, "a step is taken within a loop"
        results.reset(metrics=False, fx="training_step")
        self.log_dict(values)

    def _stepping(self) -> tuple[Optimization, LightningOptimizer, LRScheduler]:
        """Returns what configure_optimizers chose, as Lightning wraps it."""
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert self.optimization is not None
        assert isinstance(optimizer, LightningOptimizer)
        assert isinstance(schedule, LRScheduler)
        return self.optimization, optimizer, schedule

    def _accumulate(self, step: Step) -> tuple[list[float], dict[str, float], bool]:
        """Adds up the gradients of the step's mean loss, and of penalties on tokens, on each rank alone.

        Returns each task's share of that loss, the penalties by their names in the log, and whether any rank ran out of
        memory: all know it before gradients are exchanged.
        """
        on_tokens, num_tasks = self.penalties.on_tokens, len(step.tasks) or 1
        totals = torch.zeros(num_tasks + len(on_tokens) + 1, device=self.device)
        try:
            with self._without_sync():
                for number, weight in enumerate(step.weights):
                    exchange_in_backward(self.model, now=number == len(step.weights) - 1)
                    # no name holds a graph: it would last through the next forward pass, and split the memory for it
                    totals[:num_tasks] += self._learn_from(
                        self._losses(step.micro_batches[number], step) * (weight / step.supervised_tokens)
                    )
                    for place, (penalty, same) in enumerate(
                        zip(on_tokens.values(), step.compared, strict=True), num_tasks
                    ):
                        totals[place] += self._learn_from(
                            penalty(self.model, same.micro_batches[number], self.facts) * (weight / same.tokens)
                        )
        except MEMORY_ERRORS as error:
            if not is_out_of_memory(error):
                raise
            check_repeatable(self.model, error, step=self.global_step)
            totals[-1] = 1
        *means, short = self.trainer.strategy.reduce(totals, reduce_op="mean").tolist()
        penalties = dict(zip(map(_logged, on_tokens), means[num_tasks:], strict=True))
        return means[:num_tasks], penalties, short > 0

    def _losses(self, batch: Batch, step: Step) -> Tensor:
        """Returns the summed loss of each of the step's tasks, or of the one that there is."""
        if not step.tasks:
            return loss_sum(self.model, batch, self.facts)[None]
        return loss_sums(self.model, batch, self.facts, num_tasks=len(step.tasks))

    def _learn_from(self, share: Tensor) -> Tensor:
        """Adds the gradients of one micro-batch's shares of the step's mean, of which ranks will take the mean."""
        scaled = share * self.trainer.world_size
        self.manual_backward(scaled.sum())
        return scaled.detach()

    def _exchange(self) -> dict[str, float]:
        """Adds the gradients of penalties on weights, and lets ranks exchange what they added up.

        Returns the penalties by their names in the log.
        """
        exchanging = self.trainer.world_size > 1 and not is_sharded(self.model)
        with torch.autocast(self.device.type, enabled=False):  # squares of small distances, in full precision
            parts = {_logged(name): penalty(self.model) for name, penalty in self.penalties.on_weights.items()}
            values = {name: part.item() for name, part in parts.items()}
            summands = list(parts.values())
            if exchanging:  # a backward pass that reaches every parameter is what makes DDP average their gradients
                summands.append(reaching([p for p in self.model.parameters() if p.requires_grad]))
            if summands:
                self.manual_backward(torch.stack(summands).sum())
        return values

    def _smaller(self, step: Step) -> Step:
        """Returns the step in micro-batches of half the size, and tells people."""
        data = AdaptationData.of(self.trainer)
        assert data is not None, "steps are cut by a plan"
        before = data.plan.micro_batch_tokens
        smaller = data.halved(step.number)
        rank_zero_warn(
            f"out of memory at step {self.global_step}: micro_batch_tokens goes from {before} to "
            f"{data.plan.micro_batch_tokens}, and the step is repeated"
        )
        return smaller

    def _without_sync(self) -> AbstractContextManager[None]:
        """Lets gradients add up on each rank before they are exchanged."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def _check_gradients(self) -> None:
        """Raises ValueError where something that should learn is not reached by the loss."""
        idle = [name for name, p in self.model.named_parameters() if p.requires_grad and p.grad is None]
        if idle:
            more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
            raise ValueError(
                f"every trained parameter must get a gradient from the loss, got none for {', '.join(idle[:3])}{more}; "
                "choose what is trained so that they are not among it"
            )

    def _check_finite(self, loss: float, step: Step) -> None:
        """Raises ValueError where the step's loss, the same on every rank, is no number."""
        if math.isfinite(loss):
            return
        keeper = self.trainer.checkpoint_callback
        kept = keeper.best_model_path if isinstance(keeper, ModelCheckpoint) else ""
        good = f"the last good weights lie in {kept}" if kept else "no weights were kept"
        shown = ", ".join(map(str, step.examples[:8])) + (", ..." if len(step.examples) > 8 else "")
        raise ValueError(
            f"the loss and its penalties must stay finite numbers, got {loss} at step {self.global_step} (training "
            f"examples {shown}, counted from 0); {good}; "
            "a lower optimizer.lr or optimizer.clip_norm helps"
        )


def _logged(name: str) -> str:
    return f"train/penalty/{name}"
