"""LoRA: the contract of a method, its size as worked out by hand, and its refusals."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from method_contract import MethodContract, adapted, trained
from safetensors.torch import load_file, save_file
from tiny_models import tiny
from transformers import PreTrainedModel

from forgetmenot.method.lora import Lora


def trainable(model: PreTrainedModel) -> int:
    """Returns how many values are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class TestLora(MethodContract):
    """LoRA keeps the contract."""

    def method(self) -> Lora:
        return Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",))

    def learns(self, name: str) -> bool:
        return ".lora_A." in name or ".lora_B." in name

    @pytest.mark.parametrize("rank", [1, 3])
    def test_all_linear_trains_rank_times_inputs_plus_outputs_of_every_layer_but_the_head(self, rank: int) -> None:
        hidden, inner, key_value, layers = 16, 24, 8, 2
        attention = (hidden + hidden) + 2 * (hidden + key_value) + (hidden + hidden)
        feed_forward = 3 * (hidden + inner)

        model = adapted(replace(self.method(), rank=rank), "llama")

        assert trainable(model) == layers * rank * (attention + feed_forward)

    def test_named_target_modules_train_those_layers_alone(self) -> None:
        model = adapted(replace(self.method(), target_modules=("q_proj", "v_proj")), "llama")

        assert trainable(model) == 2 * 2 * ((16 + 16) + (16 + 8))
        assert all(".q_proj." in n or ".v_proj." in n for n, p in model.named_parameters() if p.requires_grad)

    def test_an_update_is_alpha_over_rank_times_b_times_a(self) -> None:
        method = self.method()
        layer = trained(method, "llama").base_model.model.model.layers[0].self_attn.q_proj
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        hidden = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))

        expected = hidden @ (layer.base_layer.weight + method.alpha / method.rank * b @ a).T

        torch.testing.assert_close(layer(hidden), expected, rtol=1e-5, atol=1e-5)

    def test_a_layer_that_is_not_there_is_refused_in_one_sentence_that_names_the_key(self) -> None:
        method = replace(self.method(), target_modules=("no_such_layer",))

        with pytest.raises(ValueError, match=r"^method\.target_modules must .*no_such_layer") as error:
            method.apply(tiny("llama"))

        assert "\n" not in str(error.value)

    def test_one_wrong_layer_among_right_ones_is_refused_too(self) -> None:
        method = replace(self.method(), target_modules=("q_proj", "v_porj"))

        with pytest.raises(ValueError, match=r"^method\.target_modules must .*v_porj"):
            method.apply(tiny("llama"))

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("rank", 0, "rank must be at least 1, got 0"),
            ("rank", -2, "rank must be at least 1, got -2"),
            ("alpha", 0.0, "alpha must be above 0, got 0.0"),
            ("dropout", 1.0, "dropout must be at least 0 and below 1, got 1.0"),
            ("dropout", -0.1, "dropout must be at least 0 and below 1, got -0.1"),
            ("target_modules", (), "target_modules must be [all-linear] or names of layers, got none"),
            ("alpha", math.nan, "alpha must be above 0, got nan"),
            ("lr", math.nan, "lr must be above 0, got nan"),
        ],
    )
    def test_values_out_of_range_are_refused_by_rule_and_value(self, field: str, value: object, message: str) -> None:
        with pytest.raises(ValueError) as error:
            replace(self.method(), **{field: value})

        assert str(error.value) == message


def test_a_head_that_is_the_embedding_too_is_refused_since_reading_would_change_with_it() -> None:
    method = Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("q_proj", "lm_head"))

    with pytest.raises(ValueError, match=r"^method\.target_modules must .* got lm_head, whose weight is that of"):
        method.apply(tiny("gemma"))


def test_an_adapter_file_without_some_of_its_weights_is_refused(tmp_path: Path) -> None:
    method = Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("q_proj",))
    method.save(trained(method, "llama"), tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    weights.pop(next(name for name in weights if "lora_B" in name))
    save_file(weights, tmp_path / "adapter_model.safetensors")

    with pytest.raises(ValueError, match="must hold an adapter of this method and model, got no weights for"):
        method.load(tiny("llama"), tmp_path)


class TestExperts:
    """Of a mixture of experts, peft adapts a weight of three axes."""

    LORA = Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",))

    def test_its_change_is_that_of_all_experts(self) -> None:
        model = self.LORA.apply(tiny("mixtral"))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    parameter.normal_()
        base, merged = tiny("mixtral"), self.LORA.merge(copy.deepcopy(model))
        before, after = dict(base.named_parameters()), dict(merged.named_parameters())
        square = sum(float((after[name] - before[name]).double().square().sum()) for name in before)
        assert math.isclose(self.LORA.change(model, base), math.sqrt(square), rel_tol=1e-4)

    @pytest.mark.parametrize("settings", [{"decomposed": True, "name": "dora"}, {"dropout": 0.1}])
    def test_what_peft_does_not_have_for_them_is_refused_with_what_to_use_instead(
        self, settings: dict[str, object]
    ) -> None:
        with pytest.raises(ValueError, match=r"^method must be .* mixtral, got .*; method\.target_modules can"):
            replace(self.LORA, **settings).apply(tiny("mixtral"))

    def test_principal_values_of_them_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^method\.start must be zero .* got pissa for mixtral; method=lora"):
            replace(self.LORA, start="pissa").apply(tiny("mixtral"))
