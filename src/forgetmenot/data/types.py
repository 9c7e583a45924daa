"""The words that every module speaks: examples, their token ids, and the batches that a model reads.

Shapes: B rows, T positions, S positions of a decoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

IGNORE_INDEX = -100
"""The label of a position that is not learned: written by encode and collate, read by loss."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of a data file, as read, and where it stands."""

    values: dict[str, object]
    file: str
    line: int

    @property
    def place(self) -> str:
        """Names file and line for people."""
        return f"{self.file} line {self.line}"


@dataclass(frozen=True, kw_only=True)
class Example:
    """A rendered prompt and its completion; an empty prompt means plain text."""

    prompt: str
    completion: str
    references: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Token ids of one example, int32.

    Causal: `labels` is as long as `input_ids` and IGNORE_INDEX where nothing is learned.
    Encoder-decoder: `input_ids` is what the encoder reads and `labels` the whole completion.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    num_tokens: int

    @property
    def num_supervised(self) -> int:
        """How many labels are learned."""
        return int((self.labels != IGNORE_INDEX).sum())


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of one forward pass, in one of two layouts; positions are counted from 0 in every row.

    Padded: a row each, [pad][virtual tokens][prompt][completion], with the mask of what is no padding; an encoder's is
    [virtual tokens][prompt][pad].
    Packed: all rows behind each other in one of B = 1, of `row_lengths` tokens each; no padding.
    `tasks_B` is the place of each row's task among those of its step, where a step may hold several.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    position_ids_BT: Tensor
    labels_BS: Tensor
    decoder_input_ids_BS: Tensor | None = None
    row_lengths: tuple[int, ...] | None = None
    tasks_B: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """How many rows there are, whatever the layout."""
        return len(self.labels_BS) if self.row_lengths is None else len(self.row_lengths)

    @property
    def row_of_positions(self) -> Tensor:
        """(B * S,): which row the label of each position belongs to."""
        rows_B = torch.arange(self.num_rows, device=self.labels_BS.device)
        if self.row_lengths is None:
            return rows_B.repeat_interleave(self.labels_BS.shape[1])
        return rows_B.repeat_interleave(torch.tensor(self.row_lengths, device=rows_B.device))

    def to(self, device: torch.device, **options: bool) -> Self:
        """Returns the batch on `device` (Lightning calls this, and passes `non_blocking`)."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: tensor.to(device, **options) for name, tensor in tensors.items()})


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The same rows for the model under adaptation and for its reference; both have their labels in the same order."""

    rows: Batch
    reference_rows: Batch

    def to(self, device: torch.device, **options: bool) -> Self:
        """Returns both on `device`."""
        moved = {name: getattr(self, name).to(device, **options) for name in ("rows", "reference_rows")}
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class ComparedStep:
    """What is compared in one rank's share of a step, micro-batch by micro-batch, and in the whole step how often."""

    micro_batches: tuple[Compared, ...]
    tokens: int

    def to(self, device: torch.device, **options: bool) -> Self:
        """Returns the step on `device`."""
        return replace(self, micro_batches=tuple(pair.to(device, **options) for pair in self.micro_batches))


@dataclass(frozen=True, kw_only=True)
class StepTask:
    """What one task has in a step, over all ranks; what is `replayed` is of a retained task."""

    name: str
    supervised_tokens: int
    num_tokens: int
    num_rows: int
    replayed: bool


@dataclass(frozen=True, kw_only=True)
class Step:
    """One rank's share of one optimizer step: micro-batches, and the supervised tokens of the step over all ranks.

    `number` counts from 0 over all epochs; `examples` are the step's, over all ranks, as they stand in the data, with
    their task's name where there are several.
    """

    number: int
    examples: tuple[int | str, ...]
    micro_batches: tuple[Batch, ...]
    weights: tuple[float, ...]
    supervised_tokens: int
    num_tokens: int
    compared: tuple[ComparedStep, ...] = ()
    """The same micro-batches beside another model's reading, one for each penalty on tokens."""
    tasks: tuple[StepTask, ...] = ()
    """Where the run trains on several tasks, all of them, also those that this step has nothing of."""

    @property
    def replayed_rows(self) -> int:
        """How many rows are of retained tasks."""
        return sum(task.num_rows for task in self.tasks if task.replayed)

    def logged(self, shares: Sequence[float]) -> dict[str, float]:
        """Returns what is logged of each task, where there are several: its own mean loss in nats a token.

        `shares` are their shares of the step's mean loss. A task that the step has nothing of has no loss.
        """
        if not self.tasks:
            return {}
        values = {
            f"train/{task.name}/loss": share * self.supervised_tokens / task.supervised_tokens
            for task, share in zip(self.tasks, shares, strict=True)
            if task.supervised_tokens
        }
        replayed = [task for task in self.tasks if task.replayed]
        tokens = {"train/replayed_tokens": float(sum(task.num_tokens for task in replayed))} if replayed else {}
        return values | tokens

    def to(self, device: torch.device, **options: bool) -> Self:
        """Returns the step on `device`."""
        moved = tuple(batch.to(device, **options) for batch in self.micro_batches)
        return replace(self, micro_batches=moved, compared=tuple(c.to(device, **options) for c in self.compared))


@dataclass(frozen=True, kw_only=True)
class ScoringBatch:
    """Test or validation examples of one task: `indices` in file order, whole rows for the loss, prompts to answer.

    `choices` has the prompts with each of the completions that they can have, one batch a completion, and `right` which
    of them is each row's. One that is not `counted` only keeps ranks in step.
    """

    task: str
    indices: tuple[int, ...]
    rows: Batch
    num_supervised: tuple[int, ...]
    num_bytes: tuple[int, ...]
    """Of the text that each row's supervised tokens stand for."""
    prompts: Batch | None
    max_new_tokens: int
    counted: bool
    choices: tuple[Batch, ...] = ()
    right: tuple[int, ...] = ()
    base_rows: Batch | None = None
    """The rows as the base reads them, where the two are to be compared."""
    prefix: Batch | None = None
    """One row: what all prompts of the task begin with, which `prompts` then leave out."""

    def to(self, device: torch.device, **options: bool) -> Self:
        """Returns the batch on `device`."""
        batches = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Batch)}
        moved = {name: batch.to(device, **options) for name, batch in batches.items()}
        return replace(self, choices=tuple(choice.to(device, **options) for choice in self.choices), **moved)
