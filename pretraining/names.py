"""Finds sentences that name one person by a first name, and puts another name in its place."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

# Capitals within a sentence that name no person and so may stand beside the one name.
HARMLESS = frozenset(
    """
        I Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July
        August September October November December Christmas Easter England London Scotland Ireland France Paris
        India America Europe Africa Oxford Germany Italy Rome New York English French German Indian Spanish
        Irish Scotch Latin Greek Dutch Bible God Heaven TV Aunt Uncle Miss Master Sir Lady Nurse Dame Cousin
        Little Poor Dear Halloween California Texas Florida Chicago Boston Walmart Thanksgiving
    """.split()
)
NATIONS = frozenset(
    """
        American British English French German Italian Spanish Russian Chinese Japanese Indian African European
        Irish Jewish Canadian Australian America England Britain France Germany Italy Spain Russia China Japan
        India Africa Mexico Hollywood London Paris York Christmas Oscar Disney Monday Tuesday Wednesday Thursday
        Friday Saturday Sunday
    """.split()
)
PLACES = """
    London Paris Rome Berlin Madrid Dublin Boston Chicago Texas Florida England Scotland Ireland France Spain
    Italy Germany Japan Canada India Egypt Brazil Norway Sweden Denmark Poland Greece Turkey Oxford Cambridge
    Manchester Leeds Bristol York Vienna Lisbon Athens Prague Toronto Sydney Tokyo
""".split()
OPENINGS = frozenset(
    """
        The A An He She It They We You His Her Their My Our There This That When If All Some Every
    """.split()
)
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "July", "September", "October", "November", "December"]


@dataclass(frozen=True, kw_only=True)
class Named:
    """A sentence that names one person, and where the sentence came from."""

    text: str
    name: str
    source: str


@dataclass(frozen=True, kw_only=True)
class FirstNames:
    """The first names that may stand in the mixture, by gender, and those that may not."""

    female: tuple[str, ...]
    male: tuple[str, ...]
    held_out: frozenset[str]

    def draw(self, rng: Random, *, instead_of: str, text: str) -> str:
        """Return a random name of the gender that the replaced name, else the text, tells; of any where none does."""
        genders = [names for names in (self.female, self.male) if instead_of in names]
        if len(genders) != 1:
            pronouns = ((self.female, r"\b(she|her|hers|herself)\b"), (self.male, r"\b(he|him|his|himself)\b"))
            genders = [names for names, words in pronouns if re.search(words, text, re.I)]
        return rng.choice(genders[0] if len(genders) == 1 else self.female + self.male)

    def all(self) -> frozenset[str]:
        """Return every name once."""
        return frozenset(self.female + self.male)


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """The first names, those that are hardly ever other words, and words that open a sentence and are no name."""

    names: FirstNames
    certain: frozenset[str]
    common: frozenset[str]


def learn_words(texts: Iterable[str], *, names: FirstNames) -> Lexicon:
    """Return the lexicon of these texts: "Rose" may be a flower, "Ethel", never written small, is a person."""
    words: Counter[str] = Counter()
    for text in texts:
        words.update(re.findall(r"[A-Za-z]+", text))
    # One small "harry" in fifty is a slip or a verb that does no harm.
    certain = frozenset(name for name in names.all() if words[name] > 0 and words[name.lower()] * 50 <= words[name])
    common = frozenset(w for w, count in words.items() if w.islower() and count > words[w.capitalize()] // 2)
    return Lexicon(names=names, certain=certain, common=common)


def single_name(sentence: str, *, lexicon: Lexicon) -> str | None:
    """Return the one first name of a sentence; None where there is none, a second, a surname or a doubtful capital."""
    words = re.findall(r"[A-Za-z]+", sentence)
    capitals = [word for word in words if word[0].isupper()]
    found = {word for word in capitals if word in lexicon.certain}
    opening = words[0] if words else ""
    others = [word for word in capitals if word not in found and word not in HARMLESS]
    plain = opening.lower() in lexicon.common and opening not in lexicon.names.all()
    if len(found) != 1 or any(word != opening or not plain for word in others):
        return None
    (name,) = found
    beside = rf"\b{name}\b[ -][A-Z]|[A-Z][\w.]* {name}\b|-{name}|{name}-|\bSt\b"
    titled = rf"(Aunt|Uncle|Miss|Master|Sir|Lady|Nurse|Dame|Cousin|Little|Poor|Dear|And|But|So|Then|When|As|I) {name}\b"
    rest = re.sub(titled, name, sentence)
    return None if re.search(beside, rest) else name


def replace_name(text: str, *, name: str, new: str) -> str:
    """Return the text with every whole-word occurrence of the name replaced, possessives with it."""
    return re.sub(rf"\b{re.escape(name)}\b", new, text)


def add_distractor(text: str, *, name: str, rng: Random) -> str:
    """Return the text with a place, day or month in front or behind: a capital that is not the answer."""
    where = rng.choice([f"in {rng.choice(PLACES)}", f"on {rng.choice(DAYS)}", f"in {rng.choice(MONTHS)}"])
    first, _, rest = text.partition(" ")
    opening = first.lower() if first in OPENINGS else first
    before = f"{where[0].upper()}{where[1:]}, {opening} {rest}"
    behind = f"{text[:-1]} {where}." if re.search(r"[a-z]\.$", text) and '"' not in text else text
    return before if rng.random() < 0.5 and first in OPENINGS | {"I", name} else behind
