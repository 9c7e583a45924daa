"""What is encoded once: found again under the same content and settings, and never half-written."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from forgetmenot import cache_room
from forgetmenot.data.encode import Encoder
from forgetmenot.data.rows import EncodedSplit
from forgetmenot.data.types import Example

EXAMPLES = [Example(prompt=f"the cat {i}", completion="sat", references=()) for i in range(5)]


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Encoder:
    return Encoder(
        tokenizer=tokenizer, max_length=32, truncate="left", is_encoder_decoder=False, cache=tmp_path / "cache"
    )


def kept(encoder: Encoder) -> list[Path]:
    assert encoder.cache is not None
    return sorted(encoder.cache.iterdir()) if encoder.cache.exists() else []


def rows_of(split: EncodedSplit) -> list[tuple[list[int], list[int]]]:
    return [(row.input_ids.tolist(), row.labels.tolist()) for row in split.rows]


def test_rows_are_found_again_memory_mapped_and_the_same(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    made = encoder.training_rows(EXAMPLES)
    monkeypatch.setattr(Encoder, "_tokenize", lambda *_: pytest.fail("nothing is tokenized twice"))
    found = encoder.training_rows(EXAMPLES)
    assert rows_of(found) == rows_of(made) == rows_of(replace(encoder, cache=encoder.cache).training_rows(EXAMPLES))
    assert isinstance(found.rows.tokens, np.memmap)
    assert (found.truncated, found.dropped, found.example_indices.tolist()) == (0, 0, [0, 1, 2, 3, 4])


def test_another_text_or_setting_is_encoded_anew(
    encoder: Encoder, tokenizer_without_bos: PreTrainedTokenizerFast
) -> None:
    other = [replace(EXAMPLES[0], prompt="the dog"), *EXAMPLES[1:]]
    encoder.training_rows(EXAMPLES)
    encoder.training_rows(other)
    encoder.scoring_rows(EXAMPLES, max_new_tokens=4)
    for changed in (
        replace(encoder, max_length=16),
        replace(encoder, truncate="right"),
        replace(encoder, is_encoder_decoder=True),
        replace(encoder, tokenizer=tokenizer_without_bos),
    ):
        changed.training_rows(EXAMPLES)
    assert len(kept(encoder)) == 7


def test_moving_a_border_between_prompt_and_completion_is_another_text(encoder: Encoder) -> None:
    for prompt, completion in (("ab", "c"), ("a", "bc")):
        split = encoder.training_rows([Example(prompt=prompt, completion=completion, references=())])
        assert split.rows.completion_lengths.sum() == len(completion) + 1
    assert len(kept(encoder)) == 2


@pytest.mark.parametrize("damage", ["cut", "emptied", "gone", "no facts"])
def test_damaged_files_are_made_anew(encoder: Encoder, damage: str) -> None:
    made = rows_of(encoder.training_rows(EXAMPLES))
    (place,) = kept(encoder)
    tokens = place / "tokens.npy"
    if damage == "cut":
        os.truncate(tokens, tokens.stat().st_size - 8)
    elif damage == "emptied":
        tokens.write_bytes(b"")
    elif damage == "gone":
        tokens.unlink()
    else:
        (place / "split.json").write_text("{", encoding="utf-8")

    assert rows_of(encoder.training_rows(EXAMPLES)) == made
    assert rows_of(encoder.training_rows(EXAMPLES)) == made
    assert [path.name for path in kept(encoder)] == [place.name]


def test_a_place_that_cannot_be_written_is_told_and_the_rows_are_there(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="encoded rows cannot be kept in .*so each run encodes anew"):
        split = replace(encoder, cache=tmp_path / "file" / "cache").training_rows(EXAMPLES)
    assert len(split.rows) == 5


def test_no_rows_are_kept_and_found_as_well(encoder: Encoder) -> None:
    assert len(encoder.training_rows([]).rows) == len(encoder.training_rows([]).rows) == 0


def test_where_room_ends_rows_used_longest_ago_go_and_those_of_this_run_stay(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for length in (30, 31, 32):
        replace(encoder, max_length=length).training_rows(EXAMPLES)
    for place in kept(encoder):
        os.utime(place, (1000, 1000))
    used = replace(encoder, max_length=30).training_rows(EXAMPLES)
    monkeypatch.setattr(cache_room, "ROOM", 1)

    replace(encoder, max_length=33).training_rows(EXAMPLES)

    assert len(kept(encoder)) == 2
    again = replace(encoder, max_length=30).training_rows(EXAMPLES)
    assert again.rows.tokens.filename == used.rows.tokens.filename


def test_what_a_killed_writer_left_goes_after_a_day_and_what_is_being_written_stays(encoder: Encoder) -> None:
    assert encoder.cache is not None
    left, writing = encoder.cache / ".old", encoder.cache / ".new"
    left.mkdir(parents=True)
    writing.mkdir()
    os.utime(left, (0, 0))
    encoder.training_rows(EXAMPLES)
    assert not left.exists()
    assert writing.exists()
