"""What counts as gain and as forgotten, on numbers worked out by hand."""

import pytest

from forgetmenot.forgetting import (
    BASE_CANNOT,
    BY_CONSTRUCTION,
    LOSS_ONLY,
    improvement,
    mean_forgetting,
    reason_not_counted,
)


def test_a_score_that_rises_and_a_loss_that_falls_are_both_improvements() -> None:
    assert improvement("accuracy", before=0.4, after=0.9) == pytest.approx(0.5)
    assert improvement("loss", before=2.0, after=1.25) == pytest.approx(0.75)
    assert improvement("bits_per_byte", before=2.0, after=1.25) == pytest.approx(0.75)


def test_a_score_that_falls_and_a_loss_that_rises_are_both_negative() -> None:
    assert improvement("rougeL_fmeasure", before=0.5, after=0.3) == pytest.approx(-0.2)
    assert improvement("loss", before=1.0, after=1.5) == pytest.approx(-0.5)


# Mean difference 3/5, standard deviation sqrt(0.3), margin 1.645 * sqrt(0.3 / 5) = 0.403; then 1/5 against 0.329.
@pytest.mark.parametrize(
    ("answers", "reason"), [([1, 1, 1, 0, 0], None), ([1, 0, 0, 0, 0], BASE_CANNOT), ([0, 0, 0, 0, 0], BASE_CANNOT)]
)
def test_a_task_counts_where_the_base_is_significantly_above_a_constant_answer(
    answers: list[float], reason: str | None
) -> None:
    assert reason_not_counted(answers, [0, 0, 0, 0, 0]) == reason


def test_a_base_that_only_says_the_commonest_answer_does_not_count() -> None:
    right_where_common = [1.0] * 60 + [0.0] * 40

    assert reason_not_counted(right_where_common, right_where_common) == BASE_CANNOT


def test_answers_are_compared_pair_by_pair_and_not_by_their_means() -> None:
    always_a_little_better = [k / 100 + 0.05 for k in range(20)]

    assert reason_not_counted(always_a_little_better, [k / 100 for k in range(20)]) is None
    assert reason_not_counted(always_a_little_better, [k / 100 for k in reversed(range(20))]) is None
    assert reason_not_counted([k % 2 + 0.05 for k in range(20)], [(k + 1) % 2 for k in range(20)]) == BASE_CANNOT


def test_a_base_below_the_constant_answer_does_not_count() -> None:
    assert reason_not_counted([0.0] * 10, [1.0] * 10) == BASE_CANNOT


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_than_two_examples_are_no_evidence(number: int) -> None:
    assert reason_not_counted([1.0] * number, [0.0] * number) == BASE_CANNOT


def test_answers_and_constants_of_unequal_number_are_our_mistake() -> None:
    with pytest.raises(ValueError, match="shorter"):
        reason_not_counted([1.0, 1.0], [0.0])


def test_the_mean_is_over_counted_tasks_alone() -> None:
    forgetting = {"names": 0.3, "party": 0.1, "text": 5.0, "sums": -0.9}
    reasons = {"names": None, "party": None, "text": LOSS_ONLY, "sums": BASE_CANNOT}

    assert mean_forgetting(forgetting, reasons) == pytest.approx(0.2)


def test_what_is_zero_by_construction_counts() -> None:
    forgetting = {"names": 0.3, "party": 0.0, "sums": 0.0}
    reasons = {"names": None, "party": BY_CONSTRUCTION, "sums": BASE_CANNOT}

    assert mean_forgetting(forgetting, reasons) == pytest.approx(0.15)


def test_the_mean_is_none_and_not_zero_where_nothing_counts() -> None:
    assert mean_forgetting({"text": 0.1}, {"text": LOSS_ONLY}) is None
    assert mean_forgetting({}, {}) is None
