"""ROUGE beside google's rouge-score, and a common subsequence beside the textbook's table."""

import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from forgetmenot.rouge import ROUGE_KEYS, Overlap, common_subsequence, places_of, rouge, split_words

PAIRS: list[tuple[str, list[str]]] = [
    ("The cat sat on the mat.", ["The cat is on the mat."]),
    ("Police killed the gunman", ["the gunman was shot dead by police"]),
    ("He didn't reply to John's e-mail.", ["He did not reply to John’s email."]),
    ("positive", ["Positive"]),
    ("", ["An answer was expected here."]),
    ("An answer.", [""]),
    ("...", ["!!!"]),
    ("\n\n", ["\n"]),
    ("Le café est fermé à midi", ["le cafe est ferme à midi"]),
    ("running runners ran", ["run runner running"]),
    ("the the the the", ["the cat the dog"]),
    ("İstanbul is BIG", ["istanbul is big"]),
    ("It costs $1,299.50 in 2024, not 2023.", ["In 2024 it costs 1299.50 dollars."]),
    ("A person asks the way\nand is told to turn left.", ["Someone asks for the way, and turns left."]),
    ("a b c\nb c d\n\na d", ["b c a\nd a b", "c b\n...\na"]),
    ("one two three four five six", ["six five four three two one"]),
    ("the quick brown fox jumps", ["a quick fox", "the brown fox jumps high", "an unrelated sentence"]),
    ("sunny and warm today", ["it will be sunny", "warm and sunny today", "rain"]),
    # the first reference has the better ROUGE-1, the second the better ROUGE-2 and ROUGE-L
    ("a b c d e f", ["f e d c b a", "a b c d x y"]),
]
KINDS = ("precision", "recall", "fmeasure")


def google(answer: str, references: list[str]) -> dict[str, float]:
    """Returns google's scores, each key by its own best reference."""
    scores = RougeScorer(list(ROUGE_KEYS), use_stemmer=False).score_multi(references, answer)
    return {f"{key}_{kind}": getattr(scores[key], kind) for key in ROUGE_KEYS for kind in KINDS}


def textbook(answer: list[bytes], reference: list[bytes]) -> int:
    """Returns the length of the longest common subsequence by the whole table."""
    table = [[0] * (len(reference) + 1) for _ in range(len(answer) + 1)]
    for i, left in enumerate(answer, 1):
        for j, right in enumerate(reference, 1):
            same = table[i - 1][j - 1] + 1
            table[i][j] = same if left == right else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


def lines(draw: random.Random) -> str:
    """Returns a text of a few lines of few words, so that much is common to two of them in many ways."""
    return "\n".join(" ".join(draw.choices("abcde", k=draw.randint(0, 9))) for _ in range(draw.randint(1, 4)))


@pytest.mark.parametrize(("answer", "references"), PAIRS)
def test_rouge_equals_google_on_each_pair(answer: str, references: list[str]) -> None:
    assert rouge(answer, references) == pytest.approx(google(answer, references), abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_rouge_equals_google_on_texts_with_many_common_subsequences(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(10):
        answer, references = lines(draw), [lines(draw) for _ in range(draw.randint(1, 3))]
        assert rouge(answer, references) == pytest.approx(google(answer, references), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("length", [1, 30, 63, 64, 65, 200])
def test_a_common_subsequence_is_as_long_as_the_textbooks(seed: int, length: int) -> None:
    draw = random.Random(seed)
    answer, reference = (draw.choices([b"a", b"b", b"c", b"d"], k=draw.randint(0, length)) for _ in range(2))
    assert common_subsequence(places_of(answer), reference, length=len(answer)) == textbook(answer, reference)


def test_the_average_over_references_is_the_mean_of_what_each_gives() -> None:
    answer, references = PAIRS[-2]
    each = [google(answer, [reference]) for reference in references]
    mean = {name: sum(scores[name] for scores in each) / len(each) for name in each[0]}
    assert rouge(answer, references, accumulate="average") == pytest.approx(mean, abs=1e-12)


def test_unigrams_deceive_since_a_word_that_turns_the_meaning_counts_as_one_of_many() -> None:
    said = "It is cold outside"
    agrees, denies = (rouge(said, [text], keys=("rouge1",)) for text in ("It is very cold", "It is not cold"))
    assert agrees == denies
    assert agrees["rouge1_fmeasure"] == 0.75


def test_words_of_other_letters_are_not_seen_even_by_themselves() -> None:
    assert split_words("привет мир") == []
    assert rouge("привет мир", ["привет мир"])["rouge1_fmeasure"] == 0


def test_an_overlap_of_nothing_is_zero() -> None:
    assert Overlap.of(0, answer=0, reference=0) == (0, 0, 0)
