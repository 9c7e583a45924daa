"""Greedy answers to a batch of prompts."""

from collections.abc import Callable
from itertools import takewhile
from typing import cast

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from forgetmenot.data.types import Batch
from forgetmenot.model.packing import padded_attention


def answer(
    model: PreTrainedModel, prompts: Batch, *, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int
) -> list[str]:
    """Returns the greedy completion of each prompt as text, up to EOS."""
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_tokens(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=model.generation_config.decoder_start_token_id,
    )
    generate = cast(Callable[..., Tensor], model.generate)  # declared on a mixin, not on PreTrainedModel
    own, model.generation_config = model.generation_config, config  # generate would fill in from the model's own
    try:
        with padded_attention(model):
            output_BT = generate(
                input_ids=prompts.input_ids_BT, attention_mask=prompts.attention_mask_BT, generation_config=config
            )
    finally:
        model.generation_config = own
    ends = set(config.eos_token_id)
    kept = [list(takewhile(lambda token: token not in ends, row)) for row in _completions(output_BT, prompts, model)]
    return tokenizer.batch_decode(kept, skip_special_tokens=True)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns the ids that end an answer: the tokenizer's EOS, and what the model's own settings add to it."""
    own = model.generation_config.eos_token_id
    own = [] if own is None else [own] if isinstance(own, int) else list(own)
    return sorted({tokenizer.eos_token_id, *own})


def _completions(output_BT: Tensor, prompts: Batch, model: PreTrainedModel) -> list[list[int]]:
    """Returns what was generated: a causal model repeats its prompt first, a decoder its start token."""
    skipped = 1 if model.config.is_encoder_decoder else prompts.input_ids_BT.shape[1]
    return output_BT[:, skipped:].tolist()
