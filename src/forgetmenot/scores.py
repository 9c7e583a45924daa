"""Scores example by example, and how sure they are: every score is a ratio of two sums over examples.

An interval is the middle 95% of what resampled examples would score (percentile bootstrap, Efron and Tibshirani 1993,
chapter 13). Two models scored on the same examples are resampled together, so that their difference is paired.

Shapes: N examples, S scores, R resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from forgetmenot.result import Interval

RESAMPLES = 1000
_CELLS = 2**19  # of the counts of resampled examples that stand in memory at once: 4 MB, however many examples
_LOWER, _UPPER = 2.5, 97.5  # percent


@dataclass(frozen=True, kw_only=True, eq=False)
class ExampleScores:
    """What each example adds to the sum and to the weight of every score: for a loss, nats and tokens."""

    names: tuple[str, ...]
    sums_NS: np.ndarray
    weights_NS: np.ndarray

    @property
    def totals(self) -> dict[str, float]:
        """The scores over all examples."""
        return dict(zip(self.names, (self.sums_NS.sum(0) / self.weights_NS.sum(0)).tolist(), strict=True))

    def of(self, name: str) -> list[float]:
        """Returns every example's own score."""
        column = self.names.index(name)
        return [float(score) for score in self.sums_NS[:, column] / self.weights_NS[:, column]]

    def with_zero(self, name: str) -> Self:
        """Returns the scores with another, which is 0 for every example."""
        zeros_N1 = np.zeros((len(self.sums_NS), 1))
        return replace(
            self,
            names=(*self.names, name),
            sums_NS=np.hstack([self.sums_NS, zeros_N1]),
            weights_NS=np.hstack([self.weights_NS, zeros_N1 + 1]),
        )


def resampled(models: Sequence[ExampleScores], *, seed: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """Returns (R,) by score for each of the models: what they score on the same resampled examples, drawn by `seed`."""
    examples = len(models[0].sums_NS)
    parts: list[list[np.ndarray]] = [[] for _ in models]
    for counts_RN in _draws(examples, seed=seed):
        for model, part in zip(models, parts, strict=True):
            part.append((counts_RN @ model.sums_NS) / (counts_RN @ model.weights_NS))
    return [
        dict(zip(model.names, np.concatenate(part).T, strict=True)) for model, part in zip(models, parts, strict=True)
    ]


def interval(values_R: np.ndarray) -> Interval:
    """Returns the middle 95% of resampled values."""
    low, high = np.percentile(values_R, (_LOWER, _UPPER))
    return float(low), float(high)


def _draws(examples: int, *, seed: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields (R, N) in parts: how often each example is drawn, RESAMPLES times over."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS // examples)
    for start in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - start)
        yield generator.multinomial(examples, np.full(examples, 1 / examples), size=rows).astype(np.float64)
