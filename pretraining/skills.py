"""Builds the sources for generality: copying, intents, slots, places, word problems, instructions and plain text."""

import re
from collections.abc import Sequence
from random import Random
from typing import Any

from names import FirstNames
from sources import SENTIMENT, Booking, Record, Span, Tagged, Texts
from tasks import PHRASES, Source
from writing import split_sentences

SLOT_QUESTIONS = {
    "date": "What date?",
    "time": "What time?",
    "first_name": "Which first name?",
    "last_name": "Which last name?",
}
PLACE_QUESTION = "Which place is named here?"
ORGANISATION_QUESTION = "Which organisation is named here?"
LONGEST = 360  # characters of a word problem or an instruction: longer ones cost the tokens of many short records
INTENT_QUESTION = "What is this about?"


def text_sources(texts: Texts) -> list[Source[Any]]:
    """Return plain text: the books and the project's own texts."""
    own = [(row["title"], row["text"]) for row in texts.own["text"]]
    return [
        Source(name="books/mended", bases=texts.chapters, render=lambda text, _: render_chapter(text, "books/mended")),
        Source(
            name="books/published", bases=texts.pages, render=lambda text, _: render_chapter(text, "books/published")
        ),
        Source(name="text/own", bases=own, render=render_story),
    ]


def render_chapter(text: str, source: str) -> Record:
    """Return a chapter as it is."""
    return Record(prompt="", completion=text, source=source)


def render_story(base: tuple[str, str], rng: Random) -> Record:
    """Return a story, half the time as the answer to its title."""
    title, story = base
    return Record(prompt=title if rng.random() < 0.5 else "", completion=story, source="text/own")


def skill_sources(texts: Texts, *, names: FirstNames) -> list[Source[Any]]:
    """Return the sources of the tasks that nobody measures: they keep the model from knowing three questions only."""
    sentences = list(dict.fromkeys(sentence for text in texts.chapters for sentence in split_sentences(text)))
    plain = [sentence for sentence in sentences if '"' not in sentence and not SENTIMENT.search(sentence)]
    short = [sentence for sentence in plain if 5 <= len(sentence.split()) <= 14]
    words = sorted({word for sentence in short for word in re.findall(r"\b[a-z]{3,9}\b", sentence)})
    pool = (*sorted(names.all()), *words)
    slots = [(booking, span) for booking in texts.bookings for span in booking.spans if span.slot in SLOT_QUESTIONS]
    entities = [(sentence, kind) for sentence in texts.tagged for kind in ("LOC", "ORG")]
    return [
        Source(name="copy/words", bases=short, render=render_word_copy),
        Source(name="copy/lists", bases=range(PHRASES), render=lambda _, rng: render_list_copy(rng, pool=pool)),
        Source(name="slots", bases=slots, render=lambda base, _: render_slot(*base)),
        Source(name="entities", bases=entities, render=lambda base, _: render_entity(*base)),
        pair_source("intents", [(f"{text}\n{INTENT_QUESTION}", intent) for text, intent in texts.intents]),
        pair_source("problems", [pair for pair in texts.problems if len("".join(pair)) <= LONGEST]),
        pair_source("instructions", [pair for pair in texts.instructions if len("".join(pair)) <= LONGEST]),
    ]


def pair_source(name: str, rows: Sequence[tuple[str, str]]) -> Source[tuple[str, str]]:
    """Return a source of prompts with their completions as they are."""
    return Source(name=name, bases=rows, render=lambda base, _: Record(prompt=base[0], completion=base[1], source=name))


def render_word_copy(sentence: str, rng: Random) -> Record:
    """Return a question that is answered by a word of the sentence, or by the whole of it."""
    words = re.findall(r"[A-Za-z]+(?:'[a-z]+)?", sentence)
    place = rng.randrange(1, len(words))
    questions = [
        ("Repeat the last word.", words[-1]),
        ("Repeat the first word.", words[0]),
        ("Repeat this.", sentence),
        (f'Which word follows "{words[place - 1]}"?', words[place]),
        (f'Which word stands before "{words[place]}"?', words[place - 1]),
    ]
    unique = words.count(words[place]) == 1 and words.count(words[place - 1]) == 1
    question, answer = rng.choice(questions if unique else questions[:3])
    return Record(prompt=f"{sentence}\n{question}", completion=answer, source="copy/words")


def render_list_copy(rng: Random, *, pool: Sequence[str]) -> Record:
    """Return a question about a list of random names and words, which only looking back can answer."""
    listed = rng.sample(pool, rng.randint(3, 9))
    place = rng.randrange(1, len(listed))
    capitals = [word for word in listed if word[0].isupper()]
    questions = [
        ("Repeat the last word.", listed[-1]),
        ("Repeat the first word.", listed[0]),
        ("Repeat this.", ", ".join(listed)),
        (f"Which word follows {listed[place - 1]}?", listed[place]),
        ("How many words?", str(len(listed))),
        ("Which of these is a name?", capitals[0] if len(capitals) == 1 else ""),
    ]
    question, answer = rng.choice([pair for pair in questions if pair[1]])
    return Record(prompt=f"{', '.join(listed)}\n{question}", completion=answer, source="copy/lists")


def render_slot(booking: Booking, span: Span) -> Record | None:
    """Return the question for one slot of a booking; None where the slot is the whole text or stands there twice."""
    value = booking.text[span.start : span.end].strip(" .")
    twice = sum(other.slot == span.slot for other in booking.spans) > 1
    if twice or len(booking.text) < len(value) + 8:
        return None
    return Record(prompt=f"{booking.text}\n{SLOT_QUESTIONS[span.slot]}", completion=value, source="slots")


def render_entity(sentence: Tagged, kind: str) -> Record | None:
    """Return the question for the one place or organisation of a sentence; "none" for some that have neither."""
    found = [text for entity, text in sentence.entities if entity == kind]
    if len(set(found)) > 1 or (not found and len(sentence.text) % 5):
        return None
    question = PLACE_QUESTION if kind == "LOC" else ORGANISATION_QUESTION
    return Record(prompt=f"{sentence.text}\n{question}", completion=found[0] if found else "none", source="entities")
