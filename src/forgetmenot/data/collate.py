"""Pads encoded rows into batches, laid out [pad][virtual tokens][prompt][completion] with explicit positions.

Virtual tokens get ids from `first_virtual_id` up: a soft prompt is extra vocabulary, so training and generation, with
or without padding, see the same layout (method/prompt.py holds its embeddings).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from forgetmenot.data.types import IGNORE_INDEX, Batch, Encoded


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Pads for one model: its padding token, its virtual tokens, how its decoder starts (None for a causal model)."""

    pad_id: int
    num_virtual_tokens: int
    first_virtual_id: int
    decoder_start_id: int | None

    def rows(self, rows: Sequence[Encoded]) -> Batch:
        """Returns whole rows, prompts with completions, to measure the loss on."""
        ids = [row.input_ids for row in rows]
        if self.decoder_start_id is not None:
            labels = _pad_right([row.labels for row in rows], filler=IGNORE_INDEX)
            return self._batch(ids, labels_BS=labels, decoder_start_id=self.decoder_start_id)
        ignored = np.full(self.num_virtual_tokens, IGNORE_INDEX)
        labels = _pad_left([np.concatenate([ignored, row.labels]) for row in rows], filler=IGNORE_INDEX)
        return self._batch(ids, labels_BS=labels, decoder_start_id=None)

    def prompts(self, prompts: Sequence[np.ndarray]) -> Batch:
        """Returns prompts alone, to be answered; they carry no labels."""
        return self._batch(prompts, labels_BS=torch.empty(len(prompts), 0, dtype=torch.long), decoder_start_id=None)

    def _batch(self, ids: Sequence[np.ndarray], *, labels_BS: Tensor, decoder_start_id: int | None) -> Batch:
        virtual = np.arange(self.first_virtual_id, self.first_virtual_id + self.num_virtual_tokens)
        whole = [np.concatenate([virtual, row]) for row in ids]
        input_ids_BT = _pad_left(whole, filler=self.pad_id)
        attention_mask_BT = _pad_left([np.ones_like(row) for row in whole], filler=0)
        decoder_input_ids_BS = None
        if decoder_start_id is not None:
            shifted_BS = labels_BS.roll(1, dims=1).masked_fill(labels_BS.roll(1, dims=1) == IGNORE_INDEX, self.pad_id)
            shifted_BS[:, 0] = decoder_start_id
            decoder_input_ids_BS = shifted_BS
        return Batch(
            input_ids_BT=input_ids_BT,
            attention_mask_BT=attention_mask_BT,
            position_ids_BT=(attention_mask_BT.cumsum(dim=1) - 1).clamp(min=0),
            labels_BS=labels_BS,
            decoder_input_ids_BS=decoder_input_ids_BS,
        )


def _pad_left(rows: Sequence[np.ndarray], *, filler: int) -> Tensor:
    padded = torch.full((len(rows), max(map(len, rows))), filler, dtype=torch.long)
    for target, row in zip(padded, rows, strict=True):
        target[len(target) - len(row) :] = torch.from_numpy(row)
    return padded


def _pad_right(rows: Sequence[np.ndarray], *, filler: int) -> Tensor:
    padded = torch.full((len(rows), max(map(len, rows))), filler, dtype=torch.long)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = torch.from_numpy(row)
    return padded
