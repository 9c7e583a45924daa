"""Intervals beside scipy's bootstrap and the textbook's error, and ratios of sums."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from forgetmenot import scores
from forgetmenot.scores import ExampleScores, interval, resampled


def of(values: np.ndarray, weights: np.ndarray | None = None) -> ExampleScores:
    """Returns one score of examples that count alike, or with their weights."""
    column = np.asarray(values, dtype=float)[:, None]
    return ExampleScores(
        names=("score",), sums_NS=column, weights_NS=np.ones_like(column) if weights is None else weights[:, None]
    )


def drawn(number: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(number)


def test_a_score_is_the_ratio_of_its_sums() -> None:
    both = of(np.array([2.0, 6.0]), np.array([1.0, 3.0]))
    assert both.totals == {"score": 2.0}
    assert both.of("score") == [2.0, 2.0]


def test_an_interval_of_a_mean_is_that_of_scipys_percentile_bootstrap() -> None:
    values = drawn(200)

    (ours,) = resampled([of(values)], seed=(1,))
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0))

    assert interval(ours["score"]) == pytest.approx(tuple(theirs.confidence_interval), abs=4e-3)
    assert np.std(ours["score"]) == pytest.approx(theirs.standard_error, rel=0.06)


def test_an_interval_of_a_loss_is_that_of_the_ratio_over_resampled_examples() -> None:
    tokens = np.random.default_rng(3).integers(1, 40, 150).astype(float)
    nats = tokens * (1 + drawn(150, seed=4))

    (ours,) = resampled([of(nats, tokens)], seed=(1,))
    theirs = bootstrap(
        (nats, tokens), lambda n, t, axis: n.sum(axis) / t.sum(axis), paired=True, n_resamples=20_000,
        method="percentile", vectorized=True, rng=np.random.default_rng(0),
    )  # fmt: skip

    assert interval(ours["score"]) == pytest.approx(tuple(theirs.confidence_interval), rel=5e-3)


def test_models_are_resampled_together_so_that_what_both_find_hard_does_not_blur_their_difference() -> None:
    hard = drawn(100)
    before, after = resampled([of(hard), of(hard + 0.1)], seed=(1,))

    low, high = interval(after["score"] - before["score"])

    assert (low, high) == pytest.approx((0.1, 0.1))
    assert interval(before["score"])[1] - interval(before["score"])[0] > 0.05


def test_the_same_seed_draws_the_same_examples_however_many_stand_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = of(drawn(50))
    (whole,) = resampled([values], seed=(1, 2))
    monkeypatch.setattr(scores, "_CELLS", 333)
    (parts,) = resampled([values], seed=(1, 2))
    (other,) = resampled([values], seed=(1, 3))

    assert np.allclose(whole["score"], parts["score"], rtol=1e-12)
    assert not np.allclose(whole["score"], other["score"])


def test_a_fair_share_of_intervals_holds_the_truth() -> None:
    held = 0
    for seed in range(200):
        (means,) = resampled([of(np.random.default_rng(seed).random(60) < 0.3)], seed=(seed,))
        low, high = interval(means["score"])
        held += low <= 0.3 <= high
    assert abs(held / 200 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 200)
