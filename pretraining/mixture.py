"""Mixes the sources into one seeded list of records, and keeps out of it what the model is tested on."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from names import Lexicon
from skills import skill_sources, text_sources
from sources import OWN_TASKS, Record, Texts, read_jsonl
from tasks import Source, fact_sources, name_sources, party_sources
from writing import fold, folded_words, join_tokens, split_sentences, word_runs

# Times that each chapter of the books comes: once with its lines and quotes mended, as a person would type, and twice
# as published, as anyone's plain text comes.
PASSES = {"books/mended": 1, "books/published": 2}
# Records of every other source in train: a short task is repeated with other names and numbers. Two thirds of all
# tokens are plain text, the rest names, party, fact or opinion and general skills.
COUNTS = {
    "text/own": 300,
    "names/books": 52_000,
    "names/problems": 18_000,
    "names/entities": 3_000,
    "names/bookings": 6_000,
    "names/own": 28_000,
    "party/bookings": 42_000,
    "party/phrases": 18_000,
    "party/own": 24_000,
    "fact_or_opinion/facts": 10_000,
    "fact_or_opinion/opinions": 11_000,
    "fact_or_opinion/own": 9_000,
    "fact_or_opinion/told": 3_000,
    "fact_or_opinion/phrases": 5_000,
    "copy/words": 20_000,
    "copy/lists": 20_000,
    "slots": 9_000,
    "entities": 4_000,
    "intents": 8_000,
    "problems": 2_500,
    "instructions": 4_000,
}
SPLITS = ("train", "validation", "test")
HELD_OUT_RECORDS = 100  # per source in the mixture's own validation and test splits: enough for a loss, quick to score
RUNS = (4, 5, 6)  # two texts share six words in a row by no accident; a shorter sentence counts as a whole
TELLING = 30  # letters from which a sentence is its own and not a common phrase


@dataclass(frozen=True, kw_only=True)
class Forbidden:
    """What no record may repeat: whole texts and telling sentences, test rows' texts as prompts, runs of words of sst2.

    Texts are folded.
    """

    texts: frozenset[str]
    prompts: frozenset[str]
    runs: frozenset[tuple[str, ...]]

    def touches(self, record: Record) -> bool:
        """Whether a record repeats a forbidden text."""
        if not record.prompt:
            return not self.texts.isdisjoint(fold(text) for text in _telling(record.completion))
        text, _, question = record.prompt.rpartition("\n")
        asked = {fold(text or question), fold(record.prompt)}
        folded = asked | {fold(text) for text in _telling(record.completion)}
        words = folded_words(record.prompt), folded_words(record.completion)
        runs = (word_runs(listed, length=length) for listed in words for length in RUNS)
        repeats = not self.texts.isdisjoint(folded) or not self.prompts.isdisjoint(asked)
        return repeats or any(not self.runs.isdisjoint(found) for found in runs)


def read_forbidden(shared: Path, *, assets: Path) -> Forbidden:
    """Return all sst2 sentences, every set's test rows, and what the project's own sets hold out.

    Of the project's own sets that is all of one that is no retained task.
    """
    if not assets.is_dir():
        raise ValueError(f"{assets} is missing.")
    sentiment = [row["sentence"] for split in SPLITS for row in read_jsonl(shared / "sst2" / f"{split}.jsonl")]
    held_out = list(sentiment)
    for path in sorted(assets.glob("*/*.jsonl")):
        if path.stem == "train" and path.parent.name in OWN_TASKS:
            continue
        for row in read_jsonl(path):
            held_out += [*_asked(row), *(_telling(row["text"]) if path.parent.name == "text" else [])]
    words = [listed for listed in map(folded_words, sentiment) if len(listed) >= min(RUNS)]
    runs = set().union(*(word_runs(listed, length=min(len(listed), max(RUNS))) for listed in words))
    tests = (row for path in sorted(shared.glob("*/test.jsonl")) for row in read_jsonl(path))
    prompts = {fold(text) for row in tests for text in _asked(row)}
    held_out_texts = frozenset(map(fold, held_out)) - {""}
    return Forbidden(texts=held_out_texts, prompts=frozenset(prompts) - {""}, runs=frozenset(runs))


def _asked(row: dict[str, Any]) -> Iterator[str]:
    """Yield what a row of any set asks about, under whatever name."""
    yield from (row[column] for column in ("text", "sentence", "question", "instruction", "dialogue") if column in row)
    if "tokens" in row:
        yield join_tokens(row["tokens"])


def _telling(text: str) -> Iterator[str]:
    yield text
    yield from (sentence for sentence in split_sentences(text) if len(fold(sentence)) >= TELLING)


def mix(texts: Texts, *, split: str, lexicon: Lexicon, forbidden: Forbidden, seed: int) -> list[Record]:
    """Return the records of one split in seeded order, none of them forbidden."""
    sources = [
        *text_sources(texts),
        *name_sources(texts, lexicon=lexicon),
        *party_sources(texts, names=lexicon.names),
        *fact_sources(texts, lexicon=lexicon),
        *skill_sources(texts, names=lexicon.names),
    ]
    records: list[Record] = []
    for source in sources:
        rng = Random(f"{seed} {split} {source.name}")
        count = COUNTS.get(source.name, PASSES.get(source.name, 1) * len(source.bases))
        count = count if split == "train" else min(count, HELD_OUT_RECORDS, len(source.bases))
        records += draw(source, count=count, forbidden=forbidden, rng=rng)
    Random(f"{seed} {split}").shuffle(records)
    return records


def draw(source: Source[Any], *, count: int, forbidden: Forbidden, rng: Random) -> list[Record]:
    """Return `count` records of a source: its texts again and again in new order, each time rendered anew."""
    drawn: list[Record] = []
    bases = list(source.bases)
    while len(drawn) < count:
        rng.shuffle(bases)
        before = len(drawn)
        for base in bases:
            record = source.render(base, rng)
            if record is not None and not forbidden.touches(record):
                drawn.append(record)
            if len(drawn) == count:
                break
        if len(drawn) == before:
            raise ValueError(f"The source {source.name} gives no record that may be used.")
    return drawn


def write_jsonl(records: Iterable[Record], path: Path) -> None:
    """Write one record a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(vars(record)) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")
