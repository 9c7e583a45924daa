"""What the decoder of an encoder-decoder keeps of the tokens it has read: keys and values of its self-attention.

Shapes: T tokens, H heads of keys and values, D values of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

from forgetmenot.model.load import UNABLE

_TOKENS = 2  # that a decoder is tried with, once behind nothing and once behind as many


@dataclass(frozen=True, kw_only=True)
class KeptByDecoder:
    """The keys that a decoder keeps of a token, as many values among them: in each layer the same."""

    layers: int
    heads: int
    head_size: int


@torch.no_grad()
def kept_by_decoder(model: PreTrainedModel) -> KeptByDecoder | None:
    """Returns what the decoder of `model` keeps; None where it is something else, or cannot be given before tokens."""
    decoder, cache = model.get_decoder(), empty_cache()
    if not isinstance(decoder, PreTrainedModel):  # FSMT's
        return None
    own = decoder.config._attn_implementation
    decoder.config._attn_implementation = "eager"  # which takes a finished mask, that an empty model cannot make
    ids_1T = torch.zeros(1, _TOKENS, dtype=torch.long, device=model.device)
    try:
        with _evaluating(model):
            for length in (_TOKENS, 2 * _TOKENS):
                mask = torch.zeros(1, 1, _TOKENS, length, dtype=model.dtype, device=model.device)
                decoder(input_ids=ids_1T, attention_mask=mask, past_key_values=cache, use_cache=True)
        kept = [state for keys, values, *_ in cache.self_attention_cache for state in (keys, values)]
        ((_, heads, tokens, head_size),) = {tuple(state.shape) for state in kept}
    except UNABLE:
        return None
    finally:
        decoder.config._attn_implementation = own
    return KeptByDecoder(layers=len(kept) // 2, heads=heads, head_size=head_size) if tokens == 2 * _TOKENS else None


@torch.no_grad()
def read_by_decoder(model: PreTrainedModel, ids_1T: Tensor) -> DynamicCache:
    """Returns (1, H, T, D) keys and values that each layer keeps of tokens, which the encoder reads, too."""
    cache = empty_cache()
    with _evaluating(model):
        states_1TC = model.get_encoder()(input_ids=ids_1T).last_hidden_state
        model.get_decoder()(input_ids=ids_1T, encoder_hidden_states=states_1TC, past_key_values=cache, use_cache=True)
    return cache.self_attention_cache


def empty_cache() -> EncoderDecoderCache:
    """Returns a cache that holds nothing."""
    return EncoderDecoderCache(DynamicCache(), DynamicCache())


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Lets `model` read without dropout, and without leaving layers out (BART's kin)."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
