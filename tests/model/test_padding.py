"""Padding before a row: who tells it from text, and who is refused since it does not."""

import inspect
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from tiny_models import BOS, EOS, PAD, VOCAB, model_at, prompt_of, rows_for, word_tokenizer
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BloomConfig,
    DeepseekV4Config,
    FalconH1Config,
    FalconMambaConfig,
    JambaConfig,
    Lfm2Config,
    Mamba2Config,
    MambaConfig,
    MptConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3NextConfig,
    RecurrentGemmaConfig,
    RoFormerConfig,
    RwkvConfig,
    Zamba2Config,
    xLSTMConfig,
)

from forgetmenot.cli.checks import check_padding
from forgetmenot.data.collate import Collator
from forgetmenot.data.types import Encoded
from forgetmenot.generate import answer
from forgetmenot.loss import row_losses
from forgetmenot.model.facts import read_facts

_SPECIAL = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}
_SIZES = {**_SPECIAL, "hidden_size": 16, "num_hidden_layers": 2}

TELL = {
    "bloom": BloomConfig(**_SPECIAL, hidden_size=16, n_layer=2, n_head=2),
    "mpt": MptConfig(**_SPECIAL, d_model=16, n_layers=2, n_heads=2),
    "mamba": MambaConfig(**_SIZES, state_size=4, time_step_rank=4),
    "mamba2": Mamba2Config(**_SIZES, state_size=4, num_heads=4, head_dim=8, n_groups=1, chunk_size=4),
    "falcon_mamba": FalconMambaConfig(**_SIZES, state_size=4, time_step_rank=4),
    "falcon_h1": FalconH1Config(
        **_SIZES, **_HEADS, intermediate_size=24, head_dim=8, mamba_d_ssm=16, mamba_n_heads=2, mamba_d_head=8,
        mamba_n_groups=1, mamba_d_state=4, mamba_chunk_size=4,
    ),
    "jamba": JambaConfig(
        **_SIZES, **_HEADS, intermediate_size=24, mamba_d_state=4, mamba_dt_rank=4, attn_layer_period=2,
        attn_layer_offset=1, num_experts=1, num_experts_per_tok=1, use_mamba_kernels=False,
    ),
    "lfm2": Lfm2Config(**_SIZES, **_HEADS, intermediate_size=24, layer_types=["conv", "full_attention"]),
    "qwen3_next": Qwen3NextConfig(
        **_SIZES, **_HEADS, intermediate_size=24, head_dim=8, linear_num_value_heads=2, linear_num_key_heads=2,
        linear_key_head_dim=8, linear_value_head_dim=8, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8,
        shared_expert_intermediate_size=8, layer_types=["linear_attention", "full_attention"],
    ),
    "zamba2": Zamba2Config(
        **_SIZES, **_HEADS, intermediate_size=24, mamba_d_state=4, n_mamba_heads=4, mamba_ngroups=1, chunk_size=4,
        layers_block_type=["mamba", "hybrid"], num_mem_blocks=1, adapter_rank=4,
    ),
}  # fmt: skip

DO_NOT = {
    "rwkv": RwkvConfig(**_SIZES, attention_hidden_size=16, context_length=64),
    "recurrent_gemma": RecurrentGemmaConfig(
        **{**_SIZES, **_HEADS, "num_hidden_layers": 3}, intermediate_size=24, lru_width=16, attention_window_size=64
    ),
    "roformer": RoFormerConfig(
        **_SIZES, embedding_size=16, intermediate_size=24, num_attention_heads=2, is_decoder=True
    ),
    "deepseek_v4": DeepseekV4Config(
        **_SIZES, num_attention_heads=2, num_key_value_heads=1, head_dim=8, q_lora_rank=8, o_lora_rank=8, o_groups=1,
        index_n_heads=2, index_head_dim=8, moe_intermediate_size=8, n_routed_experts=2, num_experts_per_tok=1,
        layer_types=["compressed_sparse_attention", "heavily_compressed_attention"], mlp_layer_types=["moe", "moe"],
        compress_rates={"compressed_sparse_attention": 4, "heavily_compressed_attention": 4}, partial_rotary_factor=0.5,
    ),
    "bart": BartConfig(
        **_SPECIAL, is_encoder_decoder=False, is_decoder=True, d_model=16, decoder_layers=2, decoder_ffn_dim=24,
        decoder_attention_heads=2, max_position_embeddings=64, forced_eos_token_id=None,
    ),
}  # fmt: skip

