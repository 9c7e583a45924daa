"""Encoded rows in flat arrays, which may lie on disk: a row is a slice of one long array and no object of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self, overload

import numpy as np

from forgetmenot.data.types import IGNORE_INDEX, Encoded


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows(Sequence[Encoded]):
    """Rows one after another: each is its prompt, of `prompt_lengths` tokens, and then what is learned.

    Where there is an encoder, it reads the prompt; else the model reads both as one row.
    """

    tokens: np.ndarray
    """(tokens of all rows,) int32."""
    prompt_lengths: np.ndarray
    """(rows,) int32."""
    completion_lengths: np.ndarray
    """(rows,) int32: the supervised tokens."""
    is_encoder_decoder: bool

    @classmethod
    def of(cls, pairs: Iterable[tuple[Sequence[int], Sequence[int]]], *, is_encoder_decoder: bool) -> Self:
        """Returns rows of (prompt, completion) ids."""
        pairs = list(pairs)
        parts = [np.asarray(part, dtype=np.int32) for pair in pairs for part in pair]
        return cls(
            tokens=np.concatenate(parts) if parts else np.empty(0, dtype=np.int32),
            prompt_lengths=np.asarray([len(prompt) for prompt, _ in pairs], dtype=np.int32),
            completion_lengths=np.asarray([len(completion) for _, completion in pairs], dtype=np.int32),
            is_encoder_decoder=is_encoder_decoder,
        )

    @cached_property
    def lengths(self) -> np.ndarray:
        """(rows,) int64, the tokens of each row."""
        lengths: np.ndarray = self.prompt_lengths.astype(np.int64) + self.completion_lengths
        return lengths

    @cached_property
    def _starts(self) -> np.ndarray:
        starts: np.ndarray = np.cumsum(self.lengths) - self.lengths
        return starts

    def prompt(self, index: int) -> np.ndarray:
        """Returns the prompt of a row alone."""
        start = int(self._starts[index])
        return self.tokens[start : start + int(self.prompt_lengths[index])]

    def completion(self, index: int) -> np.ndarray:
        """Returns what is learned of a row alone."""
        end = int(self._starts[index]) + int(self.lengths[index])
        return self.tokens[end - int(self.completion_lengths[index]) : end]

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...

    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...

    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"rows have indices up to {len(self) - 1}, got {index}")
        start, length = int(self._starts[index]), int(self.lengths[index])
        row = self.tokens[start : start + length]
        learned = int(self.prompt_lengths[index])
        if self.is_encoder_decoder:
            return Encoded(input_ids=row[:learned], labels=row[learned:], num_tokens=length)
        labels = np.array(row)
        labels[:learned] = IGNORE_INDEX
        return Encoded(input_ids=row, labels=labels, num_tokens=length)


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    """The rows of a split, each with the index of its example, and what did not fit."""

    rows: Rows
    example_indices: np.ndarray
    truncated: int
    dropped: int

    @classmethod
    def joined(cls, splits: Sequence[Self]) -> Self:
        """Returns the rows of several splits behind each other, in memory; those of one alone stay where they are."""
        full = [split for split in splits if len(split.rows)]
        if len(full) < 2:
            rows, indices = (full or splits)[0].rows, (full or splits)[0].example_indices
        else:
            indices = np.concatenate([split.example_indices for split in full])
            rows = Rows(
                tokens=np.concatenate([split.rows.tokens for split in full]),
                prompt_lengths=np.concatenate([split.rows.prompt_lengths for split in full]),
                completion_lengths=np.concatenate([split.rows.completion_lengths for split in full]),
                is_encoder_decoder=full[0].rows.is_encoder_decoder,
            )
        truncated, dropped = (sum(getattr(split, name) for split in splits) for name in ("truncated", "dropped"))
        return cls(rows=rows, example_indices=indices, truncated=truncated, dropped=dropped)

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each row."""
        return self.rows.lengths

    @property
    def highest_id(self) -> int:
        """The highest token id of all rows."""
        return int(self.rows.tokens.max(initial=0))
