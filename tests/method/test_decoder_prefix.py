"""Prefix tuning of encoder-decoders: keys and values before what the decoder writes, where peft looks for them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from method_contract import own_collator, trained
from peft import PeftModel
from safetensors.torch import load_file
from tiny_decoders import TAKE_NONE, UNLIKE, empty
from tiny_models import collator_of, facts_of, rows_for, tiny
from torch import Tensor
from transformers import PreTrainedModel

from forgetmenot.data.types import Batch
from forgetmenot.loss import loss_sum, row_losses
from forgetmenot.method.prefix import PrefixTuning

PLAIN = PrefixTuning(name="prefix", lr=1e-2, num_virtual_tokens=5, projection=None)
SHAPES = {
    "t5": ("t5", {}),
    "t5 of three layers": ("t5", UNLIKE["t5"]),
    "bart": ("bart", {}),
    "bart of three layers": ("bart", UNLIKE["bart"]),
}
"""Even and odd numbers of layers, since peft reads the file of each in another order."""


def drawn(method: PrefixTuning, shape: str) -> PreTrainedModel:
    """Returns a tiny model with a prefix that says much."""
    family, sizes = SHAPES[shape]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = method.apply(tiny(family, sizes=sizes)).eval()
        for weight in (p for p in model.parameters() if p.requires_grad):
            torch.nn.init.normal_(weight)
    return model


def logits(model: PreTrainedModel | PeftModel, batch: Batch) -> Tensor:
    """Returns those of every position."""
    inputs = {"input_ids": batch.input_ids_BT, "attention_mask": batch.attention_mask_BT}
    with torch.no_grad():
        return model(**inputs, decoder_input_ids=batch.decoder_input_ids_BS).logits


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("projection", [None, 12])
def test_logits_equal_those_of_peft_at_every_position(shape: str, projection: int | None, tmp_path: Path) -> None:
    method, (family, sizes) = replace(PLAIN, projection=projection), SHAPES[shape]
    model, base = drawn(method, shape), tiny(family, sizes=sizes)
    method.save(model, tmp_path)
    batch = collator_of(base).rows(rows_for(base, [(6, 4), (3, 7)]))

    ours, loaded = logits(model, batch), logits(method.load(tiny(family, sizes=sizes), tmp_path), batch)
    without = logits(base, batch)

    torch.testing.assert_close(ours, logits(PeftModel.from_pretrained(base, tmp_path), batch), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded, ours, rtol=0, atol=0)
    assert (ours - without).abs().max() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_each_layer_learns_keys_and_values_of_its_own(shape: str, tmp_path: Path) -> None:
    family, sizes = SHAPES[shape]
    model, layers = drawn(PLAIN, shape), sizes.get("num_decoder_layers", sizes.get("decoder_layers", 2))
    PLAIN.save(model, tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")["prompt_embeddings"]
    batch = collator_of(tiny(family)).rows(rows_for(model, [(6, 4)]))

    loss_sum(model, batch, facts_of(tiny(family, sizes=sizes))).backward()

    (learned,) = [p for p in model.parameters() if p.requires_grad]
    assert (learned.grad.unflatten(1, (layers, -1)).norm(dim=(0, 2)) > 0).all()
    values = learned.shape[1] // layers
    assert saved.shape == (5, 3 * values)
    assert saved.count_nonzero() == learned.numel() == 5 * layers * values


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_row_scores_in_a_padded_batch_what_it_scores_alone(family: str) -> None:
    model, facts, collator = trained(PLAIN, family), facts_of(tiny(family)), own_collator(PLAIN, family)
    rows = rows_for(model, [(3, 2), (14, 5), (1, 9)])
    batch = collator.rows(rows)
    other = replace(
        batch,
        input_ids_BT=batch.input_ids_BT.masked_fill(batch.attention_mask_BT == 0, 9),
        decoder_input_ids_BS=batch.decoder_input_ids_BS.masked_fill(batch.decoder_input_ids_BS == 0, 9),
    )
    other.decoder_input_ids_BS[:, 0] = 0  # the start has the id of padding

    alone = torch.cat([row_losses(model, collator.rows([row]), facts) for row in rows])

    torch.testing.assert_close(row_losses(model, batch, facts), alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(row_losses(model, other, facts), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_it_starts_as_the_keys_and_values_of_words_that_the_decoder_read_before(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = torch.tensor([[9, 30, 4, 17, 30]])
    monkeypatch.setattr(torch, "randint", lambda *size, **named: words)
    model = PLAIN.apply(tiny(family))
    (row,) = rows_for(model, [(5, 4)])
    batch = replace(own_collator(PLAIN, family).rows([row]), input_ids_BT=words)  # which the encoder read then, too
    behind = replace(batch, decoder_input_ids_BS=torch.cat([words, batch.decoder_input_ids_BS], dim=1))

    read = logits(tiny(family), behind)[:, 5:]

    torch.testing.assert_close(logits(model, batch), read, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", TAKE_NONE)
def test_a_decoder_that_takes_no_prefix_is_refused_with_what_to_use_instead(family: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^method must be another for a model whose decoder .* got prefix for {family}; .*p_tuning"
    ):
        PLAIN.apply(empty(TAKE_NONE[family]))
