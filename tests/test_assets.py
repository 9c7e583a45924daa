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
FRAMES = {"sentiment": 4, "names": 2, "party": 1, "fact_or_opinion": 3, "dialogue": 1, "text": 1}
"""Rows that share a frame at most: function words in two or more places between the telling ones."""

BARE = 9  # rows that share what is hardly a frame: telling words alone, or with function words in one place

OPENINGS = 4  # rows that may begin with the same three words
FUNCTION_WORDS = frozenset(
    "a an the this that these those some any no every each all both another other such much many few more most less "
    "i you he she it we they me him her us them my your his its our their mine yours hers ours theirs who whom whose "
    "which what where when why how someone something everyone everything anyone anything nobody nothing none one "
    "and or but nor so yet if then than as because while although though until unless since before after once "
    "of in on at by for with without about against between into onto through during above below to from up down out "
    "off over under around behind beside near past per like not never only just even still already again too very "
    "quite rather almost also here there now ever always often is are was were am be been being do does did done have "
    "has had having will would can could shall should may might must let's i'm it's that's don't didn't doesn't isn't "
    "wasn't aren't weren't won't wouldn't can't couldn't shouldn't haven't hasn't hadn't i've we've you've they've "
    "i'll we'll you'll he'll she'll they'll i'd we'd you'd he'd she'd they'd there's what's who's he's she's we're "
    "they're you're".split()
)
"""The words that every English text is made of, a closed list: all others are telling."""


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


def frame(words: tuple[str, ...]) -> tuple[str, ...]:
    """Returns a text's function words in order, with a gap wherever others stand between them."""
    marked = [word if word in FUNCTION_WORDS else "_" for word in words]
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
    frames = Counter(map(frame, texts(name)))
    bare = {each for each in frames if sum(bool(part.strip()) for part in " ".join(each).split("_")) < 2}
    openings = Counter(text[:3] for text in texts(name))
    assert max(count for each, count in frames.items() if each not in bare) <= FRAMES[name]
    assert max((frames[each] for each in bare), default=0) <= BARE
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
