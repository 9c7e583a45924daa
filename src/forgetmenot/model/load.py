"""Loads a pretrained model and its tokenizer with transformers: safetensors only, no remote code unless asked for."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from forgetmenot.model.quantize import Quantization, keep_layout, quantization_config

_UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError, ZeroDivisionError,
    SafetensorError, StrictDataclassError,
)  # fmt: skip
"""What transformers raises on a folder that it cannot read; the same fault has many names there."""

_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which base model to adapt: a folder or hub id in the Hugging Face layout."""

    name: str
    path: str
    weights: Literal["pretrained", "random"]
    lr_scale: float | Literal["auto"]
    trust_remote_code: bool
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"]
    """transformers' attn_implementation; auto packs rows where it can, and else leaves the choice to transformers."""
    activation_checkpointing: bool = False
    compile: bool = False
    liger: bool = False
    chat: bool = False
    """Whether prompts are put into the chat template of the tokenizer."""

    def __post_init__(self) -> None:
        if self.lr_scale != "auto" and not self.lr_scale > 0:
            raise ValueError(f"lr_scale must be auto or a number above 0, got {self.lr_scale}")


def read_config(model: Model) -> PretrainedConfig:
    """Returns the model's configuration; raises ValueError where `model.path` holds no model with weights."""
    folder = Path(model.path).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"model.path must be a folder with config.json, got {model.path} without it")
    if folder.is_dir() and model.weights == "pretrained" and not any((folder / f).is_file() for f in _WEIGHT_FILES):
        raise ValueError(
            f"model.path must be a folder with safetensors weights ({' or '.join(_WEIGHT_FILES)}), got {model.path} "
            "without them; model.weights=random starts from random ones"
        )
    if not folder.exists() and (model.path.startswith((".", "/", "~")) or model.path.count("/") > 1):
        raise ValueError(f"model.path must be an existing folder or a hub id, got {model.path}")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(_place(model), trust_remote_code=model.trust_remote_code)
    except _UNREADABLE as error:
        raise ValueError(
            f"model.path must be a model that transformers can read, got {model.path} ({_first(error)})"
        ) from error
    if _sees_ahead(config):
        raise ValueError(
            f"model.path must be a model that reads from left to right, got {model.path} ({config.model_type}), "
            "which sees the tokens to come"
        )
    return config


def _sees_ahead(config: PretrainedConfig) -> bool:
    """Tells whether a model fills gaps and does not continue: BERT and kin, unless they are set to be decoders."""
    fills_gaps = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder
    return fills_gaps and getattr(config, "is_decoder", None) is False


UNABLE = (NotImplementedError, RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError)
"""What a forward raises that cannot be tried on an empty copy, or does not take what it is given."""


def empty_model(model: Model, config: PretrainedConfig) -> PreTrainedModel:
    """Returns the model on the meta device, all shapes and no weights."""
    draw: Callable[..., PreTrainedModel] = _auto_class(config).from_config
    try:
        with torch.device("meta"):
            return _with_own_head(draw(config, trust_remote_code=model.trust_remote_code))
    except _UNREADABLE as error:
        raise ValueError(
            f"model.path must be a model that answers text with text, got {model.path} ({_first(error)})"
        ) from error


def load_tokenizer(model: Model, *, embedding_rows: int) -> PreTrainedTokenizerBase:
    """Returns the model's tokenizer.

    Padding that it lacks, or that has none of the model's `embedding_rows`, falls back to EOS: labels are masked by
    length and never by token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(_place(model), trust_remote_code=model.trust_remote_code)
    except _UNREADABLE as error:
        raise ValueError(f"model.path must hold a tokenizer, got {model.path} ({_first(error)})") from error
    if not tokenizer("a word", add_special_tokens=False)["input_ids"]:
        raise ValueError(f"model.path must hold a tokenizer with a vocabulary, got {model.path} without one")
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"model.path must hold a tokenizer with an EOS token (every completion ends with it), got {model.path}"
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= embedding_rows:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load(
    model: Model,
    *,
    config: PretrainedConfig,
    dtype: torch.dtype,
    seed: int,
    quantization: Quantization | None = None,
) -> PreTrainedModel:
    """Returns the model with its weights in `dtype`, linear layers in `quantization`.

    `weights: random` draws them by `seed`.
    """
    if model.weights == "random":
        assert quantization is None, "what is drawn cannot be quantized, and was refused"
        return _drawn(model, config=config, dtype=dtype, seed=seed)
    read = cast(Callable[..., tuple[PreTrainedModel, dict[str, Collection[str]]]], _auto_class(config).from_pretrained)
    try:
        loaded, info = read(
            _place(model),
            config=config,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation=_attention(model),
            trust_remote_code=model.trust_remote_code,
            output_loading_info=True,
            **(_quantized(quantization, empty=empty_model(model, config), dtype=dtype) if quantization else {}),
        )
    except _UNREADABLE as error:
        raise ValueError(
            f"model.path must hold weights that transformers can read, got {model.path} ({_first(error)})"
        ) from error
    if info["missing_keys"]:  # transformers would draw them at random
        first = min(info["missing_keys"])
        raise ValueError(f"model.path must hold all weights of the model, got {model.path} without {first}")
    if quantization is not None:
        keep_layout(loaded)
    return loaded


def _drawn(model: Model, *, config: PretrainedConfig, dtype: torch.dtype, seed: int) -> PreTrainedModel:
    """Returns the model with random weights, always the same ones for a seed."""
    draw: Callable[..., PreTrainedModel] = _auto_class(config).from_config
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = draw(
            config, dtype=dtype, attn_implementation=_attention(model), trust_remote_code=model.trust_remote_code
        )
        return _with_own_head(drawn)


def _quantized(quantization: Quantization, *, empty: PreTrainedModel, dtype: torch.dtype) -> dict[str, object]:
    """Returns how linear layers are quantized, on the CPU: the Trainer moves the model to where it computes."""
    chosen = quantization_config(quantization, empty=empty, dtype=dtype)
    return {"quantization_config": chosen, "device_map": {"": "cpu"}}


def lr_scale(model: Model, *, parameters: int) -> float:
    """Returns what multiplies a method's learning rate: smaller models take larger steps (docs/decisions/0004)."""
    if model.lr_scale != "auto":
        return float(model.lr_scale)
    return max(1.0, math.sqrt(100e6 / parameters))


def _with_own_head(model: PreTrainedModel) -> PreTrainedModel:
    """Returns a fresh T5 1.1 or FLAN-T5 with a head apart from its embeddings, as their checkpoints have it.

    transformers ties the two whatever the config says, and unties them only when it reads two that differ.
    """
    head = model.get_output_embeddings()
    if getattr(model.config, "scale_decoder_outputs", True) or head is None:
        return model
    drawn = torch.empty_like(head.get_parameter("weight")).normal_(std=model.config.hidden_size**-0.5)
    head.register_parameter("weight", nn.Parameter(drawn))
    model.all_tied_weights_keys.pop("lm_head.weight", None)
    return model


def _auto_class(config: PretrainedConfig) -> type[AutoModelForCausalLM] | type[AutoModelForSeq2SeqLM]:
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _attention(model: Model) -> str | None:
    return None if model.attention == "auto" else model.attention


def _place(model: Model) -> str:
    folder = Path(model.path).expanduser()
    return str(folder) if folder.is_dir() else model.path


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
