"""The Lightning callback that scores: answers against references, losses and choices, over all ranks in file order."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from forgetmenot.answers import ANSWER_NAMES, answer_scores
from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.task import Task
from forgetmenot.data.types import ScoringBatch
from forgetmenot.forgetting import LOSSES, mean_over_targets
from forgetmenot.freed_memory import give_back_freed_memory
from forgetmenot.metric import CHOICE_NAME, DIVERGENCE, Ratios
from forgetmenot.module import Scored
from forgetmenot.scores import ExampleScores

MEAN = "val/mean"
"""The mean of several targets' own metrics: of those scored by answers, or of losses where none is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A task's scores example by example, and its answers in file order (none for plain text)."""

    scores: ExampleScores
    answers: tuple[str, ...]

    def unchanged(self) -> Self:
        """Returns the same beside itself: scores and answers are what they were, and the divergence is 0."""
        return replace(self, scores=self.scores.with_zero(DIVERGENCE))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """What one batch adds: for each of its rows, the example, the answer, and the sums and weights of all scores."""

    task: str
    indices: tuple[int, ...]
    answers: tuple[str, ...]
    sums_BS: np.ndarray
    weights_BS: np.ndarray


class Scoring(Callback):
    """Scores what every rank answered. Validation is logged under `val/`; tests stay in `measured`, in file order.

    Of several targets each has its name before the score, and `val/mean` is the mean of their own metrics.
    """

    def __init__(self, *, validation: Sequence[ScoringSet], tests: Sequence[ScoringSet]) -> None:
        self.validation = {data.task.name: data for data in validation}
        self.tests = {data.task.name: data for data in tests}
        self.measured: dict[str, Measured] = {}
        self.test_seconds = 0.0
        self._started = 0.0
        self._ratios = {data.task.name: Ratios(score_names(data.task)) for data in validation}
        self._parts: list[_Part] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for ratios in self._ratios.values():
            ratios.reset()
            if trainer.world_size > 1:
                ratios.to(pl_module.device)  # where ranks add up

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._parts = []
        self._started = time.perf_counter()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: ScoringBatch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        part = _part(self.validation[batch.task], batch, outputs)
        counted = float(batch.counted)  # 0 for a batch that only keeps ranks in step
        sums_BS, weights_BS = (torch.from_numpy(values * counted) for values in (part.sums_BS, part.weights_BS))
        self._ratios[batch.task].update(sums_BS, weights_BS)
        give_back_freed_memory()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: ScoringBatch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if batch.counted:
            self._parts.append(_part(self.tests[batch.task], batch, outputs))
        give_back_freed_memory()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scores = {task: ratios.compute() for task, ratios in self._ratios.items()}
        for task, of_task in scores.items():
            _check_loss(of_task["loss"], task=task)
        metrics = {task: data.task.metric for task, data in self.validation.items()}
        pl_module.log_dict(validation_log(scores, metrics), rank_zero_only=False)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        parts = self._gathered()
        for name in dict.fromkeys(part.task for part in parts):
            self.measured[name] = _measured(self.tests[name], [part for part in parts if part.task == name])
            _check_loss(self.measured[name].scores.totals["loss"], task=name)
        self.test_seconds = time.perf_counter() - self._started

    def _gathered(self) -> list[_Part]:
        """Returns the parts of all ranks."""
        if not torch.distributed.is_initialized():
            return self._parts
        everyone: list[list[_Part]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(everyone, self._parts)
        return [part for parts in everyone for part in parts]


def score_names(task: Task) -> tuple[str, ...]:
    """Returns the names of all scores that a task gets."""
    return (*(ANSWER_NAMES if task.answers else ()), *((CHOICE_NAME,) if task.choices else ()), *LOSSES)


def validation_log(scores: Mapping[str, Mapping[str, float]], metrics: Mapping[str, str]) -> dict[str, float]:
    """Returns scores by target under the names that they are logged by, with their mean where there are several."""
    if len(scores) == 1:
        return {f"val/{name}": value for of_task in scores.values() for name, value in of_task.items()}
    named = {f"val/{task}/{name}": value for task, of_task in scores.items() for name, value in of_task.items()}
    return named | {MEAN: mean_over_targets({task: scores[task][metric] for task, metric in metrics.items()}, metrics)}


def monitored(metrics: Mapping[str, str]) -> str:
    """Returns under which name the score that a run is watched by is logged, given each target's own metric."""
    return MEAN if len(metrics) > 1 else f"val/{next(iter(metrics.values()))}"


def _check_loss(loss: float, *, task: str) -> None:
    """Raises ValueError where a task's loss is no number."""
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss of {task} must be a finite number, got {loss}: the weights are broken; "
            "a lower optimizer.lr or optimizer.clip_norm helps"
        )


def _part(data: ScoringSet, batch: ScoringBatch, outputs: STEP_OUTPUT) -> _Part:
    """Returns the scores of a batch: every one as what a row adds to its sum and to its weight.

    Bits a byte count the bits of EOS, which has no bytes: the text has to end, too.
    """
    assert isinstance(outputs, Mapping), "the module's scoring steps return {'scored': Scored}"
    scored: Scored = outputs["scored"]
    ones = [1.0] * len(batch.indices)
    columns: list[tuple[Sequence[float], Sequence[float]]] = []
    if data.task.answers:
        each = [
            answer_scores(text, data.examples[i].references, accumulate=data.task.rouge_of_several)
            for i, text in zip(batch.indices, scored.answers, strict=True)
        ]
        columns += [([scores[name] for scores in each], ones) for name in ANSWER_NAMES]
    if data.task.choices:
        columns.append((scored.chosen, ones))
    columns.append((scored.nats, batch.num_supervised))
    columns.append(([nats / math.log(2) for nats in scored.nats], batch.num_bytes))
    if scored.divergences:
        columns.append((scored.divergences, batch.num_supervised))
    sums, weights = zip(*columns, strict=True)
    return _Part(
        task=batch.task,
        indices=batch.indices,
        answers=scored.answers,
        sums_BS=np.array(sums, dtype=np.float64).T,
        weights_BS=np.array(weights, dtype=np.float64).T,
    )


def _measured(data: ScoringSet, parts: Sequence[_Part]) -> Measured:
    """Returns one task's parts in file order; a long text's rows add up to one example."""
    names = score_names(data.task)
    names = names if parts[0].sums_BS.shape[1] == len(names) else (*names, DIVERGENCE)
    sums_NS, weights_NS = (np.zeros((len(data.examples), len(names))) for _ in range(2))
    by_index: dict[int, str] = {}
    for part in sorted(parts, key=lambda part: part.indices):  # whatever the ranks, numbers are added in one order
        np.add.at(sums_NS, list(part.indices), part.sums_BS)
        np.add.at(weights_NS, list(part.indices), part.weights_BS)
        by_index |= dict(zip(part.indices, part.answers, strict=False))
    answers = tuple(by_index[i] for i in range(len(data.examples))) if data.task.answers else ()
    return Measured(scores=ExampleScores(names=names, sums_NS=sums_NS, weights_NS=weights_NS), answers=answers)
