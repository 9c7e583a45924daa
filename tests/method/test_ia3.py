"""IA3: the contract of a method, its factors by hand, and its refusals."""

from dataclasses import replace

import pytest
import torch
from method_contract import MethodContract, adapted, trained
from tiny_models import tiny

from forgetmenot.method.ia3 import IA3


class TestIA3(MethodContract):
    """IA3 keeps the contract."""

    def method(self) -> IA3:
        return IA3(name="ia3", lr=1e-3, target_modules=("auto",), feedforward_modules=("auto",))

    def learns(self, name: str) -> bool:
        return ".ia3_l." in name

    def test_it_trains_a_factor_for_each_key_value_and_inner_activation(self) -> None:
        model = adapted(self.method(), "llama")

        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * (8 + 8 + 24)

    def test_keys_are_scaled_by_output_and_the_feed_forward_layer_by_input(self) -> None:
        block = trained(self.method(), "llama").base_model.model.model.layers[0]
        hidden, inner = torch.ones(3, 16), torch.ones(3, 24)

        for layer, given in ((block.self_attn.k_proj, hidden), (block.mlp.down_proj, inner)):
            factors, weight = layer.ia3_l["default"], layer.base_layer.weight
            torch.testing.assert_close(layer(given), given @ (factors * weight).T)  # (8, 1) and (1, 24)

    def test_a_change_counts_the_biases_that_are_scaled(self) -> None:
        model = adapted(replace(self.method(), target_modules=("c_attn",), feedforward_modules=()), "gpt2")
        layers = [block.attn.c_attn for block in model.get_base_model().transformer.h]
        with torch.no_grad():
            for layer in layers:
                layer.base_layer.bias.fill_(1.0)
                layer.ia3_l["default"].fill_(3.0)

        squares = sum(4 * (float(layer.base_layer.weight.square().sum()) + 48) for layer in layers)

        assert self.method().change(model, tiny("gpt2")) == pytest.approx(squares**0.5)

    def test_a_family_that_peft_has_none_for_is_told_what_to_set(self) -> None:
        model = tiny("llama")
        model.config.model_type = "of_tomorrow"

        with pytest.raises(ValueError) as error:
            self.method().apply(model)

        assert str(error.value) == (
            "method.target_modules and method.feedforward_modules must be names of linear layers (down_proj, "
            "gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj) for a model that peft has none for "
            "(of_tomorrow), got auto"
        )
        given = replace(self.method(), target_modules=("v_proj", "down_proj"), feedforward_modules=("down_proj",))
        assert sum(p.numel() for p in given.apply(model).parameters() if p.requires_grad) == 2 * (8 + 24)

    def test_of_experts_it_says_why_not_and_learns_beside_them_where_told_so(self) -> None:
        with pytest.raises(ValueError) as error:
            self.method().apply(tiny("mixtral"))

        assert str(error.value) == (
            "method.target_modules and method.feedforward_modules must be names of linear layers (k_proj, lm_head, "
            "o_proj, q_proj, v_proj) for mixtral, whose experts share weights of three axes, which ia3 cannot scale, "
            "got auto, which peft takes for w2; target_modules=[k_proj,v_proj] with feedforward_modules=[] leaves the "
            "experts as they are, and method=lora adapts them"
        )
        advised = replace(self.method(), target_modules=("k_proj", "v_proj"), feedforward_modules=())
        assert sum(p.numel() for p in advised.apply(tiny("mixtral")).parameters() if p.requires_grad) == 2 * (8 + 8)

    @pytest.mark.parametrize("key", ["target_modules", "feedforward_modules"])
    def test_a_layer_that_is_not_there_is_refused_by_key(self, key: str) -> None:
        with pytest.raises(ValueError, match=rf"^method\.{key} must be \[auto\] or names of .*, got no_such_layer$"):
            replace(self.method(), **{key: ("no_such_layer",)}).apply(tiny("llama"))

    def test_a_feed_forward_layer_that_is_no_target_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^feedforward_modules must be .* some of target_modules, got up_proj$"):
            replace(self.method(), target_modules=("k_proj",), feedforward_modules=("up_proj",))
        with pytest.raises(
            ValueError, match=r"^method\.feedforward_modules must be some .* \(k_proj\), got down_proj$"
        ):
            replace(self.method(), target_modules=("k_proj",)).apply(tiny("llama"))

    def test_no_layer_at_all_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^target_modules must be \[auto\] or names of layers, got none$"):
            replace(self.method(), target_modules=())
