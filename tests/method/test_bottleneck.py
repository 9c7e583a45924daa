"""Bottleneck adapters: the contract of a method, small layers worked out by hand, and refusals."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from method_contract import FAMILIES, MethodContract, adapted, trained
from tiny_models import rows_for, tiny
from torch.nn.functional import gelu

from forgetmenot.config.compose import compose
from forgetmenot.method.bottleneck import Bottleneck


class TestBottleneck(MethodContract):
    """Adapters behind both kinds of sub-layers keep the contract."""

    families = (*FAMILIES, *(pytest.param(family, marks=pytest.mark.slow) for family in ("bart", "phi3")))
    loads_plainly = False

    def method(self) -> Bottleneck:
        return Bottleneck(name="bottleneck", lr=1e-3, size=4, after=("attention", "feed_forward"))

    def learns(self, name: str) -> bool:
        return ".bottleneck." in name

    def test_a_layer_gives_what_it_gave_and_what_two_small_layers_make_of_it(self) -> None:
        base, model = tiny("llama").model.layers[0].mlp, trained(self.method(), "llama").model.layers[0].mlp
        own = model.down_proj.bottleneck
        hidden = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))

        given = base(hidden)
        small = gelu(given @ own.down.weight.T + own.down.bias)

        torch.testing.assert_close(model(hidden), given + small @ own.up.weight.T + own.up.bias, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(("after", "places"), [(("attention",), 2), (("feed_forward",), 2), (None, 4)])
    def test_it_trains_two_layers_and_their_biases_a_place(self, after: tuple[str, ...] | None, places: int) -> None:
        method = self.method() if after is None else replace(self.method(), after=after)

        values = sum(p.numel() for p in adapted(method, "llama").parameters() if p.requires_grad)

        assert values == places * (2 * 16 * 4 + 4 + 16)

    def test_the_folder_says_how_it_is_loaded_and_python_does_so(self, tmp_path: Path) -> None:
        model = trained(self.method(), "llama")
        self.method().save(model, tmp_path)
        ids = torch.from_numpy(rows_for(model, [(6, 4)])[0].input_ids).long()[None]

        loaded = compose("method/bottleneck", size=4, after=["attention", "feed_forward"]).load(tiny("llama"), tmp_path)

        line = "forgetmenot.compose(\"method/bottleneck\", size=4, after=['attention', 'feed_forward'])"
        assert line in (tmp_path / "README.md").read_text()
        assert json.loads((tmp_path / "bottleneck.json").read_text())["format"].startswith("forgetmenot bottleneck")
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=1e-6, atol=1e-6)

    def test_adapters_of_another_size_are_refused(self, tmp_path: Path) -> None:
        self.method().save(adapted(self.method(), "llama"), tmp_path)

        with pytest.raises(ValueError, match=r"must hold adapters of this method and model, got others at model\."):
            replace(self.method(), size=5).load(tiny("llama"), tmp_path)

    def test_a_model_whose_sublayers_are_not_found_is_refused_with_what_to_use_instead(self) -> None:
        model = tiny("llama")
        model.model.layers = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(2))

        with pytest.raises(ValueError, match=r"^method must be another .* got bottleneck for llama; method=lora"):
            self.method().apply(model)

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("size", 0, "size must be at least 1, got 0"),
            ("after", (), "after must be attention, feed_forward or both, each once, got []"),
            ("after", ("attention",) * 2, "after must be .*, got [attention, attention]"),
        ],
    )
    def test_values_out_of_range_are_refused(self, field: str, value: object, message: str) -> None:
        with pytest.raises(ValueError) as error:
            replace(self.method(), **{field: value})

        assert str(error.value) == message.replace(".*", "attention, feed_forward or both, each once")
