"""The words that every module speaks: examples, their token ids, and the batches that a model reads.

Shapes: B rows, T positions, S positions of a decoder.
"""

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
    """Padded tensors of one forward pass: [pad][virtual tokens][prompt][completion].

    Positions are counted without padding.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    position_ids_BT: Tensor
    labels_BS: Tensor
    decoder_input_ids_BS: Tensor | None = None

    def to(self, device: torch.device, **options: bool) -> Self:
        """Returns the batch on `device` (Lightning calls this, and passes `non_blocking`)."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device, **options) for k, v in tensors.items() if v is not None})


@dataclass(frozen=True, kw_only=True)
class Step:
    """One rank's share of one optimizer step: micro-batches, and the supervised tokens of the step over all ranks."""

    micro_batches: tuple[Batch, ...]
    weights: tuple[float, ...]
    supervised_tokens: int
    num_tokens: int

    def to(self, device: torch.device, **options: bool) -> Self:
        """Returns the step on `device`."""
        return replace(self, micro_batches=tuple(batch.to(device, **options) for batch in self.micro_batches))


@dataclass(frozen=True, kw_only=True)
class ScoringBatch:
    """Test or validation examples of one task: `indices` in file order, whole rows for the loss, prompts to answer.

    One that is not `counted` only keeps ranks in step.
    """

    task: str
    indices: tuple[int, ...]
    rows: Batch
    prompts: Batch | None
    max_new_tokens: int
    counted: bool

    def to(self, device: torch.device, **options: bool) -> Self:
        """Returns the batch on `device`."""
        prompts = None if self.prompts is None else self.prompts.to(device, **options)
        return replace(self, rows=self.rows.to(device, **options), prompts=prompts)
