"""Scores of answers, and the rules of accuracy and its kin."""

from statistics import mean

import pytest
from torchmetrics.functional.text import squad

from forgetmenot.answers import (
    ANSWER_NAMES,
    ROUGE_NAMES,
    answer_scores,
    best_constant,
    per_answer,
    token_f1,
    warn_of_unseen_letters,
)

ANSWERS = ["The cat sat.", "positive", "", "a cat, the cat", "an article", "e-mail", "Das Café", "x_y z"]
REFERENCES = [["the cat sat"], ["Positive", "good"], ["the"], ["cat dog"], ["the"], ["email"], ["das café!"], ["xy z"]]


@pytest.mark.parametrize("metric", ["accuracy", "exact_match", "token_f1", *ROUGE_NAMES])
def test_one_metric_of_each_answer_is_what_all_scores_say(metric: str) -> None:
    each = [answer_scores(*pair)[metric] for pair in zip(ANSWERS, REFERENCES, strict=True)]
    assert per_answer(metric, ANSWERS, REFERENCES) == each


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
    scores = answer_scores(answer, [reference])
    assert (scores["accuracy"], scores["exact_match"]) == (accurate, exact)


def test_any_of_several_references_makes_an_answer_right() -> None:
    pairs = [("Paris", ["Lyon", "Paris"]), ("rome", ["Rome", "Roma"]), ("Bonn", ["Berlin"])]
    assert [answer_scores(*pair)["accuracy"] for pair in pairs] == [1, 1, 0]
    assert [answer_scores(*pair)["exact_match"] for pair in pairs] == [1, 0, 0]


@pytest.mark.parametrize(("answer", "references"), list(zip(ANSWERS, REFERENCES, strict=True)))
def test_token_f1_equals_squads(answer: str, references: list[str]) -> None:
    theirs = squad(
        [{"prediction_text": answer, "id": "0"}],
        [{"answers": {"answer_start": [0] * len(references), "text": references}, "id": "0"}],
    )
    ours = max(token_f1(answer, reference) for reference in references)
    assert 100 * ours == pytest.approx(float(theirs["f1"]), abs=1e-4)
    assert answer_scores(answer, references)["token_f1"] == ours


def test_token_f1_sees_words_in_all_letters() -> None:
    assert token_f1("привет мир", "привет, Мир!") == 1


def test_scores_carry_the_names_of_the_contract() -> None:
    assert tuple(answer_scores("a", ["a"])) == ANSWER_NAMES


def test_answers_and_references_of_unequal_number_are_our_mistake() -> None:
    with pytest.raises(ValueError):
        per_answer("accuracy", ["a", "b"], [["a"]])


def test_references_that_rouge_cannot_see_are_told_of_once_and_punctuation_is_none() -> None:
    with pytest.warns(UserWarning, match=r"^ROUGE sees .* 2 of 5 references of talk have none") as told:
        warn_of_unseen_letters("talk", [["привет", "hello"], ["мир", "..."], ["world"]])
    assert len(told) == 1


def test_references_in_latin_letters_are_not_told_of(recwarn: pytest.WarningsRecorder) -> None:
    warn_of_unseen_letters("talk", [["hello"], ["!"], ["42"]])
    assert len(recwarn) == 0


def test_the_best_constant_is_the_commonest_reference_for_accuracy() -> None:
    text, scores = best_constant("accuracy", [["no"], ["yes"], ["yes"], ["no"], ["yes"]])
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
    text, scores = best_constant("accuracy", [["Yes"], ["yes"], ["YES"], ["no"], ["no"]])
    assert text.casefold() == "yes"
    assert mean(scores) == pytest.approx(0.6)
