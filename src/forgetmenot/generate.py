"""Greedy answers to a batch of prompts, up to EOS.

Keys and values are kept and logits never; rows that have ended leave the batch; what all prompts begin with is computed
once. Models that keep something else than keys and values go through transformers' own `generate`.

Shapes: B rows, T positions.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Self, cast

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from forgetmenot.data.sizes import round_rows
from forgetmenot.data.types import Batch
from forgetmenot.key_values import roomy_cache
from forgetmenot.model.facts import ModelFacts
from forgetmenot.model.head import exact_rivals
from forgetmenot.model.packing import padded_attention
from forgetmenot.model.sharding import is_sharded, on_any_rank

_LEAVE = 0.75  # of the rows are enough: those that have ended leave, which copies all keys and values


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Keys and values of what all prompts of a task begin with, `length` tokens."""

    cache: DynamicCache
    length: int

    @classmethod
    @torch.no_grad()
    def of(cls, model: PreTrainedModel, row: Batch) -> Self:
        """Returns those of a batch of one row."""
        cache = roomy_cache(model.config)
        with padded_attention(model), _uncompiled():
            _next_tokens(model, row.input_ids_BT, row.attention_mask_BT, row.position_ids_BT, cache=cache)
        return cls(cache=cache, length=row.input_ids_BT.shape[1])

    def for_rows(self, number: int) -> DynamicCache:
        """Returns a copy for a batch of that many rows."""
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(number)
        return cache


@torch.no_grad()
def answer(
    model: PreTrainedModel,
    prompts: Batch,
    *,
    facts: ModelFacts,
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
    prefix: Prefix | None = None,
) -> list[str]:
    """Returns the greedy completion of each prompt as text; with a `prefix`, prompts are what follows it."""
    ends = end_tokens(model, tokenizer)
    with padded_attention(model), exact_rivals(model), _uncompiled():
        if facts.keeps_keys_and_values:
            rows = _step_by_step(model, prompts, ends=ends, max_new_tokens=max_new_tokens, prefix=prefix)
        else:
            assert prefix is None, "only keys and values can be shared"
            rows = _by_transformers(model, prompts, ends=ends, max_new_tokens=max_new_tokens, tokenizer=tokenizer)
    return tokenizer.batch_decode(rows, skip_special_tokens=True)


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Lets blocks that are compiled for training run as they are: a cache is another one for the compiler each time."""
    with torch.compiler.set_stance("force_eager"):
        yield


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns the ids that end an answer: the tokenizer's EOS, and what the model's own settings add to it."""
    own = model.generation_config.eos_token_id
    own = [] if own is None else [own] if isinstance(own, int) else list(own)
    return sorted({tokenizer.eos_token_id, *own})


def end_with(model: PreTrainedModel, token: int, *, tokenizer: PreTrainedTokenizerBase) -> None:
    """Lets `token` end an answer, too, beside what does already; the model's settings are saved with it."""
    model.generation_config.eos_token_id = sorted({token, *end_tokens(model, tokenizer)})


def _step_by_step(
    model: PreTrainedModel, prompts: Batch, *, ends: list[int], max_new_tokens: int, prefix: Prefix | None
) -> list[list[int]]:
    """Returns the ids of each answer, without what ended it."""
    ids_BT, mask_BT, positions_BT = prompts.input_ids_BT, prompts.attention_mask_BT, prompts.position_ids_BT
    cache = roomy_cache(model.config) if prefix is None else prefix.for_rows(len(ids_BT))
    if prefix is not None:
        mask_BT = torch.cat([mask_BT.new_ones(len(mask_BT), prefix.length), mask_BT], dim=1)
        positions_BT = positions_BT + prefix.length
    ends_E = torch.tensor(ends, device=ids_BT.device)
    answers: list[list[int]] = [[] for _ in ids_BT]
    rows, going_B = list(range(len(ids_BT))), ids_BT.new_ones(len(ids_BT), dtype=torch.bool)
    for _ in range(max_new_tokens):
        next_B = _next_tokens(model, ids_BT, mask_BT, positions_BT, cache=cache)
        going_B = going_B & ~torch.isin(next_B, ends_E)
        for row, token, going in zip(rows, next_B.tolist(), going_B.tolist(), strict=True):
            if going:
                answers[row].append(token)
        if not on_any_rank(model, going_B.any()):
            break
        ids_BT, positions_BT = next_B[:, None], positions_BT[:, -1:] + 1
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(mask_BT), 1)], dim=1)
        enough = round_rows(max(1, int(going_B.sum())))
        if enough <= _LEAVE * len(rows):
            stay = going_B.logical_not().long().argsort(stable=True)[:enough].sort().values  # some that ended fill up
            cache.batch_select_indices(stay)
            rows = [rows[i] for i in stay.tolist()]
            ids_BT, positions_BT, mask_BT, going_B = (each[stay] for each in (ids_BT, positions_BT, mask_BT, going_B))
    return answers


def _next_tokens(
    model: PreTrainedModel, ids_BT: Tensor, mask_BT: Tensor, positions_BT: Tensor, *, cache: DynamicCache
) -> Tensor:
    """Returns (B,): the likeliest token after each row; `cache` takes in the row's keys and values."""
    output = model(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        position_ids=positions_BT,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    next_B: Tensor = output.logits[:, -1].argmax(-1)
    return next_B


def _by_transformers(
    model: PreTrainedModel,
    prompts: Batch,
    *,
    ends: list[int],
    max_new_tokens: int,
    tokenizer: PreTrainedTokenizerBase,
) -> list[list[int]]:
    """Returns the ids of each answer, without what ended it, as `generate` finds them."""
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=model.generation_config.decoder_start_token_id,
    )
    generate = cast(Callable[..., Tensor], model.generate)  # declared on a mixin, not on PreTrainedModel
    own, model.generation_config = model.generation_config, config  # generate would fill in from the model's own
    try:
        output_BT = generate(
            input_ids=prompts.input_ids_BT,
            attention_mask=prompts.attention_mask_BT,
            generation_config=config,
            synced_gpus=is_sharded(model),
        )
    finally:
        model.generation_config = own
    skipped = 1 if model.config.is_encoder_decoder else prompts.input_ids_BT.shape[1]  # a decoder repeats its start
    return [list(takewhile(lambda token: token not in ends, row)) for row in output_BT[:, skipped:].tolist()]
