"""QLoRA: the contract of a method over a base in 4 bits, and that only the adapter is written."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from method_contract import LENGTHS, MethodContract, adapted, base_of, own_collator, trained
from safetensors.torch import load_file
from tiny_models import facts_of, rows_for, tiny

from forgetmenot.loss import loss_sum
from forgetmenot.method.lora import Lora

pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")


class TestQlora(MethodContract):
    """QLoRA keeps the contract."""

    families = ("llama", *(pytest.param(family, marks=pytest.mark.slow) for family in ("t5", "gpt2", "gemma")))

    def method(self) -> Lora:
        return Lora(name="qlora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",), quantize="nf4")

    def learns(self, name: str) -> bool:
        return ".lora_A." in name or ".lora_B." in name

    def test_the_adapter_alone_is_written(self, tmp_path: Path) -> None:
        self.method().save(trained(self.method(), "llama"), tmp_path)

        assert all(".lora_" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
        assert not list(tmp_path.glob("model*"))

    def test_layers_below_still_learn_after_an_evaluation(self) -> None:
        model = adapted(self.method(), "llama")
        rows = own_collator(self.method(), "llama").rows(rows_for(model, LENGTHS))
        gradients = []

        for _ in range(2):
            model.zero_grad()
            loss_sum(model.train(), rows, facts_of(tiny("llama"))).backward()
            gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
            with torch.no_grad():
                loss_sum(model.eval(), rows, facts_of(tiny("llama")))

        assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))

    def test_its_rank_is_held_against_layers_and_not_against_packed_weights(self) -> None:
        with pytest.raises(ValueError, match=r"^method\.rank must be at most 64, .*, got 65$"):
            replace(self.method(), rank=65).apply(base_of(self.method(), "llama"))
