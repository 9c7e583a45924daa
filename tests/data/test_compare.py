"""Rows that two models read are labelled at the same tokens, whatever stands before them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forgetmenot.data.collate import Collator
from forgetmenot.data.compare import Comparison
from forgetmenot.data.types import IGNORE_INDEX, ComparedStep, Encoded

CAUSAL = Collator(pad_id=0, num_virtual_tokens=0, first_virtual_id=100, decoder_start_id=None, max_length=64)
SOFT = replace(CAUSAL, num_virtual_tokens=2)
SEQ2SEQ = replace(CAUSAL, decoder_start_id=0)


def row(*prompt: int, learned: tuple[int, ...]) -> Encoded:
    ids = np.asarray([*prompt, *learned], dtype=np.int32)
    labels = np.asarray([IGNORE_INDEX] * len(prompt) + list(learned), dtype=np.int32)
    return Encoded(input_ids=ids, labels=labels, num_tokens=len(ids))


ROWS = [row(1, 11, 12, learned=(13, 2)), row(1, learned=(21, 22, 2))]


@pytest.mark.parametrize(
    ("positions", "tokens"), [("supervised", [[13, 2], [21, 22, 2]]), ("all", [[11, 12, 13, 2], [21, 22, 2]])]
)
@pytest.mark.parametrize("collator", [CAUSAL, SOFT])
def test_both_models_are_compared_at_the_same_tokens(
    collator: Collator, positions: str, tokens: list[list[int]]
) -> None:
    comparison = Comparison(collator=collator, reference_collator=CAUSAL, positions=positions)

    compared = comparison.of(ROWS)

    for batch in (compared.rows, compared.reference_rows):
        assert [[i for i in labels if i != IGNORE_INDEX] for labels in batch.labels_BS.tolist()] == tokens
    assert comparison.tokens(ROWS) == sum(map(len, tokens))


@pytest.mark.parametrize("positions", ["supervised", "all"])
def test_a_decoder_is_compared_at_its_whole_completion(positions: str) -> None:
    rows = [Encoded(input_ids=np.arange(5), labels=np.asarray([7, 2]), num_tokens=7)]
    comparison = Comparison(collator=SEQ2SEQ, reference_collator=SEQ2SEQ, positions=positions)

    assert comparison.of(rows).rows.labels_BS.tolist() == [[7, 2]]
    assert comparison.tokens(rows) == 2


def test_the_rows_themselves_keep_their_labels() -> None:
    before = [r.labels.copy() for r in ROWS]

    Comparison(collator=CAUSAL, reference_collator=CAUSAL, positions="all").of(ROWS)

    assert all(np.array_equal(r.labels, labels) for r, labels in zip(ROWS, before, strict=True))


def test_a_compared_step_goes_to_a_device_whole() -> None:
    comparison = Comparison(collator=CAUSAL, reference_collator=CAUSAL, positions="all")

    step = ComparedStep(micro_batches=(comparison.of(ROWS),), tokens=7).to(torch.device("meta"))

    (compared,) = step.micro_batches
    assert {compared.rows.labels_BS.device.type, compared.reference_rows.input_ids_BT.device.type} == {"meta"}
