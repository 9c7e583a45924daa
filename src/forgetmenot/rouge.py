"""ROUGE-1, -2, -L and -Lsum (Lin 2004, https://aclanthology.org/W04-1013), equal to google's rouge-score without stems.

Words are runs of a-z and 0-9 in lower case. ROUGE-L counts the longest common subsequence, whose table is held as one
integer a row (Allison and Dix 1986, in the four operations of Hyyrö 2004): a bit says where the row does not rise.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Literal, NamedTuple

ROUGE_KEYS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
Accumulate = Literal["best", "average"]
Words = Sequence[bytes]

_NAMES = {key: tuple(f"{key}_{name}" for name in ("precision", "recall", "fmeasure")) for key in ROUGE_KEYS}
_FMEASURE = attrgetter("fmeasure")
_IN_WORDS = b"abcdefghijklmnopqrstuvwxyz0123456789"
_SPACED = bytes(byte if byte in _IN_WORDS else ord(" ") for byte in range(256))  # by bytes it takes half of re's time


class Overlap(NamedTuple):
    """How much of the answer is in the reference, how much of the reference in the answer, and their harmonic mean."""

    precision: float
    recall: float
    fmeasure: float

    @classmethod
    def of(cls, hits: int, *, answer: int, reference: int) -> "Overlap":
        """Returns the overlap of `hits` units among those of the answer and of the reference."""
        precision = hits / max(answer, 1)
        recall = hits / max(reference, 1)
        both = precision + recall
        return cls(precision, recall, 2 * precision * recall / both if both else 0.0)


class Text:
    """A text with its words in their order; what else scores need of it is found once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = split_words(text)

    @cached_property
    def places(self) -> Mapping[bytes, int]:
        """Where each word stands: bit j of its integer is 1 where it is word j."""
        return places_of(self.words)

    @cached_property
    def bigrams(self) -> Sequence[tuple[bytes, bytes]]:
        """All neighbouring words."""
        return list(zip(self.words, self.words[1:], strict=False))

    @cached_property
    def sentences(self) -> Sequence[Words]:
        """The words of every line."""
        return [split_words(line) for line in self.text.split("\n") if line]


def rouge(
    answer: str, references: Sequence[str], *, keys: Sequence[str] = ROUGE_KEYS, accumulate: Accumulate = "best"
) -> dict[str, float]:
    """Returns `<key>_precision`, `<key>_recall` and `<key>_fmeasure` of an answer.

    Of several references each key takes the one with the best F, or with `accumulate="average"` the mean of all.
    """
    ours, theirs = Text(answer), [Text(reference) for reference in references]
    scores: dict[str, float] = {}
    for key in keys:
        overlaps = [_OVERLAPS[key](ours, reference) for reference in theirs]
        if accumulate == "best":
            values: Sequence[float] = max(overlaps, key=_FMEASURE)
        else:
            values = [sum(column) / len(overlaps) for column in zip(*overlaps, strict=True)]
        scores.update(zip(_NAMES[key], values, strict=True))
    return scores


def split_words(text: str) -> list[bytes]:
    """Returns the words that ROUGE sees: a text in other letters has none, and scores 0 even beside itself."""
    return text.lower().encode(errors="replace").translate(_SPACED).split()


def places_of(words: Words) -> dict[bytes, int]:
    """Returns where each word stands: bit j of its integer is 1 where it is word j."""
    places: dict[bytes, int] = {}
    for place, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << place
    return places


def common_subsequence(places: Mapping[bytes, int], reference: Words, *, length: int) -> int:
    """Returns how long the longest common subsequence of two texts is, one given by its `length` words' places."""
    row, find = -1, places.get  # bits past the last word stay out of the count below
    for word in reference:
        found = find(word)
        if found:  # else the row stays as it is
            matches = row & found
            row = row + matches | row - matches
    return (~row & (1 << length) - 1).bit_count()


def _overlap_1(answer: Text, reference: Text) -> Overlap:
    return _overlap_of_grams(answer.words, reference.words)


def _overlap_2(answer: Text, reference: Text) -> Overlap:
    return _overlap_of_grams(answer.bigrams, reference.bigrams)


def _overlap_of_grams(answer: Sequence[object], reference: Sequence[object]) -> Overlap:
    shared = Counter(answer) & Counter(reference)
    return Overlap.of(shared.total(), answer=len(answer), reference=len(reference))


def _overlap_l(answer: Text, reference: Text) -> Overlap:
    hits = common_subsequence(answer.places, reference.words, length=len(answer.words))
    return Overlap.of(hits, answer=len(answer.words), reference=len(reference.words))


def _overlap_lsum(answer: Text, reference: Text) -> Overlap:
    """Counts, line by line of the reference, the words of the union of its subsequences with every line of the answer.

    No word counts more often than both texts have it.
    """
    left = Counter(answer.words) & Counter(reference.words)
    hits = 0
    for line in reference.sentences:
        places = {place for other in answer.sentences for place in _places(other, line)}
        for place in sorted(places):
            if left[line[place]] > 0:
                left[line[place]] -= 1
                hits += 1
    return Overlap.of(hits, answer=len(answer.words), reference=len(reference.words))


_OVERLAPS: Mapping[str, Callable[[Text, Text], Overlap]] = {
    "rouge1": _overlap_1,
    "rouge2": _overlap_2,
    "rougeL": _overlap_l,
    "rougeLsum": _overlap_lsum,
}


def _rows(answer: Words, reference: Words) -> Iterator[int]:
    """Yields the table's rows, one a word of the reference: bit j is 0 where the row rises at word j of the answer."""
    places = places_of(answer)
    row = -1
    for word in reference:
        matches = row & places.get(word, 0)
        row = row + matches | row - matches
        yield row


def _places(answer: Words, reference: Words) -> Iterator[int]:
    """Yields the reference's places of one longest common subsequence, from the last: of several, rouge-score's own."""
    rows = [-1, *_rows(answer, reference)]
    i, j = len(reference), len(answer)
    while i and j:
        if reference[i - 1] == answer[j - 1]:
            i, j = i - 1, j - 1
            yield i
        elif _height(rows[i], j - 1) > _height(rows[i - 1], j):
            j -= 1
        else:
            i -= 1


def _height(row: int, length: int) -> int:
    """Returns the table's entry after `length` words of the answer."""
    return (~row & (1 << length) - 1).bit_count()
