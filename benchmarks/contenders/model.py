"""The model that every contender of transformers trains: a Llama of the workload's shape, with random weights."""

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from benchmarks.workload import SHAPES, Workload


def config(shape: str) -> LlamaConfig:
    """Returns the configuration of a shape."""
    size = SHAPES[shape]
    return LlamaConfig(
        hidden_size=size["hidden"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["key_heads"],
        intermediate_size=size["mlp"],
        vocab_size=size["vocabulary"],
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )


def base(work: Workload, *, dtype: torch.dtype, attention: str | None = None) -> PreTrainedModel:
    """Returns the shape's model with random weights, the same for every contender."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(work.shape), dtype=dtype, attn_implementation=attention)
