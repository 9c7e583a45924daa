"""KL beside torch's own kl_div over full logits, row by row: the value, its gradient, and at which tokens."""

from dataclasses import replace

import pytest
import torch
from tiny_models import collator_of, facts_of, packing, rows_for, tiny
from tiny_penalties import TEACHER_SEED, gradients, moved, supplies_of
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import PreTrainedModel

from forgetmenot import loss
from forgetmenot.data.types import IGNORE_INDEX, Encoded
from forgetmenot.method.full import Full
from forgetmenot.method.lora import Lora
from forgetmenot.method.prompt import Prompt
from forgetmenot.regularizer.kl import KL, DivergencePenalty

LENGTHS = [(7, 3), (2, 4), (9, 2)]
FULL = Full(name="full", lr=1e-3)
LORA = Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",))
PROMPT = Prompt(name="prompt", lr=1e-2, num_virtual_tokens=3, start=None)
every_choice_of_positions = pytest.mark.parametrize("positions", ["supervised", "all"])


def penalty_of(family: str, *, positions: str = "all", reference: str | None = None) -> DivergencePenalty:
    chosen = KL(name="kl", weight=0.5, reference=reference, positions=positions)
    return chosen.prepare(tiny(family), supplies_of(family))


def nats(penalty: DivergencePenalty, model: PreTrainedModel, family: str) -> Tensor:
    compared = penalty.comparison.of(rows_for(tiny(family), LENGTHS))
    return penalty(model, compared, facts_of(tiny(family)))


def plain_nats(model: PreTrainedModel, reference: PreTrainedModel, row: Encoded, *, positions: str) -> Tensor:
    """Returns the divergence over one row alone: a causal model is compared wherever a token of the row follows."""
    ids, labels = (torch.from_numpy(array).long() for array in (row.input_ids, row.labels))
    if model.config.is_encoder_decoder:
        ours, theirs = (m(input_ids=ids[None], labels=labels[None]).logits[0] for m in (model, reference))
    else:
        chosen = slice(None) if positions == "all" else labels[1:] != IGNORE_INDEX
        ours, theirs = (m(ids[None]).logits[0, :-1][chosen] for m in (model, reference))
    return 0.5 * kl_div(ours.log_softmax(-1), theirs.log_softmax(-1).detach(), reduction="sum", log_target=True)


@every_choice_of_positions
@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("reference", [None, "a teacher"])
def test_it_is_the_weighted_divergence_of_next_tokens_over_full_logits(
    family: str, positions: str, reference: str | None
) -> None:
    model = moved(FULL.apply(tiny(family)), by=0.05)
    other = tiny(family, seed=0 if reference is None else TEACHER_SEED)

    ours = nats(penalty_of(family, positions=positions, reference=reference), model, family)
    ours.backward()
    slopes = gradients(model)
    model.zero_grad()
    rows = rows_for(tiny(family), LENGTHS)
    plain = sum(plain_nats(model, other, row, positions=positions) for row in rows)
    plain.backward()

    assert ours.item() == pytest.approx(plain.item(), rel=1e-4)
    assert ours.item() > 0.01
    torch.testing.assert_close(slopes, gradients(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_it_is_zero_at_the_start(family: str) -> None:
    assert nats(penalty_of(family), LORA.apply(tiny(family)), family).item() == pytest.approx(0.0, abs=1e-5)


def test_a_head_taken_in_parts_gives_the_same_value_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = (moved(FULL.apply(tiny("llama")), by=0.05) for _ in range(2))
    penalty = penalty_of("llama")

    expected = nats(penalty, whole, "llama")
    expected.backward()
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 5 * 48)
    value = nats(penalty, parts, "llama")
    value.backward()

    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradients(parts), gradients(whole), rtol=1e-4, atol=1e-6)


@every_choice_of_positions
def test_virtual_tokens_stand_before_the_models_rows_alone_and_are_not_compared(positions: str) -> None:
    model = PROMPT.apply(tiny("llama"))
    chosen = KL(name="kl", weight=1.0, reference=None, positions=positions)
    penalty = chosen.prepare(model, supplies_of("llama", virtual_tokens=3))
    rows = rows_for(tiny("llama"), LENGTHS)

    compared = penalty.comparison.of(rows)

    for batch in (compared.rows, compared.reference_rows):
        assert int((batch.labels_BS != IGNORE_INDEX).sum()) == penalty.comparison.tokens(rows)
    of_model, of_base = (b.labels_BS[b.labels_BS != IGNORE_INDEX] for b in (compared.rows, compared.reference_rows))
    assert torch.equal(of_model, of_base)
    assert compared.rows.input_ids_BT.max() >= 48 > compared.reference_rows.input_ids_BT.max()
    penalty(model, compared, facts_of(tiny("llama"))).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


def test_packed_rows_are_compared_as_padded_ones() -> None:
    model, base = moved(FULL.apply(tiny("llama")), by=0.05), tiny("llama")
    penalty = penalty_of("llama")
    padded = nats(penalty, model, "llama")

    penalty.model = packing(base)
    collator = collator_of(base, packs=True)
    penalty.comparison = replace(penalty.comparison, collator=collator, reference_collator=collator)

    assert nats(penalty, packing(model), "llama").item() == pytest.approx(padded.item(), rel=1e-4)


def test_its_reference_is_frozen_and_stays_without_dropout_while_the_module_trains() -> None:
    penalty = penalty_of("llama").train()

    nats(penalty, moved(FULL.apply(tiny("llama")), by=0.05), "llama").backward()

    assert not any(p.requires_grad or p.grad is not None for p in penalty.parameters())
    assert not penalty.model.training


def test_a_larger_table_of_the_reference_is_cut_to_the_tokens_that_both_have() -> None:
    model = moved(FULL.apply(tiny("llama")), by=0.05)
    penalty = penalty_of("llama")
    expected = nats(penalty, model, "llama").item()

    penalty.model.resize_token_embeddings(56, mean_resizing=False)
    penalty.facts = replace(penalty.facts, vocabulary=56)

    assert nats(penalty, model, "llama").item() == pytest.approx(expected, rel=1e-4)
