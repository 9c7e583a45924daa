"""Plans training: which examples form a step, and how each step is cut into micro-batches for the ranks.

Learning depends on `batch_size` alone. Lengths only decide how a step is cut, so that little is padded and no forward
pass holds more than `micro_batch_tokens`. Position k of a plan is a function of (seed, k).
"""

from dataclasses import dataclass

import numpy as np

Cut = tuple[np.ndarray, float]
"""Indices of one micro-batch's examples, and its weight: 1, or 0 for one that only keeps ranks in step."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of a training run over examples of known `lengths` (tokens)."""

    lengths: np.ndarray
    batch_size: int
    micro_batch_tokens: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the examples; the last may be smaller."""
        return -(-len(self.lengths) // self.batch_size)

    def examples(self, step: int) -> np.ndarray:
        """Returns the indices of the examples that form `step`, counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.lengths))
        return order[position * self.batch_size : (position + 1) * self.batch_size]

    def cuts(self, step: int, *, rank: int, world_size: int) -> list[Cut]:
        """Returns one rank's micro-batches of `step`; every rank gets the same number."""
        indices = self.examples(step)
        indices = indices[np.argsort(self.lengths[indices], kind="stable")]
        parts = self._parts(indices)
        while len(parts) % world_size:
            largest = max(range(len(parts)), key=lambda i: len(parts[i]))
            if len(parts[largest]) == 1:
                break
            middle = len(parts[largest]) // 2
            parts[largest : largest + 1] = [parts[largest][:middle], parts[largest][middle:]]
        cuts = [(part, 1.0) for part in parts]
        while len(cuts) % world_size:
            cuts.append((parts[0], 0.0))
        return cuts[rank::world_size]

    def _parts(self, indices: np.ndarray) -> list[np.ndarray]:
        """Cuts examples sorted by length so that rows times the longest row stays within `micro_batch_tokens`."""
        parts = []
        start = 0
        for end in range(1, len(indices) + 1):
            full = end == len(indices) or (end + 1 - start) * self.lengths[indices[end]] > self.micro_batch_tokens
            if full:
                parts.append(indices[start:end])
                start = end
        return parts
