"""Tiny encoder-decoders whose decoders are of another kind than most."""

import torch
from transformers import AutoModelForSeq2SeqLM, FSMTConfig, PretrainedConfig, PreTrainedModel, ProphetNetConfig

_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
UNLIKE = {
    "t5": {"num_layers": 2, "num_decoder_layers": 3, "d_kv": 6},  # which 16 values of a token are not 2 heads of
    "bart": {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 2},
}
"""Decoders of other sizes than their encoders."""
TAKE_NONE: dict[str, PretrainedConfig] = {
    "fsmt": FSMTConfig(
        **_SPECIAL, langs=["en", "de"], src_vocab_size=48, tgt_vocab_size=48, d_model=16, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=64,
    ),
    "prophetnet": ProphetNetConfig(
        **_SPECIAL, vocab_size=48, hidden_size=16, num_encoder_layers=1, num_decoder_layers=1,
        num_encoder_attention_heads=2, num_decoder_attention_heads=2, max_position_embeddings=64,
    ),
}  # fmt: skip
"""Decoders that take no keys and values before several tokens."""


def empty(config: PretrainedConfig) -> PreTrainedModel:
    """Returns a model without weights."""
    with torch.device("meta"):
        return AutoModelForSeq2SeqLM.from_config(config)
