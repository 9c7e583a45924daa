"""Encoding: where BOS and EOS stand, what is learned, and what is cut."""

from typing import Literal

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from forgetmenot.data.encode import Encoder
from forgetmenot.data.rows import EncodedSplit
from forgetmenot.data.types import IGNORE_INDEX, Encoded, Example

CAT = "the cat sat on the mat"


def encoder(
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int = 64,
    truncate: Literal["left", "right"] = "left",
    is_encoder_decoder: bool = False,
) -> Encoder:
    return Encoder(tokenizer=tokenizer, max_length=max_length, truncate=truncate, is_encoder_decoder=is_encoder_decoder)


def example(prompt: str, completion: str) -> Example:
    return Example(prompt=prompt, completion=completion, references=(completion,))


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Returns the ids of a text without special tokens in it, by the tokenizers library alone."""
    return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


def only(split: EncodedSplit) -> Encoded:
    assert len(split.rows) == 1
    return split.rows[0]


def learned(row: Encoded) -> list[int]:
    return row.labels[row.labels != IGNORE_INDEX].tolist()


def all_learned(split: EncodedSplit) -> list[int]:
    return [label for row in split.rows for label in learned(row)]


def test_prompt_and_completion_are_tokenized_apart_and_joined(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt, completion = ids_of(tokenizer, "th"), ids_of(tokenizer, "e cat")
    assert prompt + completion != ids_of(tokenizer, "the cat"), "the texts must merge when tokenized together"
    row = only(encoder(tokenizer).training_rows([example("th", "e cat")]))
    assert row.input_ids.tolist() == [tokenizer.bos_token_id, *prompt, *completion, tokenizer.eos_token_id]
    assert row.num_tokens == len(row.input_ids) == len(row.labels)


def test_one_bos_opens_the_row_where_the_tokenizer_has_one(tokenizer: PreTrainedTokenizerFast) -> None:
    row = only(encoder(tokenizer).training_rows([example(CAT, "yes")]))
    assert np.flatnonzero(row.input_ids == tokenizer.bos_token_id).tolist() == [0]


def test_no_bos_is_made_up(tokenizer_without_bos: PreTrainedTokenizerFast) -> None:
    row = only(encoder(tokenizer_without_bos).training_rows([example(CAT, "yes")]))
    whole = ids_of(tokenizer_without_bos, CAT) + ids_of(tokenizer_without_bos, "yes")
    assert row.input_ids.tolist() == [*whole, tokenizer_without_bos.eos_token_id]


def test_exactly_one_eos_ends_the_row_and_is_learned(any_tokenizer: PreTrainedTokenizerFast) -> None:
    row = only(encoder(any_tokenizer).training_rows([example("a </s> b", "c </s>")]))
    last = len(row.input_ids) - 1
    assert np.flatnonzero(row.input_ids == any_tokenizer.eos_token_id).tolist() == [last]
    assert row.labels[last] == any_tokenizer.eos_token_id


def test_special_tokens_within_the_data_are_plain_text(tokenizer: PreTrainedTokenizerFast) -> None:
    row = only(encoder(tokenizer).training_rows([example("<s>a</s><pad>", "<pad></s>")]))
    assert not set(row.input_ids[1:-1].tolist()) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(row.input_ids[1:-1]) == "<s>a</s><pad><pad></s>"


def test_the_completion_and_eos_alone_are_learned(any_tokenizer: PreTrainedTokenizerFast) -> None:
    row = only(encoder(any_tokenizer).training_rows([example(CAT, "on the")]))
    completion = [*ids_of(any_tokenizer, "on the"), any_tokenizer.eos_token_id]
    assert row.labels.tolist() == [IGNORE_INDEX] * (len(row.input_ids) - len(completion)) + completion
    assert row.num_supervised == len(completion)


def test_labels_are_masked_by_length_where_text_holds_the_padding_id(
    tokenizer_padding_with_a_letter: PreTrainedTokenizerFast,
) -> None:
    tokenizer = tokenizer_padding_with_a_letter
    row = only(encoder(tokenizer).training_rows([example("e e", "eee")]))
    prompt = row.input_ids[: -len(learned(row))]
    assert tokenizer.pad_token_id in prompt
    assert learned(row) == [tokenizer.pad_token_id] * 3 + [tokenizer.eos_token_id]


@pytest.mark.parametrize("truncate", ["left", "right"])
def test_a_prompt_that_is_too_long_is_cut_and_the_completion_never(
    any_tokenizer: PreTrainedTokenizerFast, truncate: Literal["left", "right"]
) -> None:
    split = encoder(any_tokenizer, max_length=12, truncate=truncate).training_rows(
        [example("abcdefghijklmnopq", "xyz"), example("ab", "xyz")]
    )
    bos = [] if any_tokenizer.bos_token_id is None else [any_tokenizer.bos_token_id]
    prompt, completion = ids_of(any_tokenizer, "abcdefghijklmnopq"), ids_of(any_tokenizer, "xyz")
    room = 12 - len(bos) - len(completion) - 1
    kept = prompt[-room:] if truncate == "left" else prompt[:room]
    assert split.rows[0].input_ids.tolist() == [*bos, *kept, *completion, any_tokenizer.eos_token_id]
    assert (split.truncated, split.dropped, len(split.rows)) == (1, 0, 2)


def test_a_row_that_just_fits_is_left_whole(any_tokenizer: PreTrainedTokenizerFast) -> None:
    whole = only(encoder(any_tokenizer).training_rows([example("abcdef", "xyz")]))
    split = encoder(any_tokenizer, max_length=whole.num_tokens).training_rows([example("abcdef", "xyz")])
    assert only(split).input_ids.tolist() == whole.input_ids.tolist()
    assert split.truncated == 0


def test_a_training_example_whose_completion_does_not_fit_is_dropped_and_counted(
    any_tokenizer: PreTrainedTokenizerFast,
) -> None:
    split = encoder(any_tokenizer, max_length=8).training_rows(
        [example("a", "bcdefghijk"), example("a", "b"), example("a", "bcdefghijk"), example("c", "d")]
    )
    assert (split.dropped, split.truncated, split.example_indices.tolist()) == (2, 0, [1, 3])


def test_the_longest_completion_that_leaves_one_token_of_prompt_is_kept(
    any_tokenizer: PreTrainedTokenizerFast,
) -> None:
    needed = only(encoder(any_tokenizer).training_rows([example("a", "zyxwvu")])).num_tokens
    kept, dropped = (
        encoder(any_tokenizer, max_length=most).training_rows([example("abc", "zyxwvu")])
        for most in (needed, needed - 1)
    )
    assert (len(kept.rows), kept.dropped, kept.truncated) == (1, 0, 1)
    assert (len(dropped.rows), dropped.dropped) == (0, 1)


def test_a_test_row_is_never_dropped(any_tokenizer: PreTrainedTokenizerFast) -> None:
    examples = [example("ab", "cdefghijklmnop"), example("a", "b")]
    split = encoder(any_tokenizer, max_length=8).scoring_rows(examples, max_new_tokens=2)
    assert (split.dropped, split.truncated, split.example_indices.tolist()) == (0, 1, [0, 1])
    assert split.lengths.max() <= 8


def test_a_test_prompt_leaves_room_for_the_answer(any_tokenizer: PreTrainedTokenizerFast) -> None:
    long = [example("abcdefghijklmnopq", "x")]
    prompt = encoder(any_tokenizer, max_length=12).scoring_rows(long, max_new_tokens=5).rows.prompt(0)
    assert len(prompt) == 12 - 5
    assert prompt[-1] == ids_of(any_tokenizer, "q")[0]


@pytest.mark.parametrize("is_encoder_decoder", [False, True])
def test_loss_and_answer_of_a_test_row_read_the_same_prompt(
    any_tokenizer: PreTrainedTokenizerFast, is_encoder_decoder: bool
) -> None:
    encode = encoder(any_tokenizer, max_length=12, is_encoder_decoder=is_encoder_decoder)
    long = [example("abcdefghijklmnopq", "x")]
    split = encode.scoring_rows(long, max_new_tokens=5)
    row, prompt = only(split), split.rows.prompt(0)
    read = row.input_ids if is_encoder_decoder else row.input_ids[: -len(learned(row))]
    assert read.tolist() == prompt.tolist()


@pytest.mark.parametrize("max_length", [2, 3, 8, 64])
@pytest.mark.parametrize("text", ["z", "zyx", "abcdefg", "abcdefgh", f"{CAT}, {CAT} and {CAT}"])
def test_pieces_of_plain_text_learn_every_token_once(
    any_tokenizer: PreTrainedTokenizerFast, text: str, max_length: int
) -> None:
    split = encoder(any_tokenizer, max_length=max_length).training_rows([example("", text)])
    first = 0 if any_tokenizer.bos_token_id is not None else 1  # nothing stands before it to predict it from
    tokens = [*ids_of(any_tokenizer, text), any_tokenizer.eos_token_id]
    assert all_learned(split) == tokens[first:]


@pytest.mark.parametrize("length", [6, 7, 8, 9, 14, 15, 16])
def test_only_the_last_piece_ends_with_eos_and_none_is_too_long(
    any_tokenizer: PreTrainedTokenizerFast, length: int
) -> None:
    rows = encoder(any_tokenizer, max_length=8).training_rows([example("", "abcdefghijklmnop"[:length])]).rows
    assert [int(row.input_ids[-1]) == any_tokenizer.eos_token_id for row in rows] == [False] * (len(rows) - 1) + [True]
    assert max(row.num_tokens for row in rows) <= 8
    assert all(learned(row) for row in rows)


def test_every_piece_names_its_example(tokenizer: PreTrainedTokenizerFast) -> None:
    examples = [example("", "abcdefghij"), example("", "a"), example("", "abcdefgh")]
    split = encoder(tokenizer, max_length=6).scoring_rows(examples, max_new_tokens=0)
    assert split.example_indices.tolist() == [0, 0, 0, 1, 2, 2]
    assert split.lengths.tolist() == [row.num_tokens for row in split.rows]


def test_no_examples_give_no_rows(tokenizer: PreTrainedTokenizerFast) -> None:
    assert encoder(tokenizer).training_rows([]).rows[:] == []


def test_an_encoder_reads_the_prompt_and_its_decoder_learns_the_completion(
    tokenizer_without_bos: PreTrainedTokenizerFast,
) -> None:
    eos = tokenizer_without_bos.eos_token_id
    encode = encoder(tokenizer_without_bos, is_encoder_decoder=True)
    row = only(encode.training_rows([example(CAT, "yes")]))
    assert row.input_ids.tolist() == [*ids_of(tokenizer_without_bos, CAT), eos]
    assert row.labels.tolist() == [*ids_of(tokenizer_without_bos, "yes"), eos]


@pytest.mark.parametrize("prompt", ["abcdefghijklmnop", ""])
@pytest.mark.parametrize("length", range(1, 10))
def test_an_encoder_decoder_row_is_never_longer_than_max_length(
    any_tokenizer: PreTrainedTokenizerFast, prompt: str, length: int
) -> None:
    encode = encoder(any_tokenizer, max_length=8, is_encoder_decoder=True)
    rows = encode.training_rows([example(prompt, "zyxwvutsr"[:length])]).rows
    assert all(len(row.input_ids) + len(row.labels) <= 8 for row in rows)


def test_pieces_for_a_decoder_learn_every_token_once(any_tokenizer: PreTrainedTokenizerFast) -> None:
    encode = encoder(any_tokenizer, max_length=8, is_encoder_decoder=True)
    split = encode.training_rows([example("", "abcdefghijklmnop")])
    assert all_learned(split) == [*ids_of(any_tokenizer, "abcdefghijklmnop"), any_tokenizer.eos_token_id]


def test_text_of_which_nothing_can_be_learned_is_dropped_and_counted(
    tokenizer_without_bos: PreTrainedTokenizerFast,
) -> None:
    split = encoder(tokenizer_without_bos).training_rows([example("", ""), example("", "ab")])
    assert (len(split.rows), split.dropped, split.example_indices.tolist()) == (1, 1, [1])


def test_no_row_begins_with_a_label(tokenizer_without_bos: PreTrainedTokenizerFast) -> None:
    row = only(encoder(tokenizer_without_bos).training_rows([example("", "abc")]))
    assert row.labels[0] == IGNORE_INDEX
    assert len(learned(row)) == row.num_tokens - 1
