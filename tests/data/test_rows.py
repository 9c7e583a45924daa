"""Rows in flat arrays beside the same rows one by one."""

import numpy as np
import pytest

from forgetmenot.data.rows import Rows
from forgetmenot.data.types import IGNORE_INDEX

X = IGNORE_INDEX
PAIRS = [([1, 2], [3]), ([4], [5, 6, 7]), ([8, 9, 10], [11, 12])]


def test_a_causal_row_reads_prompt_and_completion_and_learns_the_latter() -> None:
    rows = Rows.of(PAIRS, is_encoder_decoder=False)
    assert [row.input_ids.tolist() for row in rows] == [[1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11, 12]]
    assert [row.labels.tolist() for row in rows] == [[X, X, 3], [X, 5, 6, 7], [X, X, X, 11, 12]]


def test_an_encoder_reads_the_prompt_and_the_decoder_learns_the_completion() -> None:
    rows = Rows.of(PAIRS, is_encoder_decoder=True)
    assert [(row.input_ids.tolist(), row.labels.tolist()) for row in rows] == PAIRS


@pytest.mark.parametrize("is_encoder_decoder", [False, True])
def test_lengths_prompts_and_counts_are_those_of_the_rows(is_encoder_decoder: bool) -> None:
    rows = Rows.of(PAIRS, is_encoder_decoder=is_encoder_decoder)
    assert rows.lengths.tolist() == [row.num_tokens for row in rows] == [3, 4, 5]
    assert [rows.prompt(i).tolist() for i in range(3)] == [prompt for prompt, _ in PAIRS]
    assert rows.completion_lengths.tolist() == [row.num_supervised for row in rows]


def test_taking_a_row_leaves_the_arrays_as_they_are() -> None:
    rows = Rows.of(PAIRS, is_encoder_decoder=False)
    before = rows.tokens.copy()
    rows[1].labels[:] = 0
    assert np.array_equal(rows.tokens, before)


def test_rows_end() -> None:
    rows = Rows.of(PAIRS, is_encoder_decoder=False)
    assert rows[-1].input_ids.tolist() == rows[2].input_ids.tolist()
    with pytest.raises(IndexError):
        rows[3]
