"""Tiny models of real families with random weights, a tokenizer of words, and rows to feed them."""

import copy
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)

from forgetmenot.data.collate import Collator
from forgetmenot.data.types import IGNORE_INDEX, Batch, Encoded
from forgetmenot.model.facts import ModelFacts, read_facts
from forgetmenot.model.load import Model, empty_model, load, read_config
from forgetmenot.model.packing import use_packed_attention

PAD, BOS, EOS, FIRST_WORD, VOCAB = 0, 1, 2, 4, 48

_SPECIAL = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # far from 0, so that the logits of a greedy answer lie apart
}

CONFIGS: Mapping[str, PretrainedConfig] = {
    "llama": LlamaConfig(**_SPECIAL, **_SIZES),
    "qwen2": Qwen2Config(**_SPECIAL, **_SIZES),
    "qwen3": Qwen3Config(**_SPECIAL, **_SIZES, head_dim=8),
    "gpt2": GPT2Config(
        **_SPECIAL, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3,
        embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0,
    ),
    "gemma": GemmaConfig(**_SPECIAL, **_SIZES, head_dim=8),
    "gemma2": Gemma2Config(
        **_SPECIAL, **_SIZES, head_dim=8, final_logit_softcapping=2.0, attn_logit_softcapping=1.0, sliding_window=4
    ),
    "gemma3": Gemma3TextConfig(**_SPECIAL, **_SIZES, head_dim=8, sliding_window=4),
    "phi3": Phi3Config(**_SPECIAL, **_SIZES, original_max_position_embeddings=64),
    "t5": T5Config(
        vocab_size=VOCAB, pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD, d_model=16, d_kv=8, d_ff=24,
        num_layers=2, num_heads=2, dropout_rate=0.0, initializer_factor=1.0,
    ),
    "bart": BartConfig(
        **_SPECIAL, decoder_start_token_id=PAD, d_model=16, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=24,
        decoder_ffn_dim=24, encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=64,
        init_std=0.3, dropout=0.0, forced_eos_token_id=None,
    ),
}  # fmt: skip

MIXTURES: Mapping[str, PretrainedConfig] = {
    "mixtral": MixtralConfig(**_SPECIAL, **_SIZES, num_local_experts=3, num_experts_per_tok=2, sliding_window=None),
}
"""Of experts: an empty copy of one tells less of itself than the rest."""

WIDE: Mapping[str, Mapping[str, int]] = {
    "llama": {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32},
    "gemma": {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32},
    "gpt2": {"n_embd": 64},
    "t5": {"d_model": 64, "d_kv": 32, "d_ff": 128},
}
"""Sizes of families in multiples of the 64 weights that share a scale in 4 bits."""


def tiny(family: str, *, seed: int = 0, sizes: Mapping[str, int] | None = None) -> PreTrainedModel:
    """Returns a random fp32 model of a few thousand parameters, not in training mode; `sizes` makes it wider."""
    return copy.deepcopy(_drawn(family, seed, tuple((sizes or {}).items())))


@cache
def _drawn(family: str, seed: int, sizes: tuple[tuple[str, int], ...]) -> PreTrainedModel:
    """Returns the model that every other one of these values is a copy of: copies take half the time."""
    known = {**CONFIGS, **MIXTURES}[family]
    config = type(known).from_dict({**known.to_dict(), **dict(sizes)})
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return auto.from_config(config, dtype=torch.float32).eval()


def of_depth(family: str, depth: int, *, sizes: Mapping[str, int] | None = None) -> PreTrainedModel:
    """Returns an empty fp32 model of `depth` blocks in each stack; `sizes` makes it wider."""
    settings = {**CONFIGS[family].to_dict(), **(sizes or {})}
    settings.pop("layer_types", None)  # as many as there are blocks
    names = ("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")
    config = type(CONFIGS[family]).from_dict({**settings, **{name: depth for name in names if settings.get(name)}})
    return empty_model(model_at("nowhere", weights="random"), config).float()


