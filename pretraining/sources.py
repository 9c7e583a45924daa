"""Reads the public sets in shared/data and the project's own retained tasks: one reader for each."""

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from writing import RUDE, join_tokens, join_wrapped, plain_quotes

Row = TypeVar("Row")
OWN_TASKS = ("names", "party", "fact_or_opinion", "text")

# Sentiment is what the base model must not know yet, so instructions that touch on it in any way stay out.
SENTIMENT = re.compile(r"sentiment|positiv|negativ|review|emotion|\bmood|\btone\b|stereotyp", re.I)
# Entries of the names list that are nations, places, months or titles far more often than people.
NOT_NAMES = frozenset(
    """
        French German Roman Saxon Dane France Canada Israel Brittany Lorraine India China Kenya Asia Paris
        London Sydney Dallas Carolina Montana Dakota Holland Vienna Verona Venice Geneva Salem Devon Kent
        Hastings Raleigh Lincoln April May June August Easter Tuesday Christian Christ Jesus God Caesar Sultan
        Kaiser King Prince Queen Duke Earl Baron Major Sergeant Mayor Bishop Abbot Marshal Marquis Sir Royal
        Forest Park Hill Town West North East South Bay Will Don Dom Art Son Job Red Lion Wolf Bear Cat Fox
        Goose Lamb Star Heaven Temple Rich Happy Merry Love Wake Page Shell Rock Hall See Any Man Bird Flower
        Way Do Missy Case Saw Winter Early Standard Gay Fair Fancy
    """.split()
)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One line of the mixture; an empty prompt marks plain text."""

    prompt: str
    completion: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Span:
    """One slot of a booking: its value stands at text[start:end]."""

    slot: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Booking:
    """What a guest said, with its slots in order of place and the slots asked for just before."""

    text: str
    spans: tuple[Span, ...]
    requested: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """A sentence with its named entities: (type, text) in order."""

    text: str
    entities: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Texts:
    """All that one split of the mixture is made from; `own` holds the project's own rows by task.

    `pages` are the chapters as published: lines wrapped, quotes typeset.
    """

    chapters: list[str]
    pages: list[str]
    tagged: list[Tagged]
    bookings: list[Booking]
    subjectivity: list[tuple[str, str]]
    intents: list[tuple[str, str]]
    problems: list[tuple[str, str]]
    instructions: list[tuple[str, str]]
    own: dict[str, list[dict[str, Any]]]


def read_texts(shared: Path, *, assets: Path, split: str) -> Texts:
    """Return the texts of one split: books by their own splits, the train rows of all else by checksum."""
    tagged = read_tagged(shared, "wikigold") + read_tagged(shared, "broad_twitter")
    return Texts(
        chapters=[join_wrapped(plain_quotes(page)) for page in read_pages(shared, split)],
        pages=read_pages(shared, split),
        tagged=cut(tagged, split),
        bookings=cut(read_bookings(shared), split),
        subjectivity=cut(read_subjectivity(shared), split),
        intents=cut(read_intents(shared), split),
        problems=cut(read_word_problems(shared), split),
        instructions=cut(read_instructions(shared), split),
        own={name: cut(list(read_jsonl(assets / name / "train.jsonl")), split) for name in OWN_TASKS},
    )


def cut(rows: list[Row], split: str) -> list[Row]:
    """Return the rows that fall to a split by the crc32 of what they say: about 98 of 100 to train, 1 to each other."""
    share = {"validation": (0,), "test": (1,), "train": range(2, 100)}[split]
    return [row for row in rows if zlib.crc32(repr(row).encode()) % 100 in share]


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON-lines file; a missing file or a broken line is a ValueError that names it."""
    if not path.is_file():
        raise ValueError(f"{path} is missing.")
    for number, line in enumerate(path.read_text(encoding="utf-8").rstrip("\n").split("\n"), start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}.") from error


def read_pages(shared: Path, split: str) -> list[str]:
    """Return the chapters of the children's books as published."""
    return [row["text"] for row in read_jsonl(shared / "childrens_books" / f"{split}.jsonl")]


