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
    """Tensors of one forward pass, in one of two layouts; positions are counted from 0 in every row.

    Padded: a row each, [pad][virtual tokens][prompt][completion], with the mask of what is no padding; an encoder's is
    [virtual tokens][prompt][pad].
    Packed: all rows behind each other in one of B = 1, of `row_lengths` tokens each; no padding.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    position_ids_BT: Tensor
    labels_BS: Tensor
    decoder_input_ids_BS: Tensor | None = None
    row_lengths: tuple[int, ...] | None = None

    def to(self, device: torch.device, **options: bool) -> Self:
        """Returns the batch on `device` (Lightning calls this, and passes `non_blocking`)."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: tensor.to(device, **options) for name, tensor in tensors.items()})


@dataclass(frozen=True, kw_only=True)
class Step:
    """One rank's share of one optimizer step: micro-batches, and the supervised tokens of the step over all ranks.

    `number` counts from 0 over all epochs; `examples` are the step's, over all ranks, as they stand in the data.
    """

    number: int
    examples: tuple[int, ...]
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
