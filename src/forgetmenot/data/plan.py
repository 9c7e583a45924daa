"""Plans training: which examples form a step, and how each step is cut into micro-batches for the ranks.

Learning depends on `batch_size` alone. Lengths only decide how a step is cut, so that little is padded and no forward
pass holds more than `micro_batch_tokens`. Position k of a plan is a function of (seed, k).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from forgetmenot.data.mix import Mix
from forgetmenot.data.sizes import round_rows_down

Cut = tuple[np.ndarray, float]
"""Indices of one micro-batch's examples, and its weight: 1, or 0 for one that only keeps ranks in step."""

_WINDOW = 50  # steps whose examples are sorted together under group_by_length: peers take the same


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The steps of a training run over examples of known `lengths` (tokens).

    `mix` says which of them an epoch holds and which are replayed; None: each once, and none is. `group_by_length` lets
    examples of like lengths meet in a step, which biases what a step sees. `packed` rows follow each other without
    padding; others are padded to the longest of their micro-batch. `rounded` cuts where rows are of a round number.
    """

    lengths: np.ndarray
    batch_size: int
    micro_batch_tokens: int
    seed: int
    group_by_length: bool = False
    packed: bool = False
    rounded: bool = False
    mix: Mix | None = None

    @property
    def mixed(self) -> Mix:
        """The mix of the run: of one task where none was given."""
        return self.mix or Mix.of_one(len(self.lengths))

    @property
    def own(self) -> int:
        """How many examples of a whole step are the targets': the others are replayed."""
        return self.batch_size - self.mixed.replayed

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the targets' examples; the last may be smaller."""
        return -(-self.mixed.rows_per_epoch // self.own)

    @property
    def largest_step(self) -> int:
        """The most tokens that a step can come to, padding among them."""
        longest = np.sort(self.lengths)[-self.batch_size :]
        return int(longest.sum() if self.packed else len(longest) * longest[-1])

    def examples(self, step: int) -> np.ndarray:
        """Returns the indices of the examples that form `step`, counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        members = _order(self, epoch)[position * self.own : (position + 1) * self.own]
        if not self.mixed.replayed:
            return members
        again = self.mixed.replay(epoch, position=position, batch_size=self.batch_size, seed=self.seed)
        return np.concatenate([members, again])

    def micro_batches(self, step: int, *, world_size: int) -> list[np.ndarray]:
        """Returns the indices of each micro-batch of `step`: a rank has its own and each `world_size` further on."""
        indices = self.examples(step)
        lengths = self.lengths[indices]
        by_length = np.argsort(lengths, kind="stable")
        indices = indices[by_length]
        sizes = self._sizes(lengths[by_length].tolist(), ranks=world_size)
        return np.split(indices, np.cumsum(sizes)[:-1]) if len(sizes) > 1 else [indices]

    def cuts(self, step: int, *, rank: int, world_size: int) -> list[Cut]:
        """Returns one rank's micro-batches of `step`; every rank gets the same number."""
        return dealt(self.micro_batches(step, world_size=world_size), rank=rank, world_size=world_size)

    def halved(self, step: int, *, world_size: int) -> "Plan":
        """Returns the plan with micro-batches of half the tokens of the largest that `step` has now.

        Raises ValueError where each of them holds one example: nothing is left to cut.
        """
        cuts = self.micro_batches(step, world_size=world_size)
        longest = int(self.lengths[self.examples(step)].max())
        if all(len(cut) == 1 for cut in cuts):
            raise ValueError(
                f"memory must hold one example of {longest} tokens, got less; a smaller max_length or "
                "model.activation_checkpointing=true takes less"
            )
        sizes = [self.lengths[cut].sum() if self.packed else len(cut) * self.lengths[cut].max() for cut in cuts]
        return replace(self, micro_batch_tokens=int(max(sizes)) // 2)

    def _sizes(self, lengths: list[int], *, ranks: int) -> list[int]:
        """Returns how many of the rows, from the shortest up, each micro-batch holds.

        There are as few as `micro_batch_tokens` allows, as many for each rank, and none much larger than the others.
        """
        fewest = len(self._greedy(lengths, limit=self.micro_batch_tokens))
        if fewest == ranks == 1:
            return [len(lengths)]
        wanted = min(-(-fewest // ranks) * ranks, len(lengths))
        low, high = max(lengths), max(self.micro_batch_tokens, max(lengths))
        while low < high:  # the smallest limit that needs no more micro-batches makes the most even ones
            middle = (low + high) // 2
            low, high = (low, middle) if len(self._greedy(lengths, limit=middle)) <= wanted else (middle + 1, high)
        sizes = self._greedy(lengths, limit=high)
        while len(sizes) < wanted:
            largest = sizes.index(max(sizes))
            sizes[largest : largest + 1] = [sizes[largest] // 2, sizes[largest] - sizes[largest] // 2]
        return sizes

    def _greedy(self, lengths: list[int], *, limit: int) -> list[int]:
        """Fills one micro-batch after the other up to `limit` tokens, padding among them; one row always fits."""
        if (sum(lengths) if self.packed else len(lengths) * lengths[-1]) <= limit:
            return [len(lengths)]
        sizes, rows, tokens = [], 0, 0
        for length in lengths:
            tokens = tokens + length if self.packed else (rows + 1) * length
            while rows and tokens > limit:
                full = round_rows_down(rows) if self.rounded else rows
                sizes.append(full)
                rows -= full
                tokens = (rows + 1) * length
            rows += 1
        return [*sizes, rows]


def dealt(micro_batches: Sequence[np.ndarray], *, rank: int, world_size: int) -> list[Cut]:
    """Returns one rank's micro-batches, every `world_size`-th; where they do not come out even, others get one again.

    That one has weight 0, so that every rank has the same number.
    """
    again = [(micro_batches[0], 0.0)] * (-len(micro_batches) % world_size)
    return [*((each, 1.0) for each in micro_batches), *again][rank::world_size]


@lru_cache(maxsize=1)
def _order(plan: Plan, epoch: int) -> np.ndarray:
    """Returns the targets' examples in the order of an epoch; kept while the epoch lasts."""
    draw = np.random.default_rng((plan.seed, epoch))
    order: np.ndarray = draw.permutation(plan.mixed.epoch(epoch, seed=plan.seed))
    if not plan.group_by_length:
        return order
    windows = np.arange(len(order)) // (_WINDOW * plan.own)
    order = order[np.lexsort((plan.lengths[order], windows))]
    full = len(order) // plan.own * plan.own
    left_over = draw.permutation(len(order))[: len(order) - full]  # the last, smaller step must not hold extremes alone
    steps = np.delete(order, left_over).reshape(-1, plan.own)
    return np.concatenate([draw.permutation(steps).reshape(-1), order[left_over]])
