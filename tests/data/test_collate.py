"""Collating: the layout [pad][virtual][prompt][completion], what an encoder reads, and what a decoder is given."""

import numpy as np
import torch

from forgetmenot.data.collate import Collator
from forgetmenot.data.types import IGNORE_INDEX, Batch, Encoded

PAD, START, VIRTUAL = 90, 91, 100
X = IGNORE_INDEX


def collator(*, num_virtual_tokens: int = 0, decoder_start_id: int | None = None, packs: bool = False) -> Collator:
    return Collator(
        packs=packs,
        pad_id=PAD,
        num_virtual_tokens=num_virtual_tokens,
        first_virtual_id=VIRTUAL,
        decoder_start_id=decoder_start_id,
        max_length=20,
    )


def ids(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)


def causal_rows() -> list[Encoded]:
    return [
        Encoded(input_ids=ids(1, 2, 3, 4), labels=ids(X, X, 3, 4), num_tokens=4),
        Encoded(input_ids=ids(5, 6), labels=ids(X, 6), num_tokens=2),
    ]


def seq2seq_rows() -> list[Encoded]:
    return [
        Encoded(input_ids=ids(1, 2, 3), labels=ids(7), num_tokens=4),
        Encoded(input_ids=ids(5), labels=ids(8, 9, 10), num_tokens=4),
    ]


def test_padding_stands_left_of_shorter_rows() -> None:
    batch = collator().rows(causal_rows())
    assert batch.input_ids_BT.tolist() == [[1, 2, 3, 4], [PAD, PAD, 5, 6]]
    assert batch.attention_mask_BT.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]


def test_virtual_tokens_stand_between_padding_and_prompt() -> None:
    batch = collator(num_virtual_tokens=2).rows(causal_rows())
    assert batch.input_ids_BT.tolist() == [[100, 101, 1, 2, 3, 4], [PAD, PAD, 100, 101, 5, 6]]
    assert batch.attention_mask_BT.tolist() == [[1] * 6, [0, 0, 1, 1, 1, 1]]


def test_positions_are_counted_from_0_without_padding() -> None:
    batch = collator(num_virtual_tokens=1).rows(causal_rows())
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]


def test_padding_and_virtual_tokens_are_not_learned() -> None:
    batch = collator(num_virtual_tokens=1).rows(causal_rows())
    assert batch.labels_BS.tolist() == [[X, X, X, 3, 4], [X, X, X, X, 6]]
    assert batch.decoder_input_ids_BS is None


def test_a_padding_id_within_a_row_is_attended_to_and_learned() -> None:
    batch = collator().rows([Encoded(input_ids=ids(PAD, PAD), labels=ids(X, PAD), num_tokens=2)])
    assert batch.attention_mask_BT.tolist() == [[1, 1]]
    assert batch.labels_BS.tolist() == [[X, PAD]]


def test_prompts_alone_are_laid_out_as_in_training() -> None:
    collate = collator(num_virtual_tokens=2)
    rows, prompts = collate.rows(causal_rows()), collate.prompts([row.input_ids for row in causal_rows()])
    for name in ("input_ids_BT", "attention_mask_BT", "position_ids_BT"):
        assert torch.equal(getattr(rows, name), getattr(prompts, name)), name
    assert prompts.labels_BS.shape == (2, 0)


def test_a_decoder_is_given_the_labels_shifted_right_behind_its_start() -> None:
    batch = collator(decoder_start_id=START).rows(seq2seq_rows())
    assert batch.labels_BS.tolist() == [[7, X, X], [8, 9, 10]]
    assert batch.decoder_input_ids_BS is not None
    assert batch.decoder_input_ids_BS.tolist() == [[START, 7, PAD], [START, 8, 9]]


