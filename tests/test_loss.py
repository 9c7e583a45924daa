"""Our loss beside transformers' own, on the same batches."""

import copy
from collections.abc import Sequence

import pytest
import torch
from tiny_models import VOCAB, collator_of, facts_of, packing, reference_inputs, rows_for, tiny
from torch import Tensor
from transformers import PreTrainedModel

from forgetmenot import loss
from forgetmenot.data.types import IGNORE_INDEX, Encoded
from forgetmenot.loss import loss_sum, next_tokens, row_divergences, row_losses

PACKED = ["llama", "qwen2", "qwen3", "gpt2", "gemma", "gemma2", "gemma3"]
LAYOUTS = [*((family, True) for family in PACKED), *((family, False) for family in (*PACKED, "t5", "bart"))]
LENGTHS = [(9, 3), (2, 5), (5, 1), (4, 4), (12, 2)]
CUTS = [[[0, 1, 2, 3, 4]], [[0], [1], [2], [3], [4]], [[4, 1], [2, 0, 3]], [[1, 2, 3], [0, 4]]]
each_layout = pytest.mark.parametrize(("family", "packs"), LAYOUTS)


def flat_gradient(model: PreTrainedModel) -> Tensor:
    """Returns all gradients as one vector."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def measured(
    model: PreTrainedModel, rows: Sequence[Encoded], *, cuts: list[list[int]], packs: bool
) -> tuple[float, Tensor]:
    """Returns our mean loss over the rows' supervised tokens and its gradient, added up over the cuts."""
    ours = packing(model) if packs else copy.deepcopy(model)
    collator, facts = collator_of(model, packs=packs), facts_of(model)
    total = 0.0
    for cut in cuts:
        loss = loss_sum(ours, collator.rows([rows[i] for i in cut]), facts) / supervised(rows)
        loss.backward()
        total += loss.item()
    return total, flat_gradient(ours)


def reference(model: PreTrainedModel, rows: Sequence[Encoded]) -> tuple[float, Tensor]:
    """Returns transformers' own mean loss over the rows in one padded batch, by its forward with labels."""
    theirs = copy.deepcopy(model)
    batch = collator_of(model).rows(rows)
    loss = theirs(**reference_inputs(batch, causal=not model.config.is_encoder_decoder)).loss
    loss.backward()
    return loss.item(), flat_gradient(theirs)


def supervised(rows: Sequence[Encoded]) -> int:
    return sum(row.num_supervised for row in rows)


def assert_equal(ours: tuple[float, Tensor], theirs: tuple[float, Tensor]) -> None:
    """Asserts that a loss and its gradient agree to 1e-5 of their size."""
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert (ours[1] - theirs[1]).norm() <= 1e-5 * theirs[1].norm()


@pytest.mark.parametrize("cuts", CUTS, ids=lambda cuts: f"{len(cuts)} cuts")
@each_layout
def test_loss_and_gradient_equal_those_of_transformers_under_any_cut(
    family: str, packs: bool, cuts: list[list[int]]
) -> None:
    model = tiny(family)
    rows = rows_for(model, LENGTHS)
    assert_equal(measured(model, rows, cuts=cuts, packs=packs), reference(model, rows))


@each_layout
def test_loss_and_gradient_in_chunks_equal_those_of_transformers(
    family: str, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 4 * VOCAB)
    heads: list[int] = []
    model = tiny(family)
    model.get_output_embeddings().register_forward_hook(lambda layer, given, logits: heads.append(logits.shape[1]))
    rows = rows_for(model, LENGTHS)

    ours = measured(model, rows, cuts=CUTS[0], packs=packs)

    assert max(heads) == 4, "no more than four positions at once"
    assert_equal(ours, reference(model, rows))


def test_the_head_is_computed_at_supervised_positions_alone() -> None:
    heads: list[int] = []
    model = tiny("t5")  # a family without an argument for it
    model.get_output_embeddings().register_forward_hook(lambda layer, given, logits: heads.append(logits.shape[1]))
    rows = rows_for(model, LENGTHS)

    measured(model, rows, cuts=CUTS[0], packs=False)

    assert heads == [supervised(rows)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "gemma3", "t5", "bart"])
def test_loss_of_a_padded_row_equals_that_of_the_row_alone(family: str) -> None:
    model = tiny(family)
    rows = rows_for(model, [(3, 2), (20, 9)])
    collator, facts = collator_of(model), facts_of(model)

    together = loss_sum(model, collator.rows(rows), facts)
    alone = [loss_sum(model, collator.rows([row]), facts) for row in rows]

    torch.testing.assert_close(together, alone[0] + alone[1], rtol=1e-5, atol=1e-5)


