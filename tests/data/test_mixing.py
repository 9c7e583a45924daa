"""Shares of several tasks, by the formulas of Raffel et al. 2020, section 3.5.2."""

import numpy as np
import pytest

from forgetmenot.data.mix import Mix, Mixing
from forgetmenot.data.plan import Plan

SIZES = (1000, 100, 10)


def mixing(way: str, **settings: object) -> Mixing:
    values = {"temperature": None, "cap": None, "weights": ()} | settings
    return Mixing(name="several", mixing=way, **values)  # type: ignore[arg-type]


def test_proportional_shares_are_those_of_all_examples() -> None:
    assert mixing("proportional").shares(SIZES) == pytest.approx([1000 / 1110, 100 / 1110, 10 / 1110])
    assert mixing("proportional").counts(SIZES) == SIZES


def test_a_cap_bounds_what_a_task_counts_and_gives() -> None:
    assert mixing("capped", cap=50).shares(SIZES) == pytest.approx([50 / 110, 50 / 110, 10 / 110])
    assert mixing("capped", cap=50).counts(SIZES) == (50, 50, 10)


@pytest.mark.parametrize("cap", [None, 200])
def test_a_temperature_takes_the_root_of_capped_counts(cap: int | None) -> None:
    counted = np.minimum(SIZES, cap or 10**9).astype(float)
    roots = counted ** (1 / 2)
    assert mixing("temperature", temperature=2.0, cap=cap).shares(SIZES) == pytest.approx(roots / roots.sum())
    assert sum(mixing("temperature", temperature=2.0, cap=cap).counts(SIZES)) == counted.sum()


def test_temperature_1_is_proportional_and_a_high_one_equal() -> None:
    assert mixing("temperature", temperature=1.0).counts(SIZES) == SIZES
    assert mixing("temperature", temperature=1e9).shares(SIZES) == pytest.approx([1 / 3] * 3)


def test_a_temperature_near_0_takes_the_largest_task_alone_and_every_row_of_the_epoch() -> None:
    shares = mixing("temperature", temperature=0.005).shares(SIZES)
    assert shares == pytest.approx([1, 0, 0])
    assert sum(mixing("temperature", temperature=0.005).counts(SIZES)) >= sum(SIZES)


def test_weights_are_shares_whatever_they_add_up_to() -> None:
    weighted = mixing("weighted", weights=(1.0, 2.0, 1.0))
    assert weighted.shares(SIZES) == pytest.approx([0.25, 0.5, 0.25])
    assert weighted.counts((4, 4, 4)) == (3, 6, 3)


def test_whole_rows_are_shared_by_largest_remainders_and_no_task_goes_without() -> None:
    assert mixing("weighted", weights=(1.0, 1.0, 1.0)).counts((5, 3, 2)) == (4, 3, 3)
    assert mixing("weighted", weights=(1000.0, 1.0)).counts((10, 10)) == (20, 1)


def test_nothing_is_mixed_to_nothing() -> None:
    assert mixing("proportional").counts((0, 0)) == mixing("weighted", weights=(1.0, 2.0)).counts((0, 0)) == (0, 0)


@pytest.mark.parametrize("size", [1, 23, 1000])
def test_one_task_gives_each_of_its_rows_once(size: int) -> None:
    assert Mixing.of_one("alone").counts((size,)) == (size,)


@pytest.mark.parametrize(
    ("way", "settings", "message"),
    [
        ("temperature", {}, "temperature must be given where mixing is temperature, got null"),
        ("capped", {}, "cap must be given where mixing is capped, got null"),
        ("weighted", {}, r"weights must be given where mixing is weighted, got \[\]"),
        ("proportional", {"cap": 5}, "cap must be null where mixing is proportional, got 5"),
        ("temperature", {"temperature": 0.0}, "temperature must be a number above 0, got 0.0"),
        ("capped", {"cap": 0}, "cap must be at least 1, got 0"),
        (
            "proportional",
            {"weights": (1.0, 2.0)},
            r"weights must be \[\] where mixing is proportional, got \[1.0, 2.0\]",
        ),
        ("capped", {"cap": 5, "temperature": 2.0}, "temperature must be null where mixing is capped, got 2.0"),
        ("capped", {"cap": -1}, "cap must be at least 1, got -1"),
        ("temperature", {"temperature": -2.0}, "temperature must be a number above 0, got -2.0"),
        ("weighted", {"weights": (1.0, -1.0)}, "weights must be numbers above 0, got 1.0, -1.0"),
    ],
)
def test_a_setting_that_is_missing_idle_or_wrong_is_refused(
    way: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mixing(way, **settings)


def test_epochs_give_each_task_its_count_and_its_rows_evenly() -> None:
    sizes, counts = (10, 4), (6, 8)
    plan = Plan(
        lengths=np.arange(1, 15), batch_size=5, micro_batch_tokens=60, seed=0, mix=Mix(sizes=sizes, counts=counts)
    )
    assert plan.steps_per_epoch == 3
    drawn = np.zeros(14, dtype=int)
    for epoch in range(5):
        rows = np.concatenate([plan.examples(3 * epoch + step) for step in range(3)])
        assert (int((rows < 10).sum()), int((rows >= 10).sum())) == counts
        drawn += np.bincount(rows, minlength=14)
    assert drawn.tolist() == [3] * 10 + [10] * 4
    steps = [set((plan.examples(step) < 10).tolist()) for step in range(15)]
    assert {True, False} in steps, "tasks meet in a step"
