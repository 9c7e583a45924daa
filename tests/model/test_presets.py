"""Every preset of conf/model, built small: it takes a step, is scored, and answers as transformers does."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import yaml
from tiny_models import CONFIGS, EOS, PAD, collator_of, facts_of, model_at, prompt_of, rows_for, word_tokenizer
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, T5Config

from forgetmenot.config.paths import conf_folder
from forgetmenot.generate import answer
from forgetmenot.loss import loss_sum
from forgetmenot.method.base import Method
from forgetmenot.method.full import Full
from forgetmenot.method.lora import Lora
from forgetmenot.model.facts import read_facts
from forgetmenot.model.load import load, read_config
from forgetmenot.model.packing import use_packed_attention

OPEN = {"causal", "seq2seq", "tiny"}
"""The files of conf/model that name no published model."""

PRESETS = {
    "smollm2_135m": "llama, tied",
    "smollm2_135m_instruct": "llama, tied",
    "smollm2_1.7b": "llama, tied",
    "smollm2_1.7b_instruct": "llama, tied",
    "qwen2.5_0.5b": "qwen2, tied",
    "qwen2.5_0.5b_instruct": "qwen2, tied",
    "qwen3_0.6b": "qwen3, tied",
    "qwen3_0.6b_base": "qwen3, tied",
    "qwen3_8b": "qwen3",
    "qwen3_8b_base": "qwen3",
    "llama3.2_1b": "llama 3, tied",
    "llama3.2_1b_instruct": "llama 3, tied",
    "llama3.1_8b": "llama 3",
    "llama3.1_8b_instruct": "llama 3",
    "gemma2_2b": "gemma2",
    "gemma2_2b_it": "gemma2",
    "gemma3_270m": "gemma3",
    "gemma3_270m_it": "gemma3",
    "gemma3_1b": "gemma3",
    "gemma3_1b_it": "gemma3",
    "flan_t5_small": "t5, head of its own",
    "flan_t5_base": "t5, head of its own",
    "flan_t5_large": "t5, head of its own",
    "flan_t5_xl": "t5, head of its own",
}
"""Which architecture each has: a preset without one fails a test."""

_STRETCHED = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip

ARCHITECTURES: Mapping[str, tuple[str, str, dict[str, object]]] = {
    "llama, tied": ("llama", "llama", {"tie_word_embeddings": True}),
    "llama 3, tied": ("llama", "llama", {"tie_word_embeddings": True, "rope_parameters": _STRETCHED}),
    "llama 3": ("llama", "llama", {"tie_word_embeddings": False, "rope_parameters": _STRETCHED}),
    "qwen2, tied": ("qwen2", "qwen2", {"tie_word_embeddings": True}),
    "qwen3, tied": ("qwen3", "qwen3", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", "qwen3", {"tie_word_embeddings": False}),
    "gemma2": ("gemma2", "gemma2", {}),
    "gemma3": ("gemma3", "gemma3_text", {"layer_types": ["sliding_attention", "full_attention"]}),
    "t5, head of its own": ("t5", "t5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
}
"""Each one's tiny config, the model_type that its checkpoints have, and in what it differs from that config."""

METHODS: dict[str, Method] = {
    "full": Full(name="full", lr=1e-3),
    "lora": Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",)),
}
LENGTHS = [(7, 3), (3, 4), (12, 2)]


def config_of(architecture: str) -> PretrainedConfig:
    family, _, changes = ARCHITECTURES[architecture]
    return type(CONFIGS[family]).from_dict({**CONFIGS[family].to_dict(), **changes})


