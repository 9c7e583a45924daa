"""Tuning of the last layers: the contract of a method, which blocks learn, and its refusals."""

from dataclasses import replace
from pathlib import Path

import pytest
from method_contract import MethodContract, adapted
from tiny_models import tiny
from transformers import AutoConfig, AutoModelForCausalLM

import forgetmenot
from forgetmenot.method.last_layers import LastLayers

LAST = ("layers.1.", "decoder.block.1.", "h.1.")  # of two blocks, as families name them
NORMS = ("model.norm.weight", "decoder.final_layer_norm.weight", "ln_f.weight", "ln_f.bias")


class TestLastLayers(MethodContract):
    """Tuning of the last layers keeps the contract."""

    def method(self) -> LastLayers:
        return LastLayers(name="last_layers", lr=1e-3, num_layers=1)

    def learns(self, name: str) -> bool:
        return any(part in name for part in LAST) or name.endswith(NORMS)

    def test_two_blocks_of_two_leave_the_embeddings_frozen(self) -> None:
        model = adapted(replace(self.method(), num_layers=2), "llama")

        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}

        assert frozen == {"model.embed_tokens.weight", "lm_head.weight"}

    def test_of_an_encoder_decoder_the_encoder_stays_as_it_is(self) -> None:
        model = adapted(replace(self.method(), num_layers=2), "bart")

        learned = {name for name, p in model.named_parameters() if p.requires_grad}

        assert learned == {n for n, _ in model.named_parameters() if n.startswith("model.decoder.layers.")}

    def test_the_preset_trains_15_to_20_percent_of_the_embedded_model(self) -> None:
        method = forgetmenot.compose("method/last_layers")
        config = AutoConfig.from_pretrained(Path(forgetmenot.__file__).parent / "assets" / "tiny")

        model = method.apply(AutoModelForCausalLM.from_config(config))

        learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert 0.15 <= learned / sum(p.numel() for p in model.parameters()) <= 0.20

    def test_more_blocks_than_there_are_is_refused(self) -> None:
        with pytest.raises(ValueError) as error:
            replace(self.method(), num_layers=3).apply(tiny("llama"))

        assert str(error.value) == "method.num_layers must be at most 2, the model's blocks, got 3"

    def test_no_block_at_all_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^num_layers must be at least 1, got 0$"):
            replace(self.method(), num_layers=0)