XLSTM = xLSTMConfig(**_SIZES, num_heads=2)  # transformers cannot run one so small; it takes no mask


def drawn(config: PretrainedConfig) -> PreTrainedModel:
    """Returns a model whose every weight matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(type(config).from_dict(config.to_dict()), dtype=torch.float32).eval()
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3)
    return model


def moved_by_padding(model: PreTrainedModel) -> float:
    """Returns how far the logits of a row move, at most, where padding stands before it in a batch of two."""
    draw = torch.Generator().manual_seed(0)
    long_1T, short_1T = (torch.randint(4, VOCAB, (1, length), generator=draw) for length in (12, 7))
    padding_1P = torch.full((1, 5), PAD)
    mask_BT = torch.ones(2, 12, dtype=torch.long)
    mask_BT[1, :5] = 0
    takes = "position_ids" in inspect.signature(model.forward).parameters
    positions = {"position_ids": (mask_BT.cumsum(1) - 1).clamp(min=0)} if takes else {}
    with torch.no_grad():
        alone = model(input_ids=short_1T, attention_mask=torch.ones_like(short_1T), use_cache=False).logits[0]
        rows_BT = torch.cat([long_1T, torch.cat([padding_1P, short_1T], dim=1)])
        batched = model(input_ids=rows_BT, attention_mask=mask_BT, use_cache=False, **positions).logits[1, 5:]
    return float((alone - batched).abs().max() / alone.abs().max())


def slow_but(few: tuple[str, ...], families: Iterable[str]) -> list[ParameterSet]:
    """Returns families as parameters, of which only a few are tried in the fast suite."""
    return [pytest.param(name, marks=() if name in few else pytest.mark.slow) for name in families]


@pytest.mark.parametrize("family", slow_but(("mamba", "rwkv", "recurrent_gemma", "bart"), [*TELL, *DO_NOT]))
def test_what_an_empty_copy_tells_of_padding_is_what_numbers_show(family: str) -> None:
    config = {**TELL, **DO_NOT}[family]
    assert read_facts(model_at("nowhere"), config).tells_padding == (family in TELL)
    assert (moved_by_padding(drawn(config)) < 1e-4) == (family in TELL)


@pytest.mark.parametrize("family", slow_but(("mamba",), ["mamba", "mamba2", "falcon_mamba"]))
def test_a_state_space_model_scores_and_answers_in_a_batch_as_it_does_alone(family: str) -> None:
    model, facts = drawn(TELL[family]), read_facts(model_at("nowhere"), TELL[family])
    rows = rows_for(model, [(3, 2), (9, 4), (5, 3), (12, 2)])
    prompts = [prompt_of(row) for row in rows]
    collator = Collator(
        pad_id=PAD, num_virtual_tokens=0, first_virtual_id=VOCAB, decoder_start_id=None, max_length=64
    ).to_score()

    def losses(rows: list[Encoded]) -> list[float]:
        return row_losses(model, collator.rows(rows), facts).tolist()

    def said(prompts: list[np.ndarray]) -> list[str]:
        return answer(model, collator.prompts(prompts), facts=facts, tokenizer=word_tokenizer(), max_new_tokens=6)

    assert losses(rows) == pytest.approx([loss for row in rows for loss in losses([row])], rel=1e-5)
    assert said(prompts) == [text for prompt in prompts for text in said([prompt])]


@pytest.mark.parametrize("family", ["rwkv", "recurrent_gemma", "xlstm"])
def test_who_reads_padding_as_text_is_refused_with_what_to_use_instead(family: str, tmp_path: Path) -> None:
    model, config = model_at(tmp_path), {**DO_NOT, "xlstm": XLSTM}[family]
    with pytest.raises(ValueError) as error:
        check_padding(read_facts(model, config), model=model, config=config)
    sentence = str(error.value)
    assert sentence.startswith(f"model.path must be a model that tells padding from text, got {tmp_path} ({family})")
    assert "mamba" in sentence
