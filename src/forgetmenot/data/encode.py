"""Turns examples into token ids: the only place that tokenizes, so BOS, EOS and cutting are decided once.

A row is [BOS][prompt][completion][EOS] with the completion and EOS as labels; plain text is cut into pieces of
max_length.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from forgetmenot.data.types import IGNORE_INDEX, Encoded, Example

_CHUNK = 2048  # examples tokenized at once: bounds the memory that Python's lists of ids take


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    """The rows of a split, each with the index of its example, and what did not fit."""

    rows: tuple[Encoded, ...]
    example_indices: tuple[int, ...]
    truncated: int
    dropped: int

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each row."""
        return np.asarray([row.num_tokens for row in self.rows])

    @property
    def highest_id(self) -> int:
        """The highest token id of all rows."""
        return max((int(max(row.input_ids.max(), row.labels.max())) for row in self.rows), default=0)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Encodes for one model; `max_length` tokens hold prompt and completion, virtual tokens not among them."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    truncate: Literal["left", "right"]
    is_encoder_decoder: bool

    def training_rows(self, examples: Sequence[Example]) -> EncodedSplit:
        """Returns training rows: a prompt too long is cut, an example whose completion alone is too long is dropped."""
        return self._rows(examples, reserve=0, keep_all=False)

    def scoring_rows(self, examples: Sequence[Example], *, max_new_tokens: int) -> EncodedSplit:
        """Returns rows to measure the loss on: none is dropped, and prompts leave room for `max_new_tokens`."""
        return self._rows(examples, reserve=max_new_tokens, keep_all=True)

    def prompts(self, examples: Sequence[Example], *, max_new_tokens: int) -> list[np.ndarray]:
        """Returns the prompts alone, cut as those of `scoring_rows`."""
        return [self._fit(*pair, reserve=max_new_tokens)[0] for pair in self._pairs(examples)]

    def _rows(self, examples: Sequence[Example], *, reserve: int, keep_all: bool) -> EncodedSplit:
        rows: list[Encoded] = []
        indices: list[int] = []
        truncated = dropped = 0
        for index, (prompt, completion) in enumerate(self._pairs(examples)):
            if not len(prompt):
                pieces = list(self._pieces(completion))
                rows += pieces
                indices += [index] * len(pieces)
                continue
            if len(completion) > self._longest_completion and not keep_all:
                dropped += 1
                continue
            fitted = self._fit(prompt, completion, reserve=reserve)
            rows.append(self._join(*fitted))
            indices.append(index)
            truncated += len(fitted[0]) < len(prompt) + self._frame or len(fitted[1]) < len(completion)
        return EncodedSplit(rows=tuple(rows), example_indices=tuple(indices), truncated=truncated, dropped=dropped)

    def _pairs(self, examples: Sequence[Example]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields each example's prompt and its completion with EOS."""
        prompts = self._tokenize(example.prompt for example in examples)
        completions = self._tokenize(example.completion for example in examples)
        for prompt, completion in zip(prompts, completions, strict=True):
            yield prompt, np.append(completion, self._eos).astype(np.int32)

    def _tokenize(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        texts = list(texts)
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            for ids in self.tokenizer(chunk, add_special_tokens=False, split_special_tokens=True, verbose=False)[
                "input_ids"
            ]:
                yield np.asarray(ids, dtype=np.int32)

    def _fit(self, prompt: np.ndarray, completion: np.ndarray, *, reserve: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns [BOS][prompt], an encoder's with EOS, and the completion.

        The prompt is cut so that the completion, and `reserve` tokens, fit behind it.
        """
        completion = completion[: self._longest_completion]
        space = max(1, self.max_length - max(len(completion), reserve) - self._frame)
        cut = prompt if len(prompt) <= space else prompt[-space:] if self.truncate == "left" else prompt[:space]
        tail = self._eos if self.is_encoder_decoder else self._eos[:0]
        return np.concatenate([self._bos, cut, tail]).astype(np.int32), completion

    def _join(self, prompt: np.ndarray, completion: np.ndarray) -> Encoded:
        length = len(prompt) + len(completion)
        if self.is_encoder_decoder:
            return Encoded(input_ids=prompt, labels=completion, num_tokens=length)
        labels = np.full(length, IGNORE_INDEX, dtype=np.int32)
        labels[len(prompt) :] = completion
        return Encoded(input_ids=np.concatenate([prompt, completion]), labels=labels, num_tokens=length)

    def _pieces(self, text: np.ndarray) -> Iterator[Encoded]:
        """Cuts [BOS][text][EOS] into consecutive pieces.

        Each starts with the last token of the one before, as context only: so every token is a label once.
        """
        if self.is_encoder_decoder:
            size = self.max_length - 1  # the encoder reads one token, EOS
            for start in range(0, len(text), size):
                piece = text[start : start + size]
                yield Encoded(input_ids=self._eos, labels=piece, num_tokens=len(piece) + 1)
            return
        ids = np.concatenate([self._bos, text]).astype(np.int32)
        for start in range(0, max(1, len(ids) - 1), self.max_length - 1):
            piece = ids[start : start + self.max_length]
            labels = piece.copy()
            labels[0] = IGNORE_INDEX  # nothing stands before it to predict it from
            yield Encoded(input_ids=piece, labels=labels, num_tokens=len(piece))

    @property
    def _frame(self) -> int:
        """Tokens that stand around a prompt: BOS, and EOS behind an encoder's."""
        return len(self._bos) + self.is_encoder_decoder

    @property
    def _longest_completion(self) -> int:
        """Tokens of the longest completion, EOS among them, that leaves one token of prompt."""
        return self.max_length - self._frame - 1

    @property
    def _bos(self) -> np.ndarray:
        token = self.tokenizer.bos_token_id
        return np.asarray([] if token is None else [token], dtype=np.int32)

    @property
    def _eos(self) -> np.ndarray:
        return np.asarray([self.tokenizer.eos_token_id], dtype=np.int32)
