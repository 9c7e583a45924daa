"""Where sub-layers end, beside the names that each family gives them."""

import pytest
from tiny_models import tiny

from forgetmenot.model.sublayers import sublayer_outputs

LLAMA = ["self_attn.o_proj attention", "mlp.down_proj feed_forward"]
BART = ["self_attn.out_proj attention", "encoder_attn.out_proj attention", "fc2 feed_forward"]
T5 = [
    "layer.0.SelfAttention.o attention",
    "layer.1.EncDecAttention.o attention",
    "layer.2.DenseReluDense.wo feed_forward",
]
ENDS = {
    "llama": ("model.layers.1.", LLAMA),
    "gemma2": ("model.layers.1.", LLAMA),
    "gpt2": ("transformer.h.1.", ["attn.c_proj attention", "mlp.c_proj feed_forward"]),
    "bart": ("model.decoder.layers.1.", BART),
    "phi3": ("model.layers.1.", LLAMA),
    "t5": ("decoder.block.1.", T5),
}


@pytest.mark.parametrize("family", ENDS)
def test_each_block_ends_its_attention_and_feed_forward_in_one_layer_each(family: str) -> None:
    block, expected = ENDS[family]

    found = [f"{output.name} {output.kind}" for output in sublayer_outputs(tiny(family))]

    assert sorted(name.removeprefix(block) for name in found if name.startswith(block)) == sorted(expected)


@pytest.mark.parametrize(("family", "number"), [("llama", 4), ("t5", 2 * 2 + 2 * 3), ("bart", 2 * 2 + 2 * 3)])
def test_every_block_of_encoder_and_decoder_is_found(family: str, number: int) -> None:
    assert len(sublayer_outputs(tiny(family))) == number
