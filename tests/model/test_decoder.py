"""What decoders keep of the tokens before, found by trial."""

import pytest
from tiny_decoders import TAKE_NONE, UNLIKE, empty
from tiny_models import tiny

from forgetmenot.model.decoder import KeptByDecoder, kept_by_decoder


@pytest.mark.parametrize(("family", "head_size"), [("t5", 6), ("bart", 8)])
def test_sizes_are_those_of_the_decoder_and_an_empty_model_has_them(family: str, head_size: int) -> None:
    model = tiny(family, sizes=UNLIKE[family])

    kept = kept_by_decoder(model)

    assert kept == KeptByDecoder(layers=3, heads=2, head_size=head_size)
    assert kept_by_decoder(empty(model.config)) == kept


def test_a_model_that_was_tried_is_as_it_was() -> None:
    model = tiny("bart").train()
    attention = model.get_decoder().config._attn_implementation

    kept_by_decoder(model)

    assert model.get_decoder().config._attn_implementation == attention != "eager"
    assert all(layer.training for layer in model.modules())


@pytest.mark.parametrize("family", TAKE_NONE)
def test_a_decoder_that_takes_several_tokens_behind_none_alone_keeps_something_else(family: str) -> None:
    assert kept_by_decoder(empty(TAKE_NONE[family])) is None