def test_virtual_tokens_of_an_encoder_leave_the_decoder_alone() -> None:
    plain = collator(decoder_start_id=START).rows(seq2seq_rows())
    soft = collator(num_virtual_tokens=2, decoder_start_id=START).rows(seq2seq_rows())
    assert soft.input_ids_BT.tolist() == [[100, 101, 1, 2, 3], [100, 101, 5, PAD, PAD]]
    assert soft.labels_BS.tolist() == plain.labels_BS.tolist()
    assert soft.decoder_input_ids_BS.tolist() == plain.decoder_input_ids_BS.tolist()


def test_an_encoders_rows_begin_at_the_first_place_with_padding_behind_them() -> None:
    batch = collator(decoder_start_id=START).rows(seq2seq_rows())
    assert batch.input_ids_BT.tolist() == [[1, 2, 3], [5, PAD, PAD]]
    assert batch.attention_mask_BT.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2]] * 2


def test_prompts_of_an_encoder_decoder_leave_the_decoder_to_generation() -> None:
    assert collator(decoder_start_id=START).prompts([ids(1, 2)]).decoder_input_ids_BS is None


def test_every_tensor_is_of_whole_numbers_as_embeddings_ask() -> None:
    batch: Batch = collator(num_virtual_tokens=1, decoder_start_id=START).rows(seq2seq_rows())
    tensors = [batch.input_ids_BT, batch.attention_mask_BT, batch.position_ids_BT, batch.labels_BS]
    assert {tensor.dtype for tensor in [*tensors, batch.decoder_input_ids_BS]} == {torch.int64}


def test_collating_changes_no_row() -> None:
    rows = seq2seq_rows()
    collator(num_virtual_tokens=1, decoder_start_id=START).rows(rows)
    assert [row.labels.tolist() for row in rows] == [[7], [8, 9, 10]]


def test_packed_rows_stand_behind_each_other_and_count_their_own_positions() -> None:
    batch = collator(num_virtual_tokens=1, packs=True).rows(causal_rows())
    assert batch.input_ids_BT.tolist() == [[100, 1, 2, 3, 4, 100, 5, 6]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]]
    assert batch.labels_BS.tolist() == [[X, X, X, 3, 4, X, X, 6]]
    assert batch.attention_mask_BT.tolist() == [[1] * 8]
    assert batch.row_lengths == (5, 3)


def test_prompts_and_rows_of_a_decoder_are_padded_even_where_rows_are_packed() -> None:
    prompts = collator(packs=True).prompts([row.input_ids for row in causal_rows()])
    decoder = collator(decoder_start_id=START, packs=True).rows(seq2seq_rows())
    assert prompts.row_lengths is decoder.row_lengths is None
    assert prompts.input_ids_BT.tolist() == [[1, 2, 3, 4], [PAD, PAD, 5, 6]]


def test_rows_to_be_scored_are_padded_to_few_widths_and_never_past_max_length() -> None:
    to_score = collator(packs=True).to_score()
    rows = [Encoded(input_ids=ids(*range(1, n + 1)), labels=ids(*range(1, n + 1)), num_tokens=n) for n in (19, 11, 9)]
    batches = [to_score.rows([row]) for row in rows]
    assert [batch.input_ids_BT.shape[1] for batch in batches] == [20, 12, 10]
    for row, batch in zip(rows, batches, strict=True):
        assert batch.row_lengths is None
        assert batch.input_ids_BT[0, -row.num_tokens :].tolist() == row.input_ids.tolist()
        assert batch.position_ids_BT[0, -row.num_tokens :].tolist() == list(range(row.num_tokens))
        assert batch.attention_mask_BT[0].sum() == row.num_tokens
        assert (batch.labels_BS[0] != X).sum() == row.num_tokens
    assert to_score.prompts([ids(*range(11))], room=8).input_ids_BT.shape == (1, 12)
    assert to_score.prompts([ids(*range(11))], room=9).input_ids_BT.shape == (1, 11)
    assert to_score.prompts([ids(*range(13))], after=2, room=7).input_ids_BT.shape == (1, 11)
    assert to_score.prefix(ids(*range(20)), length=11).input_ids_BT.shape == (1, 11)
