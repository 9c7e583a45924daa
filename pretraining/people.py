"""Counts the people of a booking and puts other numbers in their place, the answer with them."""

import re
from dataclasses import dataclass
from random import Random

from sources import Booking, Span

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
NUMBER = re.compile(rf"\b(\d+|{'|'.join(WORDS[1:])})\b", re.I)
# Small groups book most tables; 13 to 20 are rare but stand in restaurant8k.
SIZES = tuple(range(1, 21))
SIZE_WEIGHTS = (6, 10, 10, 10, 10, 10, 8, 8, 6, 6, 5, 5, 1, 1, 1, 1, 1, 1, 1, 1)
SINGULAR = {
    "people": "person", "adults": "adult", "children": "child", "kids": "kid", "guests": "guest", "friends": "friend",
    "others": "other", "seniors": "senior", "women": "woman", "men": "man", "couples": "couple", "boys": "boy",
    "persons": "person", "siblings": "sibling", "sisters": "sister", "brothers": "brother", "sons": "son",
    "daughters": "daughter", "colleagues": "colleague", "cousins": "cousin", "guys": "guy", "coworkers": "coworker",
}  # fmt: skip
PLURAL = {singular: plural for plural, singular in SINGULAR.items() if plural != "persons"}
GROUPS = "people|persons?|adults?|children|child|kids?|guests?|friends?|others?|seniors?|women|woman|men|man|couples?"
GROUPS += "|boys?|girls?|siblings?|sisters?|brothers?|sons?|daughters?|colleagues?|cousins?|guys?|co-?workers?"
GROUPS += "|of my friends|of my kids"
ONE = "me|myself|i|wife|husband|hubby|son|daughter|child|kid|friend|mom|mum|dad|mother|father|sister|brother|baby"
ONE += "|girlfriend|boyfriend|partner|boss|colleague|senior|teen|man|woman|person|adult"
SPEAKER = re.compile(r"\b(me|myself|i)\b", re.I)


@dataclass(frozen=True, kw_only=True)
class Party:
    """A text, where its group of people stands in it, how many they are, and which other spans it has."""

    text: str
    start: int
    end: int
    others: tuple[Span, ...]


def value_of(number: str) -> int:
    """Return the value of a number in digits or words."""
    return int(number) if number.isdigit() else WORDS.index(number.lower())


def count_people(group: str) -> int | None:
    """Return how many people a group has: "5 adults and 1 child" has 6; None where that is not certain."""
    parts = [part for part in re.split(r"\s*(?:,|&|\band\b|\bplus\b|\bwith\b)\s*", group.strip(" .").lower()) if part]
    sizes = [count_part(part) for part in parts]
    if not parts or None in sizes or (re.search(r"people|person", group) and len(parts) > 1):
        return None
    summed = len(parts) == 1 or SPEAKER.search(group) or all(NUMBER.match(part) for part in parts)
    lone = len(parts) == 1 and not NUMBER.search(group) and not SPEAKER.search(group)
    lonely_mine = len(parts) == 1 and re.match(r"my|our|his|her", parts[0])
    return None if not summed or lone or lonely_mine else sum(size for size in sizes if size)


def count_part(part: str) -> int | None:
    """Return the size of one part of a group, such as "my two kids"; None where it is not certain."""
    part = re.sub(r"^(?:(?:the|a|an|my|our|his|her|their|just|only|all) )+", "", part)
    counted = re.fullmatch(rf"{NUMBER.pattern}(?: ({GROUPS}))?", part, re.I)
    if counted:
        return value_of(counted[1]) * (2 if (counted[2] or "").startswith("couple") else 1)
    if part in ("parents", "twins"):
        return 2
    return 1 if re.fullmatch(ONE, part) else None


def find_party(booking: Booking) -> Party | None:
    """Return the party of a booking; None where it has no group whose size is certain."""
    spans = [span for span in booking.spans if span.slot == "people"]
    if len(spans) != 1 or count_people(booking.text[spans[0].start : spans[0].end]) is None:
        return None
    others = tuple(span for span in booking.spans if span.slot != "people")
    return Party(text=booking.text, start=spans[0].start, end=spans[0].end, others=others)


def renumber(group: str, *, rng: Random) -> str:
    """Return the group with every number replaced by another, in digits or words, and its noun in agreement."""
    several = len(NUMBER.findall(group)) > 1 or SPEAKER.search(group) is not None
    smallest = 2 if re.match(r"the\b|all\b", group, re.I) else 1  # nobody says "the one of us"

    def other(found: re.Match[str]) -> str:
        size = rng.randint(1, 6) if several else max(smallest, rng.choices(SIZES, SIZE_WEIGHTS)[0])
        return _write(size, rng=rng, like=found[1]) + _agree(found[2] or "", size=size)

    return re.sub(rf"{NUMBER.pattern}(\s+(?:{'|'.join([*SINGULAR, *PLURAL])})\b)?", other, group, flags=re.I)


def _write(size: int, *, rng: Random, like: str) -> str:
    # Digits mostly stay digits and words words, as the sentence was written for them.
    digits = like.isdigit() == (rng.random() < 0.75) or size > 12
    word = str(size) if digits else WORDS[size]
    return word.capitalize() if like[0].isupper() else word


def _agree(noun: str, *, size: int) -> str:
    bare = noun.strip().lower()
    swapped = SINGULAR.get(bare, bare) if size == 1 else PLURAL.get(bare, bare)
    return noun.replace(noun.strip(), swapped) if swapped != bare else noun


def change_number(text: str, *, size: int, rng: Random) -> tuple[str, int]:
    """Return a sentence with its one mention of the group's size changed, and the size it then has."""
    mentions = [found for found in NUMBER.finditer(text) if value_of(found[1]) == size and _counts(text, found)]
    changed_mind = re.search(
        r"\b(but|yet|no longer|instead|making|make that|in all|in total|altogether|both|couples?|pairs?|trio|dozen|"
        r"plus|with me|as well|another|and I|and me|all of us|dropped|other|nor|including|counting)\b", text
    )  # fmt: skip
    if size < 2 or len(mentions) != 1 or changed_mind:
        return text, size
    new = rng.choices(SIZES[1:], SIZE_WEIGHTS[1:])[0]
    start, end = mentions[0].span()
    return text[:start] + _write(new, rng=rng, like=mentions[0][1]) + text[end:], new


def _counts(text: str, found: re.Match[str]) -> bool:
    """Whether a number may count people: no part of a time, date, price or decimal."""
    before, after = text[: found.start()], text[found.end() :]
    timed = re.match(r"\s*(am\b|pm\b|o'clock|:|th\b|st\b|nd\b|rd\b|\.\d|euros?|pounds?|nights?|days?|%)", after, re.I)
    dated = re.search(
        r"(:|\$|£|€|\bat|\bby|until|from|about|past|table|room|gate|January|February|March|April|May|June|July|August|"
        r"September|October|November|December) ?$", before
    )  # fmt: skip
    return timed is None and dated is None
