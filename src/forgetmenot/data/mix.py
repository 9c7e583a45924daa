"""What training mixes: how many of each task's rows an epoch holds, and which retained rows a step replays.

All of it is arithmetic on row numbers: the rows of all tasks lie behind each other, the targets' first. What is drawn
is a function of the seed and of where it stands, so that it can be resumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

_SETTING_OF = {"temperature": "temperature", "capped": "cap", "weighted": "weights"}
"""What a way of mixing needs to be told."""


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How target tasks share an epoch, in rows; Raffel et al. 2020, section 3.5.2.

    `proportional` to their rows; `capped` counts at most `cap` rows of a task; `temperature` takes the root of that
    degree of such counts, so that 1 is proportional and more is more equal; `weighted` takes `weights` as given, one a
    task.
    """

    name: str
    mixing: Literal["proportional", "capped", "temperature", "weighted"]
    temperature: float | None
    cap: int | None
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        for way, key in _SETTING_OF.items():
            value, nothing = getattr(self, key), "[]" if key == "weights" else "null"
            is_given = value not in (None, ())
            if self.mixing == way and not is_given:
                raise ValueError(f"{key} must be given where mixing is {way}, got {nothing}")
            if self.mixing != way and is_given and (key, self.mixing) != ("cap", "temperature"):
                shown = list(value) if key == "weights" else value
                raise ValueError(f"{key} must be {nothing} where mixing is {self.mixing}, got {shown}")
        if self.cap is not None and self.cap < 1:
            raise ValueError(f"cap must be at least 1, got {self.cap}")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be a number above 0, got {self.temperature}")
        if not all(0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"weights must be numbers above 0, got {', '.join(map(str, self.weights))}")

    @classmethod
    def of_one(cls, name: str) -> "Mixing":
        """Returns how one task is mixed with nothing."""
        return cls(name=name, mixing="proportional", temperature=None, cap=None, weights=())

    def shares(self, sizes: Sequence[int]) -> np.ndarray:
        """Returns (tasks,): each one's share of the rows that are drawn, given how many it has."""
        if self.mixing == "weighted":
            rates = np.asarray(self.weights, dtype=np.float64)
        else:
            counted = self._counted(sizes)
            rates = (counted / max(1.0, counted.max())) ** (1 / (self.temperature or 1.0))  # at most 1: no overflow
        total = rates.sum()
        return rates / total if total else rates

    def counts(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Returns how many rows each task gives to an epoch, which has as many as all tasks have, each at most `cap`.

        Rows are whole, by largest remainders, and every task that has rows gives one at least.
        """
        total = int(self._counted(sizes).sum())
        wanted = self.shares(sizes) * total
        counts = np.floor(wanted + 1e-9).astype(np.int64)  # a quota is a whole number but for rounding, or is none
        order = np.argsort(counts - wanted, kind="stable")
        counts[order[: total - counts.sum()]] += 1
        return tuple(max(count, min(1, size)) for count, size in zip(counts.tolist(), sizes, strict=True))

    def _counted(self, sizes: Sequence[int]) -> np.ndarray:
        counted: np.ndarray = np.minimum(np.asarray(sizes, dtype=np.float64), self.cap or np.inf)
        return counted


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Retained tasks' training examples are `share` of every step's (experience replay, Rolnick et al. 2019)."""

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share must be above 0 and below 1, got {self.share}; replay=none replays nothing")

    def per_step(self, batch_size: int) -> int:
        """Returns how many examples of a whole step are replayed; raises ValueError where none is left to learn."""
        replayed = max(1, round(self.share * batch_size))
        if replayed >= batch_size:
            raise ValueError(
                f"share must leave one example of a step to the target, got {self.share} of batch_size={batch_size}; "
                "a larger batch_size or a smaller share does"
            )
        return replayed


@dataclass(frozen=True, kw_only=True)
class Mix:
    """The rows of tasks behind each other: the targets', then those of which each whole step replays `replayed`."""

    sizes: tuple[int, ...]
    """Rows of each task."""
    counts: tuple[int, ...]
    """Rows that each target gives to an epoch; tasks behind them are replayed."""
    replayed: int = 0

    @classmethod
    def of_one(cls, size: int) -> "Mix":
        """Returns the mix of one task, each of whose rows an epoch holds once."""
        return cls(sizes=(size,), counts=(size,))

    @property
    def rows_per_epoch(self) -> int:
        """The targets' rows of an epoch; what is replayed comes on top."""
        return sum(self.counts)

    def epoch(self, number: int, *, seed: int) -> np.ndarray:
        """Returns the targets' rows of an epoch, sorted.

        Each task gives its rows in shuffled passes, one after the other, so that over epochs all come equally often.
        """
        starts = np.cumsum(self.sizes) - self.sizes
        parts = [
            starts[task] + passes(self.sizes[task], first=number * count, count=count, seed=(seed, task))
            for task, count in enumerate(self.counts)
        ]
        return np.sort(np.concatenate(parts))

    def replay(self, epoch: int, *, position: int, batch_size: int, seed: int) -> np.ndarray:
        """Returns the rows that are replayed in the step at `position` of an epoch.

        A smaller last step replays in the ratio of a whole one, at least one row. All rows take their turn in shuffled
        passes over all replayed tasks together.
        """
        targets = len(self.counts)
        size, start = sum(self.sizes[targets:]), sum(self.sizes[:targets])
        own = batch_size - self.replayed
        whole, rest = divmod(self.rows_per_epoch, own)
        last = max(1, round(rest * self.replayed / own)) if rest else 0
        first = epoch * (whole * self.replayed + last) + position * self.replayed
        count = self.replayed if position < whole else last
        return start + passes(size, first=first, count=count, seed=(seed, targets))

    def tasks(self, rows: np.ndarray) -> np.ndarray:
        """Returns the number of the task that each of some rows belongs to."""
        found: np.ndarray = np.searchsorted(np.cumsum(self.sizes), rows, side="right")
        return found


def passes(size: int, *, first: int, count: int, seed: tuple[int, int]) -> np.ndarray:
    """Returns places `first` to `first + count` of an endless row of shuffled passes over `size` things.

    `seed` is the run's, and the number of the row.
    """
    if not count:
        return np.empty(0, dtype=np.int64)
    numbers = range(first // size, -(-(first + count) // size))
    order = np.concatenate([_pass(size, seed, number) for number in numbers])
    start = first - numbers.start * size
    return order[start : start + count]


@lru_cache(maxsize=4)
def _pass(size: int, seed: tuple[int, int], number: int) -> np.ndarray:
    """Returns one pass; kept, since steps come one after the other."""
    run, row = seed
    return np.random.default_rng((run, number, row + 1)).permutation(size)  # unlike (run, epoch), which orders an epoch
