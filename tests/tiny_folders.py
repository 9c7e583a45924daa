"""Models of a few thousand weights in folders, in the Hugging Face layout, each with a tokenizer of bytes."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    T5Config,
)

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ bos_token }}{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}assistant\n{% endif %}"
)
"""As ChatML has it; a turn does not end with the EOS of plain text."""

_VOCAB = 304
_SPECIAL = {"vocab_size": _VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

CONFIGS: dict[str, PretrainedConfig] = {
    "qwen2": Qwen2Config(
        **_SPECIAL, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=True,
    ),
    "t5": T5Config(
        vocab_size=_VOCAB, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0, d_model=16, d_kv=8, d_ff=32,
        num_layers=1, num_heads=2, feed_forward_proj="relu", tie_word_embeddings=True,
    ),
    "flan_t5": T5Config(
        vocab_size=_VOCAB, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0, d_model=16, d_kv=8, d_ff=32,
        num_layers=1, num_heads=2, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    ),
    "bart": BartConfig(
        **_SPECIAL, decoder_start_token_id=2, forced_eos_token_id=None, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2,
        max_position_embeddings=128,
    ),
}  # fmt: skip


def write_model(folder: Path, family: str, texts: Iterable[str]) -> Path:
    """Writes a random model of `family` into `folder`, with a tokenizer trained on `texts`; returns the folder.

    T5 1.1 and FLAN-T5 have an output head of their own, and so has this one.
    """
    _tokenizer(texts).save_pretrained(folder)
    config = CONFIGS[family]
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # a copy: a model changes the config that it is made from
        model = auto.from_config(type(config).from_dict(config.to_dict()), dtype=torch.float32)
        if family == "flan_t5":
            model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight) / 4)
        model.save_pretrained(folder)
    return folder


def _tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCAB,
        special_tokens=["<pad>", "<bos>", "<eos>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