def test_labels_are_shifted_by_one_for_causal_models_and_not_for_encoder_decoders() -> None:
    causal, seq2seq = tiny("llama"), tiny("t5")
    causal_batch = collator_of(causal).rows(rows_for(causal, [(2, 2)]))
    seq2seq_batch = collator_of(seq2seq).rows(rows_for(seq2seq, [(2, 2)]))

    shifted = next_tokens(causal_batch, facts_of(causal))[0].tolist()

    assert shifted == [IGNORE_INDEX, *causal_batch.input_ids_BT[0, 2:].tolist(), IGNORE_INDEX]
    assert torch.equal(next_tokens(seq2seq_batch, facts_of(seq2seq)), seq2seq_batch.labels_BS)


def test_a_batch_is_not_changed_by_measuring_its_loss() -> None:
    model = tiny("llama")
    batch = collator_of(model).rows(rows_for(model, LENGTHS))
    before = batch.labels_BS.clone()

    loss_sum(model, batch, facts_of(model))

    assert torch.equal(batch.labels_BS, before)


def test_loss_of_a_batch_without_supervised_tokens_is_zero_and_has_no_gradient() -> None:
    model = tiny("llama")
    row = rows_for(model, [(4, 2)])[0]
    unlearned = Encoded(input_ids=row.input_ids, labels=row.labels * 0 + IGNORE_INDEX, num_tokens=row.num_tokens)

    loss = loss_sum(model, collator_of(model).rows([unlearned]), facts_of(model))
    loss.backward()

    assert loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_loss_is_summed_in_fp32_for_a_model_in_bf16() -> None:
    model = tiny("llama")
    batch = collator_of(model).rows(rows_for(model, LENGTHS))

    assert loss_sum(model.to(torch.bfloat16), batch, facts_of(model)).dtype == torch.float32


@each_layout
@pytest.mark.parametrize("chunk", [2**25, 3 * VOCAB])
def test_each_rows_loss_is_what_the_row_has_alone(
    family: str, packs: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", chunk)
    model = tiny(family)
    ours = packing(model) if packs else model
    collator, facts, rows = collator_of(model, packs=packs), facts_of(model), rows_for(model, LENGTHS)

    each = row_losses(ours, collator.rows(rows), facts)

    with torch.no_grad():
        alone = torch.stack([loss_sum(ours, collator.rows([row]), facts) for row in rows])
    torch.testing.assert_close(each, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_head_that_scores_is_asked_for_a_round_number_of_positions(number: int) -> None:
    model = tiny("llama")
    asked: list[int] = []
    model.lm_head.register_forward_pre_hook(lambda module, states: asked.append(states[0].shape[1]))
    batch = collator_of(model).rows(rows_for(model, [(3, 9)] * number))

    row_losses(model, batch, facts_of(model))

    assert asked == [{1: 10, 2: 20, 3: 28}[number]]  # of 9, 18 and 27


@each_layout
@pytest.mark.parametrize("chunk", [2**25, 3 * VOCAB])
def test_each_rows_divergence_is_that_of_whole_distributions_at_its_supervised_positions(
    family: str, packs: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", chunk)
    base, model = tiny(family), tiny(family, seed=1)
    collator, facts, rows = collator_of(base, packs=packs), facts_of(base), rows_for(base, LENGTHS)
    batch = collator.rows(rows)
    both = [packing(each) if packs else each for each in (model, base)]

    each = row_divergences(both[0], batch, facts, base=both[1], base_batch=batch)

    expected = []
    for row in rows:
        alone = collator_of(base).rows([row])
        inputs = reference_inputs(alone, causal=not base.config.is_encoder_decoder)
        supervised = next_tokens(alone, facts)[0] != IGNORE_INDEX
        with torch.no_grad():
            p_base, p_model = (m(**inputs).logits[0, supervised].double().softmax(-1) for m in (base, model))
        expected.append((p_base * (p_base / p_model).log()).sum().float())
    torch.testing.assert_close(each, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_model_does_not_diverge_from_itself() -> None:
    model = tiny("llama")
    batch = collator_of(model).rows(rows_for(model, LENGTHS))
    assert row_divergences(model, batch, facts_of(model), base=model, base_batch=batch).abs().max() < 1e-5
