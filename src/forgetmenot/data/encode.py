"""Turns examples into token ids: the only place that tokenizes, so BOS, EOS and cutting are decided once.

A row is [BOS][prompt][completion][EOS] with the completion and EOS as labels; plain text is cut into pieces of max_length.
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


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Encodes for one model; `max_length` tokens hold prompt and completion, virtual tokens not among them."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    truncate: Literal["left", "right"]
    is_encoder_decoder: bool

    def training_rows(self, examples: Sequence[Example]) -> EncodedSplit:
        """Returns training rows: a prompt that is too long is cut, an example whose completion alone does not fit is dropped."""
        return self._rows(examples, reserve=0, keep_all=False)

    def scoring_rows(self, examples: Sequence[Example], *, max_new_tokens: int) -> EncodedSplit:
        """Returns rows to measure the loss on: none is dropped, and prompts leave room for `max_new_tokens`."""
        return self._rows(examples, reserve=max_new_tokens, keep_all=True)

    def prompts(self, examples: Sequence[Example], *, max_new_tokens: int) -> list[np.ndarray]:
        """Returns the prompts alone, cut so that `max_new_tokens` fit behind them."""
        room = self.max_length - (0 if self.is_encoder_decoder else max_new_tokens)
        return [self._prompt(ids, room=room)[0] for ids in self._tokenize(example.prompt for example in examples)]

    def _rows(self, examples: Sequence[Example], *, reserve: int, keep_all: bool) -> EncodedSplit:
        rows: list[Encoded] = []
        indices: list[int] = []
        truncated = dropped = 0
        prompts = self._tokenize(example.prompt for example in examples)
        completions = self._tokenize(example.completion for example in examples)
        for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            completion = np.append(completion, self._eos).astype(np.int32)
            if not len(prompt):
                pieces = list(self._pieces(completion))
                rows += pieces
                indices += [index] * len(pieces)
                continue
            most = self.max_length - len(self._bos) - 1  # leaves one token of prompt
            if len(completion) > most and not keep_all:
                dropped += 1
                continue
            cut_completion = completion[:most]
            prompt, cut = self._prompt(prompt, room=self.max_length - max(len(cut_completion), reserve))
            truncated += cut or len(cut_completion) < len(completion)
            rows.append(self._join(prompt, cut_completion))
            indices.append(index)
        return EncodedSplit(rows=tuple(rows), example_indices=tuple(indices), truncated=truncated, dropped=dropped)

    def _tokenize(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        texts = list(texts)
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            for ids in self.tokenizer(chunk, add_special_tokens=False, split_special_tokens=True, verbose=False)[
                "input_ids"
            ]:
                yield np.asarray(ids, dtype=np.int32)

    def _prompt(self, ids: np.ndarray, *, room: int) -> tuple[np.ndarray, bool]:
        """Returns [BOS][prompt] in at most `room` tokens, and whether it was cut. An encoder's prompt ends with EOS."""
        tail = self._eos if self.is_encoder_decoder else self._eos[:0]
        space = max(1, room - len(self._bos) - len(tail))
        cut = ids if len(ids) <= space else ids[-space:] if self.truncate == "left" else ids[:space]
        return np.concatenate([self._bos, cut, tail]).astype(np.int32), len(cut) < len(ids)

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
            for start in range(0, len(text), self.max_length):
                piece = text[start : start + self.max_length]
                yield Encoded(input_ids=self._eos, labels=piece, num_tokens=len(piece) + 1)
            return
        ids = np.concatenate([self._bos, text]).astype(np.int32)
        for start in range(0, max(1, len(ids) - 1), self.max_length - 1):
            piece = ids[start : start + self.max_length]
            labels = piece.copy()
            labels[0] = IGNORE_INDEX  # nothing stands before it to predict it from
            yield Encoded(input_ids=piece, labels=labels, num_tokens=len(piece))

    @property
    def _bos(self) -> np.ndarray:
        token = self.tokenizer.bos_token_id
        return np.asarray([] if token is None else [token], dtype=np.int32)

    @property
    def _eos(self) -> np.ndarray:
        return np.asarray([self.tokenizer.eos_token_id], dtype=np.int32)