def small(architecture: str, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Returns the model with random weights, as a run draws them."""
    drawn = load(model_at("nowhere", weights="random"), config=config_of(architecture), dtype=dtype, seed=0)
    return drawn.eval()


def test_every_preset_has_an_architecture_here() -> None:
    assert set(PRESETS) == {file.stem for file in (conf_folder() / "model").glob("*.yaml")} - OPEN
    assert set(PRESETS.values()) == set(ARCHITECTURES)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_a_hub_id_laid_over_its_kind(preset: str) -> None:
    values = yaml.safe_load((conf_folder() / "model" / f"{preset}.yaml").read_text())
    kind = "seq2seq" if config_of(PRESETS[preset]).is_encoder_decoder else "causal"
    assert values["defaults"] == [kind, "_self_"]
    assert values["path"].count("/") == 1
    size = preset.split("_")[2 if preset.startswith("flan") else 1]
    assert size in values["path"].lower()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_its_facts_are_known(architecture: str) -> None:
    facts, model = read_facts(model_at("nowhere"), config_of(architecture)), small(architecture)
    causal = not architecture.startswith("t5")
    assert model.config.model_type == ARCHITECTURES[architecture][1]
    assert facts.parameters == model.num_parameters()
    assert facts.selects_head
    assert facts.packs == facts.keeps_keys_and_values == causal
    assert facts.shares_prefix == (causal and not architecture.startswith("gemma"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_takes_a_step_that_lowers_its_loss(architecture: str, method: str) -> None:
    base = small(architecture)
    facts, rows = facts_of(base), rows_for(base, LENGTHS)
    batch = collator_of(base, packs=facts.packs).rows(rows)
    model = METHODS[method].apply(base)
    if facts.packs:
        use_packed_attention(model)
    learned = [p for p in model.parameters() if p.requires_grad]

    before = loss_sum(model, batch, facts)
    before.backward()
    torch.optim.Adam(learned, lr=1e-3).step()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned)
    assert loss_sum(model, batch, facts) < before


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_scored_and_answers_as_transformers_does(architecture: str) -> None:
    model = small(architecture)
    rows = rows_for(model, LENGTHS)
    prompts = [prompt_of(row) for row in rows]
    collator, facts = collator_of(model), facts_of(model)
    greedy = GenerationConfig(
        do_sample=False, max_new_tokens=6, eos_token_id=EOS, pad_token_id=PAD, decoder_start_token_id=PAD
    )

    with torch.no_grad():
        ours = loss_sum(model, collator.rows(rows), facts)
        theirs = sum(_plain_loss(model, row.input_ids, row.labels) * row.num_supervised for row in rows)
    said = answer(model, collator.prompts(prompts), facts=facts, tokenizer=word_tokenizer(), max_new_tokens=6)

    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for prompt, text in zip(prompts, said, strict=True):
        ids = torch.from_numpy(prompt).long()[None]
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=greedy)[0]
        new = output[1:] if facts.is_encoder_decoder else output[len(prompt) :]
        assert text == word_tokenizer().decode(new, skip_special_tokens=True)


def _plain_loss(model: PreTrainedModel, input_ids: object, labels: object) -> torch.Tensor:
    ids, wanted = (torch.as_tensor(array).long()[None] for array in (input_ids, labels))
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=wanted).loss


@pytest.mark.parametrize("method", METHODS)
def test_a_t5_with_gated_layers_stays_finite_in_bf16(method: str) -> None:
    base = small("t5, head of its own", dtype=torch.bfloat16 if METHODS[method].freezes_base else torch.float32)
    facts, batch = facts_of(base), collator_of(base).rows(rows_for(base, LENGTHS))
    model = METHODS[method].apply(base)
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=1e-2)
    losses = []

    for _ in range(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_sum(model, batch, facts)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert all(p.isfinite().all() for p in learned)
    assert losses[-1] < losses[0]


def test_flan_t5_small_counts_the_parameters_of_its_checkpoint_with_a_head_of_its_own() -> None:
    published = T5Config(
        vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=6, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False, decoder_start_token_id=0,
    )  # fmt: skip

    assert read_facts(model_at("nowhere"), published).parameters == 76_961_152


def test_random_weights_of_a_t5_with_a_head_of_its_own_are_saved_and_read_as_they_are(tmp_path: Path) -> None:
    config = T5Config.from_dict({**CONFIGS["t5"].to_dict(), "scale_decoder_outputs": False})
    drawn = load(model_at(tmp_path, weights="random"), config=config, dtype=torch.float32, seed=0)
    drawn.save_pretrained(tmp_path)

    again = load(model_at(tmp_path), config=read_config(model_at(tmp_path)), dtype=torch.float32, seed=0)

    assert not torch.equal(drawn.lm_head.weight, drawn.shared.weight)
    assert again.state_dict().keys() == drawn.state_dict().keys()
    assert all(torch.equal(weight, drawn.state_dict()[name]) for name, weight in again.state_dict().items())
    assert read_facts(model_at(tmp_path), read_config(model_at(tmp_path))).parameters == again.num_parameters()
