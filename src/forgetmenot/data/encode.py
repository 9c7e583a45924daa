"""Turns examples into token ids: the only place that tokenizes, so BOS, EOS and cutting are decided once.

A row is [BOS][prompt][completion][EOS] with the completion and EOS as labels; plain text is cut into pieces of
max_length. A chat template's own tokens stand around the prompt in place of BOS, and its
end of turn stands for EOS.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from forgetmenot.data.cache import encoded_once, key_of
from forgetmenot.data.chat import Chat
from forgetmenot.data.rows import EncodedSplit, Rows
from forgetmenot.data.types import Example

_CHUNK = 2048  # examples tokenized at once, in parallel: bounds the memory that Python's lists of ids take

Pair = tuple[list[int], list[int]]
"""The ids of a prompt and of its completion."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Encodes for one model; `max_length` tokens hold prompt and completion, virtual tokens not among them.

    What was encoded is kept in the folder `cache` and taken from there; None keeps nothing.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    truncate: Literal["left", "right"]
    is_encoder_decoder: bool
    chat: Chat | None = None
    cache: Path | None = None

    def training_rows(self, examples: Sequence[Example]) -> EncodedSplit:
        """Returns training rows: a prompt too long is cut, an example whose completion alone is too long is dropped."""
        return self._rows(examples, reserve=0, keep_all=False)

    def scoring_rows(self, examples: Sequence[Example], *, max_new_tokens: int) -> EncodedSplit:
        """Returns rows to measure the loss on: none is dropped, and prompts leave room for `max_new_tokens`."""
        return self._rows(examples, reserve=max_new_tokens, keep_all=True)

    def tokens(self, text: str) -> list[int]:
        """Returns the ids of a text alone, with nothing around it."""
        return self._tokenize([text])[0]

    def _rows(self, examples: Sequence[Example], *, reserve: int, keep_all: bool) -> EncodedSplit:
        if self.cache is None or not _is_data_alone(self.tokenizer):
            return self._encoded(examples, reserve=reserve, keep_all=keep_all)
        settings = {
            "tokenizers": tokenizers.__version__,
            "tokenizer": hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
            "frame": [self._opening, self._closing, self.end, *self._bos, self._eos],
            "chat": None if self.chat is None else [self.chat.before, self.chat.after],
            "max_length": self.max_length,
            "truncate": self.truncate,
            "is_encoder_decoder": self.is_encoder_decoder,
            "reserve": reserve,
            "keep_all": keep_all,
        }
        return encoded_once(
            self.cache,
            key_of(examples, settings),
            make=lambda: self._encoded(examples, reserve=reserve, keep_all=keep_all),
        )

    def _encoded(self, examples: Sequence[Example], *, reserve: int, keep_all: bool) -> EncodedSplit:
        tokens, prompts, completions, indices = array("i"), array("i"), array("i"), array("q")
        truncated = dropped = 0
        for index, (example, pair) in enumerate(zip(examples, self._pairs(examples), strict=True)):
            pieces = [self._fit(*pair, reserve=reserve)] if example.prompt else list(self._pieces(pair[1]))
            too_long = bool(example.prompt) and len(pair[1]) > self._longest_completion
            kept = [] if too_long and not keep_all else [piece for piece in map(self._supervised, pieces) if piece[1]]
            for prompt, completion in kept:
                tokens.extend(prompt)
                tokens.extend(completion)
                prompts.append(len(prompt))
                completions.append(len(completion))
                indices.append(index)
            dropped += not kept
            truncated += bool(kept and example.prompt) and sum(map(len, pieces[0])) < sum(map(len, pair)) + self._frame
        rows = Rows(
            tokens=np.array(tokens, dtype=np.int32),
            prompt_lengths=np.array(prompts, dtype=np.int32),
            completion_lengths=np.array(completions, dtype=np.int32),
            is_encoder_decoder=self.is_encoder_decoder,
        )
        return EncodedSplit(
            rows=rows, example_indices=np.array(indices, dtype=np.int64), truncated=truncated, dropped=dropped
        )

    def _pairs(self, examples: Sequence[Example]) -> Iterator[Pair]:
        """Yields each example's prompt and its completion with what ends it."""
        for start in range(0, len(examples), _CHUNK):
            chunk = examples[start : start + _CHUNK]
            prompts = self._prompts([example.prompt for example in chunk])
            completions = self._tokenize([example.completion for example in chunk])
            for example, prompt, completion in zip(chunk, prompts, completions, strict=True):
                yield prompt, [*completion, self.end if example.prompt else self._eos]

    def _prompts(self, texts: list[str]) -> list[list[int]]:
        """Returns the ids of prompts, without what stands around them; in a chat, as they are within its template."""
        if self.chat is None:
            return self._tokenize(texts)
        framed = self.tokenizer(
            [self.chat.around(text) for text in texts],
            add_special_tokens=False, split_special_tokens=False, return_attention_mask=False, verbose=False,
        )  # fmt: skip
        found = [self.chat.inside(ids) for ids in framed["input_ids"]]
        return [
            self._tokenize([text.strip()])[0] if ids is None else ids for text, ids in zip(texts, found, strict=True)
        ]

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        encoded = self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _fit(self, prompt: list[int], completion: list[int], *, reserve: int) -> Pair:
        """Returns the prompt with what stands around it, and the completion.

        The prompt is cut so that the completion, and `reserve` tokens, fit behind it.
        """
        completion = completion[: self._longest_completion]
        space = max(1, self.max_length - max(len(completion), reserve) - self._frame)
        cut = prompt if len(prompt) <= space else prompt[-space:] if self.truncate == "left" else prompt[:space]
        return [*self._opening, *cut, *self._closing], completion

    def _supervised(self, pair: Pair) -> Pair:
        """Returns the pair without labels that nothing stands before: no position could predict them."""
        prompt, completion = pair
        return (prompt, completion) if prompt else (completion[:1], completion[1:])

    def _pieces(self, text: list[int]) -> Iterator[Pair]:
        """Cuts [BOS][text][EOS] into consecutive pieces.

        Each starts with the last token of the one before, as context only: so every token is a label once.
        """
        if self.is_encoder_decoder:
            size = self.max_length - 1  # the encoder reads one token, EOS
            for start in range(0, len(text), size):
                yield [self._eos], text[start : start + size]
            return
        ids = [*self._bos, *text]
        for start in range(0, max(1, len(ids) - 1), self.max_length - 1):
            yield ids[start : start + 1], ids[start + 1 : start + self.max_length]

    @property
    def _frame(self) -> int:
        """Tokens that stand around a prompt."""
        return len(self._opening) + len(self._closing)

    @property
    def _opening(self) -> list[int]:
        """What stands before a prompt: BOS, or what a chat template begins with."""
        return self._bos if self.chat is None else list(self.chat.opening)

    @property
    def _closing(self) -> list[int]:
        """What stands behind a prompt: an encoder's EOS, or what a chat template asks for an answer with."""
        return self._plain_frame[1] if self.chat is None else list(self.chat.closing)

    @property
    def end(self) -> int:
        """What ends a completion."""
        return self._eos if self.chat is None else self.chat.end

    @property
    def _longest_completion(self) -> int:
        """Tokens of the longest completion, EOS among them, that leaves one token of prompt."""
        return self.max_length - self._frame - 1

    @property
    def _plain_frame(self) -> Pair:
        return plain_frame(self.tokenizer, is_encoder_decoder=self.is_encoder_decoder)

    @property
    def _bos(self) -> list[int]:
        return self._plain_frame[0]

    @property
    def _eos(self) -> int:
        return int(self.tokenizer.eos_token_id)


def plain_frame(tokenizer: PreTrainedTokenizerBase, *, is_encoder_decoder: bool) -> Pair:
    """Returns what stands before a prompt, BOS where there is one, and behind it: an encoder's EOS."""
    return _known(tokenizer.bos_token_id), _known(tokenizer.eos_token_id) if is_encoder_decoder else []


def _known(token: int | None) -> list[int]:
    return [] if token is None else [int(token)]


def _is_data_alone(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tells whether the serialized tokenizer says all that it does: a class from elsewhere may add any code."""
    ours = type(tokenizer).__module__.startswith("transformers.")
    return ours and isinstance(tokenizer, PreTrainedTokenizerFast)
