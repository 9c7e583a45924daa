"""Scores of answers beside google's rouge-score, and the rules of accuracy and exact match."""

from statistics import mean

import pytest
from rouge_score.rouge_scorer import RougeScorer

from forgetmenot.metric import ROUGE_KEYS, answer_scores, best_constant, per_answer

PAIRS: list[tuple[str, list[str]]] = [
    ("The cat sat on the mat.", ["The cat is on the mat."]),
    ("Police killed the gunman", ["the gunman was shot dead by police"]),
    ("He didn't reply to John's e-mail.", ["He did not reply to John\u2019s email."]),
    ("positive", ["Positive"]),
    ("", ["An answer was expected here."]),
    ("...", ["!!!"]),
    ("Le café est fermé à midi", ["le cafe est ferme à midi"]),
    ("running runners ran", ["run runner running"]),
    ("the the the the", ["the cat the dog"]),
    ("It costs $1,299.50 in 2024, not 2023.", ["In 2024 it costs 1299.50 dollars."]),
    ("A person asks the way\nand is told to turn left.", ["Someone asks for the way, and turns left."]),
    ("one two three four five six", ["six five four three two one"]),
]
SEVERAL: list[tuple[str, list[str]]] = [
    ("the quick brown fox jumps", ["a quick fox", "the brown fox jumps high", "an unrelated sentence"]),
    ("sunny and warm today", ["it will be sunny", "warm and sunny today", "rain"]),
    ("she plans a party for friday", ["a party is planned", "on friday she plans to party", "they work"]),
]
# The first reference has the better ROUGE-1, the second the better ROUGE-2 and ROUGE-L.
APART = ("a b c d e f", ["f e d c b a", "a b c d x y"])
NAMES = [f"{key}_{kind}" for key in ROUGE_KEYS for kind in ("precision", "recall", "fmeasure")]


def google(answer: str, references: list[str]) -> dict[str, float]:
    """Returns google's scores, each key by its own best reference."""
    scores = RougeScorer(list(ROUGE_KEYS), use_stemmer=False).score_multi(references, answer)
    return {
        f"{key}_{kind}": getattr(scores[key], kind)
        for key in ROUGE_KEYS
        for kind in ("precision", "recall", "fmeasure")
    }


@pytest.mark.parametrize(("answer", "references"), PAIRS + SEVERAL)
def test_rouge_equals_google_on_each_pair(answer: str, references: list[str]) -> None:
    ours = answer_scores([answer], [references])

    assert {name: ours[name] for name in NAMES} == pytest.approx(google(answer, references), abs=1e-6)


def test_rouge_of_many_answers_is_the_mean_of_googles() -> None:
    answers, references = zip(*PAIRS, *SEVERAL, strict=True)

    ours = answer_scores(answers, references)

    expected = [google(answer, group) for answer, group in PAIRS + SEVERAL]
    assert {name: ours[name] for name in NAMES} == pytest.approx(
        {name: mean(scores[name] for scores in expected) for name in NAMES}, abs=1e-6
    )


def test_with_several_references_each_rouge_takes_its_own_best_as_google_does() -> None:
    answer, references = APART

    ours = answer_scores([answer], [references])

    assert {name: ours[name] for name in NAMES} == pytest.approx(google(answer, references), abs=1e-6)


@pytest.mark.parametrize("metric", ["accuracy", "exact_match", *NAMES])
def test_each_answers_own_scores_have_the_mean_that_is_reported(metric: str) -> None:
    answers, references = zip(*PAIRS, *SEVERAL, APART, strict=True)

    assert mean(per_answer(metric, answers, references)) == pytest.approx(
        answer_scores(answers, references)[metric], abs=1e-6
    )


@pytest.mark.parametrize(
    ("answer", "reference", "accurate", "exact"),
    [
        ("positive", "positive", 1, 1),
        (" positive\n", "positive ", 1, 1),
        ("Positive", "positive", 1, 0),
        ("STRASSE", "straße", 1, 0),
        ("positive.", "positive", 0, 0),
        ("very positive", "positive", 0, 0),
        ("two  words", "two words", 0, 0),
        ("", "positive", 0, 0),
    ],
)
def test_accuracy_ignores_case_and_edges_and_exact_match_edges_alone(
    answer: str, reference: str, accurate: int, exact: int
) -> None:
    scores = answer_scores([answer], [[reference]])

    assert (scores["accuracy"], scores["exact_match"]) == (accurate, exact)


def test_any_of_several_references_makes_an_answer_right() -> None:
    scores = answer_scores(["Paris", "rome", "Bonn"], [["Lyon", "Paris"], ["Rome", "Roma"], ["Berlin"]])

    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["exact_match"] == pytest.approx(1 / 3)


def test_scores_carry_the_names_of_the_contract() -> None:
    assert set(answer_scores(["a"], [["a"]])) == {"accuracy", "exact_match", *NAMES}


def test_answers_and_references_of_unequal_number_are_our_mistake() -> None:
    with pytest.raises(ValueError):
        answer_scores(["a", "b"], [["a"]])


def test_the_best_constant_is_the_commonest_reference_for_accuracy() -> None:
    references = [["no"], ["yes"], ["yes"], ["no"], ["yes"]]

    text, scores = best_constant("accuracy", references)

    assert (text, scores) == ("yes", [0, 1, 1, 0, 1])


def test_the_best_constant_for_rouge_may_be_a_rarer_reference() -> None:
    references = [["zebra"], ["zebra"], ["the red car"], ["the red house"], ["the red boat"]]

    text, scores = best_constant("rouge1_fmeasure", references)

    assert text == "the red car"
    assert mean(scores) == pytest.approx((1 + 2 / 3 + 2 / 3) / 5)


def test_the_best_constant_counts_all_references_of_an_example() -> None:
    text, scores = best_constant("accuracy", [["a", "b"], ["c", "b"], ["b", "d"], ["a"]])

    assert (text, mean(scores)) == ("b", 0.75)


def test_the_best_constant_for_accuracy_sees_spellings_in_any_case_as_one() -> None:
    references = [["Yes"], ["yes"], ["YES"], ["no"], ["no"]]

    text, scores = best_constant("accuracy", references)

    assert text.casefold() == "yes"
    assert mean(scores) == pytest.approx(0.6)
