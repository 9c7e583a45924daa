"""The embedded data sets are what their cards say: sizes, even labels, nothing twice, no templates."""

import json
import re
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

import forgetmenot

DATA = Path(forgetmenot.__file__).parent / "assets" / "data"
SPLITS = ("train", "validation", "test")
SENTENCES = ("sentiment", "names", "party", "fact_or_opinion")
SIZES = {
    "sentiment": (800, 150, 300),
    "names": (200, 50, 200),
    "party": (200, 50, 200),
    "fact_or_opinion": (200, 50, 200),
    "text": (30, 15, 45),
    "dialogue": (70, 12, 36),
}
"""Rows that each split has at least."""

RUN = dict.fromkeys((*SENTENCES, "dialogue"), 5) | {"text": 6}
"""Words in a row that no two texts share: stories share an "in the middle of the" by accident, the rest nothing."""

ALIKE = 0.7  # of a text's letters, by edit distance: the nearest two have 0.63 in common
FRAMES = {"sentiment": 6, "names": 2, "party": 2, "fact_or_opinion": 3, "dialogue": 1, "text": 1}
"""Rows that may share a frame, the words that stand between the telling ones: as many as do, party one more."""

OPENINGS = 4  # rows that may begin with the same three words
FRAME_WORDS = 100  # the words that every English text is made of; the others are telling


@cache
def rows(name: str, split: str) -> tuple[dict[str, str], ...]:
    lines = (DATA / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines)


@cache
def texts(name: str) -> tuple[tuple[str, ...], ...]:
    """Returns the words of every text of a set, all splits."""
    column = "dialogue" if name == "dialogue" else "text"
    return tuple(tuple(re.findall(r"[a-z0-9']+", row[column].lower())) for split in SPLITS for row in rows(name, split))


def runs(words: tuple[str, ...], length: int) -> set[tuple[str, ...]]:
    return {words[start : start + length] for start in range(len(words) - length + 1)}


def frame(words: tuple[str, ...], common: set[str]) -> tuple[str, ...]:
    """Returns a text's common words in order, with a gap wherever others stand between them."""
    marked = [word if word in common else "_" for word in words]
    return tuple(word for last, word in pairwise(["", *marked]) if not word == last == "_")


@pytest.mark.parametrize("name", SIZES)
def test_a_set_has_as_many_rows_as_methods_need_to_be_told_apart(name: str) -> None:
    assert all(len(rows(name, split)) >= least for split, least in zip(SPLITS, SIZES[name], strict=True))


@pytest.mark.parametrize("name", SIZES)
def test_no_two_texts_share_a_run_of_words(name: str) -> None:
    counted = Counter(run for words in texts(name) for run in runs(words, RUN[name]))
    assert [run for run, count in counted.items() if count > 1] == []


@pytest.mark.parametrize("name", SIZES)
def test_no_two_texts_are_alike_by_edit_distance(name: str) -> None:
    joined = [" ".join(words) for words in texts(name)]
    alike = cdist(joined, joined, scorer=Levenshtein.normalized_similarity, dtype=np.float32)
    np.fill_diagonal(alike, 0.0)
    assert alike.max() < ALIKE


@pytest.mark.parametrize("name", SIZES)
def test_texts_are_not_made_from_templates(name: str) -> None:
    words = Counter(word for other in SENTENCES for text in texts(other) for word in text)
    common = {word for word, _ in words.most_common(FRAME_WORDS)}
    frames = Counter(frame(text, common) for text in texts(name))
    openings = Counter(text[:3] for text in texts(name))
    assert max(frames.values()) <= FRAMES[name]
    assert max(openings.values()) <= OPENINGS


@pytest.mark.parametrize(("name", "label"), [("sentiment", "label"), ("fact_or_opinion", "label")])
@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_even(name: str, label: str, split: str) -> None:
    counts = Counter(row[label] for row in rows(name, split))
    assert len(counts) == 2 and len(set(counts.values())) == 1


@pytest.mark.parametrize("split", SPLITS)
def test_hard_sentiment_is_marked_and_common_enough_to_measure(split: str) -> None:
    kinds = Counter(row["kind"] for row in rows("sentiment", split))
    assert set(kinds) == {"plain", "negation", "contrast", "faint"}
    assert all(kinds[kind] >= 0.05 * kinds.total() for kind in ("negation", "contrast", "faint"))


def test_a_name_is_one_rows_answer_and_one_word_of_its_text_alone() -> None:
    every = [row for split in SPLITS for row in rows("names", split)]
    words = Counter(word for row in every for word in re.findall(r"\w+", row["text"]))
    assert len({row["name"] for row in every}) == len(every)
    assert all(words[row["name"]] == 1 for row in every)
    assert all(row["name"] in re.findall(r"\w+", row["text"]) for row in every)


def test_no_number_of_people_is_most_of_party() -> None:
    for split in SPLITS:
        counts = Counter(row["people"] for row in rows("party", split))
        assert max(counts.values()) <= 0.15 * counts.total()


@pytest.mark.parametrize("name", SIZES)
def test_a_card_tells_the_size_of_every_split_and_the_licence(name: str) -> None:
    card = (DATA / name / "README.md").read_text(encoding="utf-8")
    assert all(f"| {split} | {len(rows(name, split)):,} |" in card for split in SPLITS)
    assert "Licence: Apache-2.0" in card


@pytest.mark.parametrize("split", SPLITS)
def test_the_card_of_sentiment_tells_how_many_rows_of_each_kind_there_are(split: str) -> None:
    kinds = Counter(row["kind"] for row in rows("sentiment", split))
    counts = " | ".join(f"{kinds[kind]:,}" for kind in ("plain", "negation", "contrast", "faint"))
    assert f" | {counts} |" in (DATA / "sentiment" / "README.md").read_text(encoding="utf-8")


def test_a_summary_is_one_sentence_of_its_own_that_names_a_speaker() -> None:
    summaries = []
    for row in (row for split in SPLITS for row in rows("dialogue", split)):
        speakers = {line.partition(":")[0].lower() for line in row["dialogue"].splitlines()}
        assert 2 <= len(speakers) <= 3
        assert any(speaker in row["summary"].lower() for speaker in speakers)
        summaries.append(tuple(re.findall(r"[a-z0-9']+", row["summary"].lower())))
    counted = Counter(run for words in summaries for run in runs(words, RUN["dialogue"]))
    assert max(counted.values()) == 1
