"""Tuning of norms: the contract of a method, and that every family's norms are found."""

import pytest
from method_contract import MethodContract, adapted
from tiny_models import CONFIGS, tiny
from torch import nn

from forgetmenot.method.layer_norm import LayerNorm

NORM_WORDS = ("norm", "ln_")  # how families name their norms


class TestLayerNorm(MethodContract):
    """Tuning of norms keeps the contract."""

    def method(self) -> LayerNorm:
        return LayerNorm(name="layer_norm", lr=1e-3)

    def learns(self, name: str) -> bool:
        return any(word in name for word in NORM_WORDS)

    @pytest.mark.parametrize("any_family", sorted(CONFIGS))
    def test_it_learns_what_is_called_a_norm_and_nothing_else(self, any_family: str) -> None:
        model = adapted(self.method(), any_family)

        learned = {name for name, p in model.named_parameters() if p.requires_grad}

        assert learned == {name for name, _ in model.named_parameters() if self.learns(name)}

    def test_a_model_whose_norms_have_no_weights_is_refused(self) -> None:
        model = tiny("llama")
        for block in model.model.layers:
            block.input_layernorm = block.post_attention_layernorm = nn.RMSNorm(16, elementwise_affine=False)
        model.model.norm = nn.RMSNorm(16, elementwise_affine=False)

        with pytest.raises(ValueError, match=r"^method must be .* \(llama\), got layer_norm; method=lora trains few"):
            self.method().apply(model)
