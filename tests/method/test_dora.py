"""DoRA: the contract of a method, its rows' norms by hand, and what it cannot be combined with."""

from dataclasses import replace

import pytest
import torch
from method_contract import MethodContract, adapted, trained
from tiny_models import tiny

from forgetmenot.method.lora import Lora


class TestDora(MethodContract):
    """DoRA keeps the contract."""

    def method(self) -> Lora:
        return Lora(name="dora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",), decomposed=True)

    def learns(self, name: str) -> bool:
        return ".lora_" in name

    def test_each_row_has_the_learned_norm_and_the_direction_of_the_sum(self) -> None:
        layer = trained(self.method(), "llama").base_model.model.model.layers[0].self_attn.q_proj
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        hidden = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
        summed = layer.base_layer.weight + 2 * b @ a

        expected = (
            hidden @ (layer.lora_magnitude_vector["default"].weight[:, None] * summed / summed.norm(dim=1)[:, None]).T
        )

        torch.testing.assert_close(layer(hidden), expected, rtol=1e-5, atol=1e-5)

    def test_it_starts_as_the_base_also_over_a_base_in_bf16(self) -> None:
        base = tiny("llama").to(torch.bfloat16)
        weights = {name: weight.float() for name, weight in base.named_parameters()}

        model = self.method().apply(base)

        for name, layer in model.get_base_model().named_modules():
            if hasattr(layer, "lora_magnitude_vector"):
                norms = weights[f"{name}.weight"].norm(dim=1)
                torch.testing.assert_close(layer.lora_magnitude_vector["default"].weight, norms, rtol=1e-6, atol=0)

    def test_it_trains_one_value_more_for_each_output_than_lora(self) -> None:
        models = (adapted(self.method(), "llama"), adapted(replace(self.method(), decomposed=False), "llama"))
        dora, lora = (sum(p.numel() for p in model.parameters() if p.requires_grad) for model in models)

        assert dora - lora == 2 * (16 + 8 + 8 + 16 + 24 + 24 + 16)  # of two blocks, each of seven layers

    def test_a_start_that_changes_the_base_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^start must be zero with decomposed=true, got pissa$"):
            replace(self.method(), start="pissa")

    def test_a_base_in_4_bits_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^quantize must be null with decomposed=true, .*, got nf4; method=qlora"):
            replace(self.method(), quantize="nf4")
