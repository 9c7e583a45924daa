"""Builds the sources of the three retained tasks with an answer: names, party, fact or opinion."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Generic, TypeVar

from claims import write_claim
from names import NATIONS, FirstNames, Lexicon, Named, add_distractor, replace_name, single_name
from party import write_party
from people import NUMBER, Party, change_number, count_people, find_party, renumber
from sources import Booking, Record, Tagged, Texts
from writing import split_sentences, write_naturally

NAMES_PROMPT = "{text}\nWho is named here?"
PARTY_PROMPT = "{text}\nHow many people?"
FACT_PROMPT = "{text}\nFact or opinion?"

PHRASES = 100_000  # bases of a source that needs none: more than any count

Base = TypeVar("Base")


@dataclass(frozen=True, kw_only=True)
class Source(Generic[Base]):
    """A name, the base texts and a seeded way to make a record of one; None where a text does not serve."""

    name: str
    bases: Sequence[Base]
    render: Callable[[Base, Random], Record | None]


def name_sources(texts: Texts, *, lexicon: Lexicon) -> list[Source[Any]]:
    """Return the sources of the names task: in each the name is drawn anew, so that only copying answers it."""

    def find(paragraphs: Iterable[str], source: str) -> list[Named]:
        sentences = dict.fromkeys(sentence for text in paragraphs for sentence in split_sentences(text))
        short = [sentence for sentence in sentences if 5 <= len(sentence.split()) <= 26]
        found = ((sentence, single_name(sentence, lexicon=lexicon)) for sentence in short)
        return [Named(text=sentence, name=name, source=source) for sentence, name in found if name]

    groups = {
        "names/books": find(texts.chapters, "names/books"),
        "names/problems": find((question for question, _ in texts.problems), "names/problems"),
        "names/entities": [named for tagged in texts.tagged if (named := named_person(tagged, lexicon=lexicon))],
        "names/bookings": [named for booking in texts.bookings if (named := named_guest(booking))],
        "names/own": [Named(text=row["text"], name=row["name"], source="names/own") for row in texts.own["names"]],
    }
    return [
        Source(name=name, bases=found, render=lambda base, rng: render_name(base, rng, lexicon=lexicon))
        for name, found in groups.items()
    ]


def named_person(sentence: Tagged, *, lexicon: Lexicon) -> Named | None:
    """Return a tagged sentence whose only person goes by a first name alone."""
    people = [text for kind, text in sentence.entities if kind == "PER"]
    if len(people) != 1 or people[0] not in lexicon.certain or len(re.findall(rf"\b{people[0]}\b", sentence.text)) != 1:
        return None
    return Named(text=sentence.text, name=people[0], source="names/entities")


def named_guest(booking: Booking) -> Named | None:
    """Return a booking made in a first name, its last name taken out of the text."""
    spans = {span.slot: booking.text[span.start : span.end] for span in booking.spans}
    first, last = spans.get("first_name", ""), spans.get("last_name", "")
    text = re.sub(rf"\b{re.escape(first)}\s+{re.escape(last)}\b", first, booking.text) if last else booking.text
    if len(text.split()) < 4 or text.count(first) != 1 or not first.isalpha() or (last and last in text):
        return None
    return Named(text=text, name=first, source="names/bookings")


def render_name(base: Named, rng: Random, *, lexicon: Lexicon) -> Record:
    """Return the sentence with another name, now and then an invented one or a place beside it."""
    new, other = (lexicon.names.draw(rng, instead_of=base.name, text=base.text) for _ in range(2))
    # A fifth of the names exist nowhere, so that no list of known names answers the question.
    invented = invent_name(new, other)
    if rng.random() < 0.2 and invented.lower() not in lexicon.common and invented not in lexicon.names.held_out:
        new = invented
    text = replace_name(base.text, name=base.name, new=new)
    if rng.random() < 0.12:
        text = add_distractor(text, name=new, rng=rng)
    return Record(prompt=NAMES_PROMPT.format(text=text), completion=new, source=base.source)


def invent_name(first: str, second: str) -> str:
    """Return the beginning of one name with the end of another."""
    ends = [found.start() for found in re.finditer(r"[aeiouy]", second) if found.start() > 0]
    begin = re.match(r"[A-Z][a-z]*?[aeiouy]+[^aeiouy]", first)
    return begin[0] + second[ends[len(ends) // 2] :] if begin and ends else second


def party_sources(texts: Texts, *, names: FirstNames) -> list[Source[Any]]:
    """Return the sources of the party task: the numbers are drawn anew, the answer with them."""
    pool: dict[str, list[str]] = {}
    for booking in texts.bookings:
        for span in booking.spans:
            # "on Sunday" or "in 5 days" would double the word before the span.
            if not re.match(r"(on|in|at|for|by|night)\b", value := booking.text[span.start : span.end], re.I):
                pool.setdefault(span.slot, []).append(value.strip(" ."))
    pool |= {"first_name": sorted(names.all()), "last_name": pool["last_name"]}
    pool["people"] = [group for group in pool["people"] if count_people(group) and len(group.split()) > 2]
    # "For 4" and "for 5" are one base: else the many answers of a single number would crowd out the rest.
    worded = {NUMBER.sub("#", booking.text.lower()): booking for booking in texts.bookings}
    parties = [party for booking in worded.values() if (party := find_party(booking))]
    # The last part of a longer talk: bookings without any number, to put before or after the group.
    asides = [b.text.strip() for b in texts.bookings if not b.spans and not b.requested and is_aside(b.text)]
    own = [(row["text"], int(row["people"])) for row in texts.own["party"]]
    return [
        Source(
            name="party/bookings",
            bases=parties,
            render=lambda base, rng: render_party(base, rng, pool=pool, asides=asides),
        ),
        Source(name="party/own", bases=own, render=render_own_party),
        Source(name="party/phrases", bases=range(PHRASES), render=lambda _, rng: render_phrase(rng)),
    ]


def is_aside(text: str) -> bool:
    """Whether a guest's sentence is whole and says nothing of numbers or company."""
    company = r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|\w+teen|twenty|single|people|party|wife|husband|"
    company += r"family|friends?|kids?|children|daughter|son|girlfriend|boyfriend|couple|just me|alone)\b"
    whole = re.search(r"[a-z]{2}[.!?]$", text) is not None and 4 <= len(text.split()) <= 12
    return whole and not re.search(company, text, re.I)