def model_at(path: str | Path, *, weights: str = "pretrained") -> Model:
    """Returns the model that lies at `path`, as conf/model would describe it."""
    return Model(
        name="tiny", path=str(path), weights=weights, lr_scale="auto", trust_remote_code=False, attention="auto"
    )


def quantized(family: str, *, dtype: torch.dtype) -> PreTrainedModel:
    """Returns a model of 64 wide layers that are in 4 bits."""
    with TemporaryDirectory() as folder:
        tiny(family, sizes=WIDE[family]).save_pretrained(folder)
        model = model_at(folder)
        return load(model, config=read_config(model), dtype=dtype, seed=0, quantization="nf4").eval()


def packing(model: PreTrainedModel) -> PreTrainedModel:
    """Returns a copy of `model` that takes packed rows."""
    copied = copy.deepcopy(model)
    use_packed_attention(copied)
    return copied


def facts_of(model: PreTrainedModel) -> ModelFacts:
    """Returns what the house knows of `model`."""
    config = model.config
    return _facts(type(config), json.dumps(config.to_dict()), config._attn_implementation)


@cache
def _facts(kind: type[PretrainedConfig], settings: str, attention: str | None) -> ModelFacts:
    """Returns the facts of a config, for which an empty model is tried out, once."""
    return read_facts(model_at("nowhere"), kind.from_dict(json.loads(settings), attn_implementation=attention))


def collator_of(model: PreTrainedModel, *, virtual_tokens: int = 0, packs: bool = False) -> Collator:
    """Returns the collator for `model`, laid out as a run lays it out; what packs has to attend so, too."""
    facts = facts_of(model)
    return Collator(
        pad_id=PAD,
        num_virtual_tokens=virtual_tokens,
        first_virtual_id=facts.embedding_rows,
        decoder_start_id=facts.decoder_start_id,
        max_length=64,
        packs=packs,
    )


def rows_for(model: PreTrainedModel, lengths: Sequence[tuple[int, int]], *, seed: int = 0) -> list[Encoded]:
    """Returns rows of random words with (prompt, completion) tokens each; every completion ends with EOS."""
    draw = np.random.default_rng(seed)
    return [_row(model, prompt, completion, draw=draw) for prompt, completion in lengths]


def _row(model: PreTrainedModel, num_prompt: int, num_completion: int, *, draw: np.random.Generator) -> Encoded:
    prompt = draw.integers(FIRST_WORD, VOCAB, num_prompt).astype(np.int32)
    completion = np.append(draw.integers(FIRST_WORD, VOCAB, num_completion - 1), EOS).astype(np.int32)
    if model.config.is_encoder_decoder:
        return Encoded(input_ids=prompt, labels=completion, num_tokens=num_prompt + num_completion)
    ignored = np.full(num_prompt, IGNORE_INDEX, dtype=np.int32)
    ids, labels = np.concatenate([prompt, completion]), np.concatenate([ignored, completion])
    return Encoded(input_ids=ids, labels=labels, num_tokens=len(ids))


def prompt_of(row: Encoded) -> np.ndarray:
    """Returns the part of a row that is not learned: what a model is asked."""
    ignored = row.labels == IGNORE_INDEX
    return row.input_ids[ignored] if ignored.any() else row.input_ids


def reference_inputs(batch: Batch, *, causal: bool) -> dict[str, torch.Tensor]:
    """Returns the batch under transformers' own names, labels among them, so that transformers works out the loss."""
    inputs = {"input_ids": batch.input_ids_BT, "attention_mask": batch.attention_mask_BT, "labels": batch.labels_BS}
    return {**inputs, "position_ids": batch.position_ids_BT} if causal else inputs


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer whose tokens are the words w4, w5 and so on, so that text shows ids."""
    words = {"<pad>": PAD, "<bos>": BOS, "<eos>": EOS, "<unk>": 3, **{f"w{i}": i for i in range(FIRST_WORD, VOCAB)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
