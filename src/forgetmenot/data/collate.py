"""Lays encoded rows out as batches: padded, or packed behind each other, with explicit positions.

Padding stands before a causal model's rows and behind an encoder's: many encoders take no positions and count from the
first place, so that padding before a row would move it.

Virtual tokens get ids from `first_virtual_id` up: a soft prompt is extra vocabulary, so training and generation, with
or without padding, see the same layout (method/prompt.py holds its embeddings).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from forgetmenot.data.sizes import round_length
from forgetmenot.data.types import IGNORE_INDEX, Batch, Encoded

_SHORTEST_PREFIX = 16  # tokens: below that, computing them with every prompt costs less than copying them


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Lays out for one model: its padding, its virtual tokens, how its decoder starts (None for a causal model).

    Rows have `max_length` tokens at most. `packs` puts whole rows behind each other; prompts to be answered are always
    padded. `shares_prefix` says whether what several of them begin with can be computed once. `rounds` pads to lengths
    of which there are few.
    """

    pad_id: int
    num_virtual_tokens: int
    first_virtual_id: int
    decoder_start_id: int | None
    max_length: int
    packs: bool = False
    shares_prefix: bool = False
    rounds: bool = False

    def to_score(self) -> Self:
        """Returns the same for rows that nothing is learned from: padded, in few shapes."""
        return replace(self, packs=False, rounds=True)

    def width(self, tokens: int, *, most: int | None = None) -> int:
        """Returns how wide rows are padded of which the longest has so many tokens, virtual ones among them.

        Padding makes them no longer than `most`; None: `max_length`.
        """
        return round_length(tokens, most=self.max_length if most is None else most) if self.rounds else tokens

    def rows(self, rows: Sequence[Encoded]) -> Batch:
        """Returns whole rows, prompts with completions, to measure the loss on."""
        ids = [row.input_ids for row in rows]
        labels = [row.labels for row in rows]
        if self.decoder_start_id is not None:
            labels_BS = self._filled(labels, filler=IGNORE_INDEX, left=False)
            return self._padded(self._with_virtual_tokens(ids), labels_BS=labels_BS)
        ignored = np.full(self.num_virtual_tokens, IGNORE_INDEX, dtype=np.int32)
        labels = [np.concatenate([ignored, row]) for row in labels]
        if self.packs:
            return self._packed(ids, labels)
        labels_BS = self._filled(labels, filler=IGNORE_INDEX, left=True)
        return self._padded(self._with_virtual_tokens(ids), labels_BS=labels_BS)

    def prompts(self, prompts: Sequence[np.ndarray], *, after: int = 0, room: int = 0) -> Batch:
        """Returns prompts alone, to be answered, each without its first `after` tokens; they carry no labels.

        With an answer of `room` tokens they have `max_length` at most, padding among them: some families look masks up
        in a table of that size.
        """
        most = self.max_length - after - room
        return self._padded([row[after:] for row in self._with_virtual_tokens(prompts)], most=most)

    def prefix(self, prompt: np.ndarray, *, length: int) -> Batch:
        """Returns the first `length` tokens of a prompt, virtual ones among them, and no padding."""
        return replace(self, rounds=False)._padded([self._with_virtual_tokens([prompt])[0][:length]])

    def shared(self, prompts: Sequence[np.ndarray]) -> int:
        """Returns how many tokens, virtual ones among them, all prompts begin with, or 0 where it is not worth it.

        Every prompt has at least one token after them.
        """
        if not self.shares_prefix or len(prompts) < 2:
            return 0
        first, length = prompts[0], min(map(len, prompts)) - 1
        for prompt in prompts:
            unlike = np.flatnonzero(first[:length] != prompt[:length])
            length = int(unlike[0]) if len(unlike) else length
        shared = self.num_virtual_tokens + max(0, length)
        return shared if shared >= _SHORTEST_PREFIX else 0

    def _packed(self, ids: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Batch:
        lengths = tuple(len(row) for row in labels)
        return Batch(
            input_ids_BT=_tensor(np.concatenate(self._with_virtual_tokens(ids)))[None],
            attention_mask_BT=torch.ones(1, sum(lengths), dtype=torch.long),
            position_ids_BT=_tensor(np.concatenate([np.arange(length) for length in lengths]))[None],
            labels_BS=_tensor(np.concatenate(labels))[None],
            row_lengths=lengths,
        )

    def _padded(
        self, whole: Sequence[np.ndarray], *, labels_BS: Tensor | None = None, most: int | None = None
    ) -> Batch:
        left = self.decoder_start_id is None
        input_ids_BT = self._filled(whole, filler=self.pad_id, left=left, most=most)
        lengths_B1 = np.asarray([len(row) for row in whole])[:, None]
        starts_B1 = input_ids_BT.shape[1] - lengths_B1 if left else np.zeros_like(lengths_B1)
        positions = np.arange(input_ids_BT.shape[1]) - starts_B1
        decoder_input_ids_BS = None
        if self.decoder_start_id is not None and labels_BS is not None:
            shifted_BS = labels_BS.roll(1, dims=1)
            decoder_input_ids_BS = shifted_BS.masked_fill(shifted_BS == IGNORE_INDEX, self.pad_id)
            decoder_input_ids_BS[:, 0] = self.decoder_start_id
        return Batch(
            input_ids_BT=input_ids_BT,
            attention_mask_BT=_tensor((positions >= 0) & (positions < lengths_B1)),
            position_ids_BT=_tensor(positions.clip(min=0)),
            labels_BS=torch.empty(len(whole), 0, dtype=torch.long) if labels_BS is None else labels_BS,
            decoder_input_ids_BS=decoder_input_ids_BS,
        )

    def _filled(self, rows: Sequence[np.ndarray], *, filler: int, left: bool, most: int | None = None) -> Tensor:
        """Returns (rows, width) with `filler` on one side of the shorter ones."""
        width = self.width(max(map(len, rows)), most=most)
        filled = np.full((len(rows), width), filler, dtype=np.int64)
        for target, row in zip(filled, rows, strict=True):
            if left:
                target[width - len(row) :] = row
            else:
                target[: len(row)] = row
        return torch.from_numpy(filled)

    def _with_virtual_tokens(self, ids: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        if not self.num_virtual_tokens:
            return ids
        virtual = np.arange(self.first_virtual_id, self.first_virtual_id + self.num_virtual_tokens, dtype=np.int32)
        return [np.concatenate([virtual, row]) for row in ids]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))
