"""P-tuning: the contract of a method, and virtual tokens that a network makes and that are saved without it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from method_contract import FAMILIES, MethodContract, adapted, own_collator, trained
from peft import PeftModel, PromptEncoderConfig, TaskType, get_peft_model
from safetensors.torch import load_file
from tiny_models import rows_for, tiny

from forgetmenot.method.p_tuning import PTuning


class TestPTuning(MethodContract):
    """P-tuning keeps the contract."""

    starts_as_the_base = False

    def method(self) -> PTuning:
        return PTuning(name="p_tuning", lr=1e-3, num_virtual_tokens=5, hidden_size=12)

    def learns(self, name: str) -> bool:
        return ".prompt." in name

    @pytest.mark.parametrize("family", ["llama", "gpt2", "gemma"])
    def test_logits_equal_those_of_peft_before_and_after_it_is_saved(self, family: str, tmp_path: Path) -> None:
        model = trained(self.method(), family)
        self.method().save(model, tmp_path)
        (row,) = rows_for(model, [(6, 4)])
        batch = own_collator(self.method(), family).rows([row])
        ids = torch.from_numpy(row.input_ids).long()[None]
        training = get_peft_model(tiny(family), PromptEncoderConfig(**_SETTINGS))
        training.prompt_encoder["default"].load_state_dict(model.get_input_embeddings().prompt.state_dict())

        with torch.no_grad():
            ours = model(batch.input_ids_BT, attention_mask=batch.attention_mask_BT, position_ids=batch.position_ids_BT)
            answering = PeftModel.from_pretrained(tiny(family), tmp_path)
            theirs = [peft(ids, attention_mask=torch.ones_like(ids)).logits for peft in (training, answering)]

        for logits in theirs:
            torch.testing.assert_close(ours.logits, logits, rtol=1e-5, atol=1e-5)

    def test_the_file_holds_what_the_network_makes_and_not_the_network(self, tmp_path: Path) -> None:
        model = trained(self.method(), "llama")
        self.method().save(model, tmp_path)

        saved = load_file(tmp_path / "adapter_model.safetensors")

        assert list(saved) == ["prompt_embeddings"]
        torch.testing.assert_close(saved["prompt_embeddings"], model.get_input_embeddings().prompt(torch.arange(5)))

    @pytest.mark.parametrize("family", FAMILIES)
    def test_it_trains_a_vector_a_token_and_three_layers(self, family: str) -> None:
        hidden, inner, tokens = 16, 12, 5

        trained_values = sum(p.numel() for p in adapted(self.method(), family).parameters() if p.requires_grad)

        layers = (hidden * inner + inner) + (inner * inner + inner) + (inner * hidden + hidden)
        assert trained_values == tokens * hidden + layers

    def test_what_was_saved_for_another_number_of_tokens_is_refused(self, tmp_path: Path) -> None:
        self.method().save(adapted(self.method(), "llama"), tmp_path)

        with pytest.raises(ValueError, match=r"must hold 6 virtual tokens of 16 values, got 5 x 16$"):
            replace(self.method(), num_virtual_tokens=6).load(tiny("llama"), tmp_path)

    @pytest.mark.parametrize("field", ["num_virtual_tokens", "hidden_size"])
    def test_sizes_below_one_are_refused(self, field: str) -> None:
        with pytest.raises(ValueError, match=f"^{field} must be at least 1, got 0$"):
            replace(self.method(), **{field: 0})


_SETTINGS = {
    "task_type": TaskType.CAUSAL_LM, "num_virtual_tokens": 5, "num_transformer_submodules": 1, "encoder_hidden_size": 12
}  # fmt: skip
