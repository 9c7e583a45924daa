"""A base in 4 bits: its values by hand, its size, and what is refused before weights are read."""

import logging
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny_models import WIDE, model_at, quantized, tiny
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import warning_once

from forgetmenot.model.layers import linear_layers
from forgetmenot.model.load import load, read_config
from forgetmenot.model.quantize import check_quantization, dense, dense_weights, dequantized, exact_layers

NF4 = (-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0, 0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626,
       0.7230, 1.0)  # fmt: skip  # appendix E of the paper, to four digits

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra `quantize`")


@needs_bitsandbytes
def test_a_linear_weight_becomes_the_nearest_of_16_values_times_the_largest_of_64() -> None:
    exact, held = tiny("llama", sizes=WIDE["llama"]), quantized("llama", dtype=torch.float32)
    name = "model.layers.0.self_attn.q_proj.weight"
    blocks = exact.get_parameter(name).detach().reshape(-1, 64)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    values = torch.tensor(NF4)

    nearest = values[(blocks[..., None] / scales[..., None] - values).abs().argmin(-1)] * scales

    held_weights = dense(held.get_parameter(name)).detach().reshape(-1, 64)
    close = torch.isclose(held_weights, nearest, rtol=0.02, atol=0)  # scales are held in 8 bits themselves
    assert close.float().mean() > 0.999  # a weight may lie just between two values


@needs_bitsandbytes
def test_embeddings_norms_and_head_stay_as_they_are() -> None:
    exact, held = tiny("llama", sizes=WIDE["llama"]), quantized("llama", dtype=torch.float32)

    kept = {name for name, weight in exact.named_parameters() if weight.shape == held.get_parameter(name).shape}

    linear = {f"{name}.weight" for name, layer in exact.named_modules() if isinstance(layer, nn.Linear)}
    assert kept == {name for name, _ in exact.named_parameters()} - (linear - {"lm_head.weight"})
    assert all(exact.get_parameter(name).equal(held.get_parameter(name)) for name in kept)


@needs_bitsandbytes
def test_dense_weights_have_the_shapes_of_the_exact_ones() -> None:
    exact, held = tiny("llama", sizes=WIDE["llama"]), quantized("llama", dtype=torch.float32)

    assert [weight.shape for weight in dense_weights(held)] == [weight.shape for weight in exact.parameters()]


@needs_bitsandbytes
def test_layers_are_made_plain_without_a_line_of_transformers_and_its_others_are_heard(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = logging.getLogger("transformers.integrations.bitsandbytes")
    monkeypatch.setattr(speaker, "handlers", [caplog.handler])
    monkeypatch.setattr(speaker, "propagate", False)  # else a record would come by two ways
    warning_once.cache_clear()  # else what an earlier test made it say would not be said again
    speaker.warning("before")

    plain = dequantized(quantized("llama", dtype=torch.float32))

    speaker.warning("after")
    assert {weight.dtype for weight in plain.parameters()} == {torch.float32}
    assert [record.getMessage() for record in caplog.records if record.name == speaker.name] == ["before", "after"]
    assert speaker.filters == []


@needs_bitsandbytes
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_4_bits_stand_for_is_a_plain_model_of_the_family_that_answers_alike(family: str) -> None:
    held, ids = quantized(family, dtype=torch.float32), torch.arange(4, 12)[None]
    with torch.no_grad():
        answered = held(input_ids=ids).logits

    plain = dequantized(held)

    exact = tiny(family, sizes=WIDE[family])
    exact.load_state_dict(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(exact(input_ids=ids).logits, answered, rtol=1e-3, atol=1e-4)


@needs_bitsandbytes
def test_a_model_answers_the_same_after_a_pass_that_it_was_evaluated_in() -> None:
    held = quantized("llama", dtype=torch.float32).eval()
    ids = torch.arange(4, 12)[None]

    with torch.no_grad():
        first, second = held(input_ids=ids).logits, held(input_ids=ids).logits

    assert first.equal(second)


@needs_bitsandbytes
@pytest.mark.slow
def test_a_base_of_135_m_shrinks_to_0_43_of_bf16_and_its_quantized_layers_to_0_27(tmp_path: Path) -> None:
    config = LlamaConfig(
        hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536,
        vocab_size=49_152, tie_word_embeddings=True,
    )  # fmt: skip  # SmolLM2-135M's
    exact = LlamaForCausalLM(config).to(torch.bfloat16)
    exact.save_pretrained(tmp_path)
    model = model_at(tmp_path)

    held = load(model, config=read_config(model), dtype=torch.bfloat16, seed=0, quantization="nf4")

    linear = set(linear_layers(exact)) - {"lm_head"}
    layers = [sum(size_of(each.get_submodule(name)) for name in linear) for each in (held, exact)]
    head = size_of(exact.lm_head)  # the embeddings', named twice in a state dict
    assert 0.25 <= layers[0] / layers[1] <= 0.27
    assert 0.25 <= (size_of(held) - head) / (size_of(exact) - head) <= 0.43


def size_of(module: nn.Module) -> int:
    """Returns the bytes of all that a module holds, scales and tables of quantized weights among it."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def test_layers_whose_rows_end_within_a_block_stay_as_they_are() -> None:
    model = tiny("llama", sizes={**WIDE["llama"], "intermediate_size": 96})

    assert set(exact_layers(model)) == {"lm_head", *(f"model.layers.{i}.mlp.down_proj" for i in (0, 1))}


def test_a_model_of_which_no_layer_would_be_quantized_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^method\.quantize must be null for .* no multiple of 64 .*, got nf4; "):
        check_quantization("nf4", empty=tiny("llama"), weights="pretrained")


def test_random_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^method\.quantize must be null .*=random, got nf4: .*; method=lora"):
        check_quantization("nf4", empty=tiny("llama"), weights="random")


def test_without_bitsandbytes_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forgetmenot.model.quantize.find_spec", lambda name: None)

    with pytest.raises(ValueError) as error:
        check_quantization("nf4", empty=tiny("llama"), weights="pretrained")

    assert str(error.value) == (
        "method.quantize must be null where bitsandbytes is not installed, got nf4; "
        "pip install 'forgetmenot-llm[quantize]' brings it"
    )
    check_quantization(None, empty=tiny("llama"), weights="random")