def read_first_names(shared: Path) -> dict[str, tuple[str, ...]]:
    """Return the plain first names of the train list by gender."""
    names: dict[str, list[str]] = {"female": [], "male": []}
    for row in read_jsonl(shared / "names" / "train.jsonl"):
        if re.fullmatch(r"[A-Z][a-z]{2,11}", row["name"]) and row["name"] not in NOT_NAMES:
            names[row["gender"]].append(row["name"])
    return {gender: tuple(listed) for gender, listed in names.items()}


def read_held_out_names(shared: Path, *, assets: Path) -> frozenset[str]:
    """Return the names of the held-out lists and of the project's held-out rows."""
    lists = [source / "names" / f"{split}.jsonl" for source in (shared, assets) for split in ("validation", "test")]
    return frozenset(row["name"] for path in lists for row in read_jsonl(path))


def read_tagged(shared: Path, name: str) -> list[Tagged]:
    """Return the sentences of wikigold or broad_twitter with their entities; links and rudeness left out."""
    sentences = []
    for row in read_jsonl(shared / name / "train.jsonl"):
        text = join_tokens(row["tokens"])
        if 4 <= len(row["tokens"]) <= 32 and not RUDE.search(text) and not re.search(r"https?:|@|#|\bRT\b", text):
            sentences.append(Tagged(text=text, entities=tuple(_entities(row["tokens"], row["ner_tags"]))))
    return sentences


def _entities(tokens: list[str], tags: list[str]) -> Iterator[tuple[str, str]]:
    start = 0
    for end in range(1, len(tags) + 1):
        if end == len(tags) or not tags[end].startswith("I-"):
            if tags[start] != "O":
                yield tags[start][2:], join_tokens(tokens[start:end])
            start = end


def read_bookings(shared: Path) -> list[Booking]:
    """Return what guests said in restaurant8k."""
    bookings = []
    for row in read_jsonl(shared / "restaurant8k" / "train.jsonl"):
        labels = sorted(row["labels"], key=lambda label: label["start"])
        spans = tuple(Span(slot=label["slot"], start=label["start"], end=label["end"]) for label in labels)
        if not RUDE.search(row["text"]) and all(a.end <= b.start for a, b in pairwise(spans)):
            bookings.append(
                Booking(text=plain_quotes(row["text"]), spans=spans, requested=tuple(row["requested_slots"]))
            )
    return bookings


def read_subjectivity(shared: Path) -> list[tuple[str, str]]:
    """Return down-cased sentences with their answer: objective is a fact, subjective an opinion."""
    answers = {"objective": "fact", "subjective": "opinion"}
    rows = list(read_jsonl(shared / "subjectivity" / "train.jsonl"))
    # "&" marks foreign names with broken letters, a bracket at the start a snippet cut from a longer review.
    readable = [row for row in rows if "&" not in row["sentence"] and row["sentence"][0].isalpha()]
    return [(row["sentence"], answers[row["label"]]) for row in readable if not RUDE.search(row["sentence"])]


def read_intents(shared: Path) -> list[tuple[str, str]]:
    """Return banking questions with their intent in words."""
    rows = read_jsonl(shared / "banking77" / "train.jsonl")
    return [(plain_quotes(row["text"]).strip(), row["intent"].replace("_", " ").strip("?").lower()) for row in rows]


def read_word_problems(shared: Path) -> list[tuple[str, str]]:
    """Return school problems with their worked answers."""
    rows = read_jsonl(shared / "gsm8k" / "train.jsonl")
    return [(re.sub(r"\s+", " ", plain_quotes(row["question"])).strip(), row["answer"].strip()) for row in rows]


def read_instructions(shared: Path) -> list[tuple[str, str]]:
    """Return the instructions of self_instruct and llm_from_scratch with their answers, sentiment left out."""
    pairs = []
    for name in ("self_instruct", "llm_from_scratch"):
        for row in read_jsonl(shared / name / "train.jsonl"):
            prompt = "\n".join(part.strip() for part in (row["instruction"], row["input"]) if part.strip())
            if not SENTIMENT.search(prompt + row["output"]) and not RUDE.search(prompt + row["output"]):
                pairs.append((plain_quotes(prompt), plain_quotes(row["output"]).strip()))
    return pairs
