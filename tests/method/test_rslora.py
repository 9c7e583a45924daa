"""rsLoRA: LoRA in all but the scale of its update."""

import pytest
import torch
from method_contract import MethodContract, trained

from forgetmenot.method.lora import Lora


class TestRsLora(MethodContract):
    """rsLoRA keeps the contract; its code is LoRA's, so that most of it is tried among slow tests."""

    families = (pytest.param("llama", marks=pytest.mark.slow), pytest.param("t5", marks=pytest.mark.slow))

    def method(self) -> Lora:
        return Lora(
            name="rslora", lr=1e-3, rank=4, alpha=4, dropout=0.0, target_modules=("all-linear",), rank_stabilized=True
        )

    def learns(self, name: str) -> bool:
        return ".lora_A." in name or ".lora_B." in name

    def test_an_update_is_alpha_over_the_root_of_rank_times_b_times_a(self) -> None:
        layer = trained(self.method(), "llama").base_model.model.model.layers[0].self_attn.q_proj
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        hidden = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))

        expected = hidden @ (layer.base_layer.weight + 4 / 2 * b @ a).T

        torch.testing.assert_close(layer(hidden), expected, rtol=1e-5, atol=1e-5)
