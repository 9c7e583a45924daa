"""BitFit: the contract of a method with families that have biases, and its refusal of those that have none."""

import pytest
from method_contract import MethodContract, adapted
from tiny_models import tiny

from forgetmenot.method.bitfit import BitFit


class TestBitFit(MethodContract):
    """BitFit keeps the contract."""

    families = ("gpt2", "bart", pytest.param("qwen2", marks=pytest.mark.slow))

    def method(self) -> BitFit:
        return BitFit(name="bitfit", lr=1e-3)

    def learns(self, name: str) -> bool:
        return name.endswith(".bias")

    def test_of_a_qwen2_the_biases_of_queries_keys_and_values_are_all_that_learns(self) -> None:
        model = adapted(self.method(), "qwen2")

        learned = {name.rpartition("layers.")[2]: p.numel() for name, p in model.named_parameters() if p.requires_grad}

        sizes = {"q_proj": 16, "k_proj": 8, "v_proj": 8}
        assert learned == {f"{i}.self_attn.{name}.bias": size for i in (0, 1) for name, size in sizes.items()}

    def test_t5s_relative_attention_bias_is_a_table_and_no_bias_term(self) -> None:
        with pytest.raises(ValueError, match=r"without them \(t5\)"):
            self.method().apply(tiny("t5"))

    def test_a_model_without_biases_is_refused_with_the_way_out(self) -> None:
        with pytest.raises(ValueError) as error:
            self.method().apply(tiny("llama"))

        assert str(error.value) == (
            "method must be one that needs no bias terms for a model without them (llama), got bitfit; "
            "method=layer_norm trains as few weights"
        )
