"""Full fine-tuning: the contract of a method, and that it saves the whole model."""

from pathlib import Path

import torch
from method_contract import MethodContract, trained
from tiny_models import tiny
from transformers import AutoModelForCausalLM

from forgetmenot.method.full import Full


class TestFull(MethodContract):
    """Full fine-tuning keeps the contract."""

    def method(self) -> Full:
        return Full(name="full", lr=1e-3)

    def learns(self, name: str) -> bool:
        return True

    def test_it_trains_a_base_that_came_frozen(self) -> None:
        model = self.method().apply(tiny("llama").requires_grad_(False))

        assert all(p.requires_grad for p in model.parameters())

    def test_every_saved_weight_loads_bit_for_bit(self, tmp_path: Path) -> None:
        model = trained(self.method(), "gpt2")
        self.method().save(model, tmp_path)

        loaded = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()

        assert all(torch.equal(loaded[name], weight) for name, weight in model.state_dict().items())

    def test_it_saves_under_model_since_the_base_itself_changed(self) -> None:
        assert (self.method().folder, self.method().freezes_base) == ("model", False)
