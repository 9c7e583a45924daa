"""PiSSA: the contract of a method, its start by hand, and that what it saves is plain LoRA."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from method_contract import LENGTHS, MethodContract, adapted, our_loss, trained
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_models import rows_for, tiny

from forgetmenot.method.lora import Lora


class TestPissa(MethodContract):
    """PiSSA keeps the contract: its start leaves the output as it was up to rounding."""

    def method(self) -> Lora:
        return Lora(name="pissa", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",), start="pissa")

    def learns(self, name: str) -> bool:
        return ".lora_A." in name or ".lora_B." in name

    @pytest.mark.parametrize("any_family", ["llama", "gpt2"])
    def test_it_starts_as_pefts_own(self, any_family: str) -> None:
        config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights="pissa")
        theirs = get_peft_model(tiny(any_family), config).state_dict()

        ours = adapted(self.method(), any_family).state_dict()

        for name, weight in ours.items():
            if ".lora_A." in name:  # the sign of a singular vector is free, and B's is that of A
                other = name.replace(".lora_A.", ".lora_B.")
                torch.testing.assert_close(ours[other] @ weight, theirs[other] @ theirs[name], rtol=1e-4, atol=1e-5)
            elif ".lora_B." not in name:
                torch.testing.assert_close(weight, theirs[name], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("stabilized", [False, True])
    def test_what_it_saves_is_plain_lora_of_twice_the_rank(self, tmp_path: Path, stabilized: bool) -> None:
        method = replace(self.method(), rank_stabilized=stabilized)
        rows = rows_for(tiny("llama"), LENGTHS)
        model = trained(method, "llama")
        method.save(model, tmp_path)

        config = json.loads((tmp_path / "adapter_config.json").read_text())
        plain = PeftModel.from_pretrained(tiny("llama"), tmp_path, low_cpu_mem_usage=True)  # leaves peft no base to cut

        assert (config["init_lora_weights"], config["use_rslora"], config["r"]) == (True, False, 4)
        expected = our_loss(model, method, "llama", rows)
        torch.testing.assert_close(our_loss(plain, method, "llama", rows), expected, rtol=1e-5, atol=1e-5)

    def test_loaded_it_can_be_trained_on_with_the_rank_that_it_had(self, tmp_path: Path) -> None:
        model = trained(self.method(), "llama")
        self.method().save(model, tmp_path)

        loaded = self.method().load(tiny("llama"), tmp_path)

        learned = [{n: p for n, p in each.named_parameters() if p.requires_grad} for each in (model, loaded)]
        assert learned[0].keys() == learned[1].keys()
        assert all(weight.equal(learned[1][name]) for name, weight in learned[0].items())
        assert self.method().change(loaded, tiny("llama")) == self.method().change(model, tiny("llama"))

    def test_a_rank_above_the_narrowest_layer_is_refused(self) -> None:
        method = replace(self.method(), rank=9)  # keys and values have 8

        with pytest.raises(ValueError, match=r"^method\.rank must be at most 8, .* for start=pissa, got 9$"):
            method.apply(tiny("llama"))

    def test_an_adapter_of_other_layers_is_refused(self, tmp_path: Path) -> None:
        replace(self.method(), target_modules=("q_proj",)).save(
            adapted(replace(self.method(), target_modules=("q_proj",)), "llama"), tmp_path
        )

        with pytest.raises(ValueError, match=r"^an adapter must hold weights of all layers .* got none for .*k_proj$"):
            self.method().load(tiny("llama"), tmp_path)

    def test_a_base_in_4_bits_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^quantize must be null with start=pissa, .*, got nf4; method=qlora"):
            replace(self.method(), quantize="nf4")