def render_party(party: Party, rng: Random, *, pool: dict[str, list[str]], asides: Sequence[str]) -> Record | None:
    """Return the booking with another number, other times, dates and names, and now and then an aside."""
    group = party.text[party.start : party.end]
    before, after = party.text[: party.start], party.text[party.end :]
    after_for = re.search(r"\bfor $", before) and re.match(r"\W*$|[.,!?]| (at|on)\b", after)
    if after_for and rng.random() < 0.3:
        group = rng.choice(pool["people"])
        group = group[0].lower() + group[1:] if not group.startswith("I ") else group
    group = renumber(group, rng=rng)
    cuts = [(party.start, party.end, group)]
    cuts += [(o.start, o.end, rng.choice(pool[o.slot])) for o in party.others if o.slot != "date" or rng.random() < 0.5]
    text = party.text
    for start, end, value in sorted(cuts, reverse=True):
        text = text[:start] + value + text[end:]
    if rng.random() < 0.25:
        text = f"{rng.choice(asides)} {text}" if rng.random() < 0.5 else f"{text.rstrip()} {rng.choice(asides)}"
    size = count_people(group)
    return (
        Record(prompt=PARTY_PROMPT.format(text=text), completion=str(size), source="party/bookings") if size else None
    )


def render_own_party(base: tuple[str, int], rng: Random) -> Record:
    """Return one of the project's own bookings, its number changed where it stands in the text alone."""
    text, size = change_number(base[0], size=base[1], rng=rng)
    return Record(prompt=PARTY_PROMPT.format(text=text), completion=str(size), source="party/own")


def render_phrase(rng: Random) -> Record:
    """Return a booking written from our own phrases."""
    text, size = write_party(rng)
    return Record(prompt=PARTY_PROMPT.format(text=text), completion=str(size), source="party/phrases")


def fact_sources(texts: Texts, *, lexicon: Lexicon) -> list[Source[Any]]:
    """Return the sources of the fact-or-opinion task."""
    short = [row for row in texts.subjectivity if len(row[0].split()) <= 40]
    own = [(row["text"], row["label"]) for row in texts.own["fact_or_opinion"]]
    told = [(sentence, "fact") for text, _ in texts.problems for sentence in split_sentences(text) if is_told(sentence)]
    groups = {
        "fact_or_opinion/facts": [row for row in short if row[1] == "fact"],
        "fact_or_opinion/opinions": [row for row in short if row[1] == "opinion"],
    }
    sources = [
        Source(name=name, bases=found, render=partial(render_fact, source=name, lexicon=lexicon))
        for name, found in groups.items()
    ]
    return [
        *sources,
        Source(name="fact_or_opinion/own", bases=own, render=lambda base, rng: render_told(base, rng, "own")),
        Source(name="fact_or_opinion/told", bases=told, render=lambda base, rng: render_told(base, rng, "told")),
        Source(name="fact_or_opinion/phrases", bases=range(PHRASES), render=lambda _, rng: render_claim(rng)),
    ]


def render_fact(base: tuple[str, str], rng: Random, source: str, *, lexicon: Lexicon) -> Record:
    """Return the sentence in natural writing four times in five, else as the set has it."""
    proper = (lexicon.certain | NATIONS) - {"Guy"}  # reviews speak of guys
    text = write_naturally(base[0], proper=proper, common=lexicon.common) if rng.random() < 0.8 else base[0]
    return Record(prompt=FACT_PROMPT.format(text=text), completion=base[1], source=source)


def is_told(sentence: str) -> bool:
    """Whether a sentence of a word problem tells of something: no question, no supposition, no order."""
    words = sentence.split()
    return (
        4 <= len(words) <= 20
        and words[0] not in ("If", "How", "Find", "Calculate", "Determine")
        and "?" not in sentence
    )


def render_told(base: tuple[str, str], rng: Random, kind: str) -> Record:
    """Return a well-written sentence, now and then without its full stop."""
    text = base[0].rstrip(".") if rng.random() < 0.1 else base[0]
    return Record(prompt=FACT_PROMPT.format(text=text), completion=base[1], source=f"fact_or_opinion/{kind}")


def render_claim(rng: Random) -> Record:
    """Return a fact or an opinion written from our own phrases."""
    text, label = write_claim(rng)
    return Record(prompt=FACT_PROMPT.format(text=text), completion=label, source="fact_or_opinion/phrases")
