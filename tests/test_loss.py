"""Our loss beside transformers' own, on the same batches."""

from collections.abc import Sequence

import pytest
import torch
from tiny_models import collator_of, facts_of, reference_inputs, rows_for, tiny
from torch import Tensor
from transformers import PreTrainedModel

from forgetmenot.data.types import IGNORE_INDEX, Batch, Encoded
from forgetmenot.loss import loss_sum, next_tokens

FAMILIES = ["llama", "qwen2", "gpt2", "gemma", "gemma2", "gemma3", "t5"]
LENGTHS = [(9, 3), (2, 5), (5, 1), (4, 4), (12, 2)]


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def reference(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Returns transformers' own mean loss over the batch, by its forward with labels."""
    return model(**reference_inputs(batch, causal=not model.config.is_encoder_decoder)).loss


def supervised(rows: Sequence[Encoded]) -> int:
    return sum(row.num_supervised for row in rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_over_supervised_tokens_equals_that_of_transformers(family: str) -> None:
    model = tiny(family)
    rows = rows_for(model, LENGTHS)
    batch = collator_of(model).rows(rows)

    ours = loss_sum(model, batch, facts_of(model)) / supervised(rows)

    torch.testing.assert_close(ours, reference(model, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_those_of_transformers_loss(family: str) -> None:
    model = tiny(family)
    rows = rows_for(model, LENGTHS)
    batch = collator_of(model).rows(rows)

    (loss_sum(model, batch, facts_of(model)) / supervised(rows)).backward()
    ours = gradients(model)
    model.zero_grad()
    reference(model, batch).backward()

    torch.testing.assert_close(ours, gradients(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "cuts", [[[0, 1, 2, 3, 4]], [[0], [1], [2], [3], [4]], [[4, 1], [2, 0, 3]], [[1, 2, 3], [0, 4]]]
)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "t5"])
def test_loss_and_gradients_are_the_same_under_any_cut_into_micro_batches(family: str, cuts: list[list[int]]) -> None:
    model = tiny(family)
    rows = rows_for(model, LENGTHS)
    collator, facts = collator_of(model), facts_of(model)
    total = 0.0

    for cut in cuts:
        loss = loss_sum(model, collator.rows([rows[i] for i in cut]), facts) / supervised(rows)
        loss.backward()
        total += loss.item()
    ours = gradients(model)
    model.zero_grad()
    whole = reference(model, collator.rows(rows))
    whole.backward()

    assert total == pytest.approx(whole.item(), abs=1e-5)
    torch.testing.assert_close(ours, gradients(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "gemma3", "t5"])
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
