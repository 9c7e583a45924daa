"""The torchmetrics Metric that adds scores up over batches and ranks, and the names of what is no answer's score."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

CHOICE_NAME = "choice_accuracy"
DIVERGENCE = "kl"
"""How far a model's next tokens are from its base's: no score, but summed like one."""


class Ratios(Metric):
    """Scores that are ratios of two sums over examples, so ranks with unequal counts come to what one process would."""

    sums: Tensor
    weights: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for state in ("sums", "weights"):
            self.add_state(state, torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, sums_BS: Tensor, weights_BS: Tensor) -> None:
        """Adds examples: (examples, scores) each."""
        self.sums += sums_BS.to(self.sums).sum(0)
        self.weights += weights_BS.to(self.weights).sum(0)

    def compute(self) -> dict[str, float]:
        """Returns the scores by name."""
        return dict(zip(self.names, (self.sums / self.weights).tolist(), strict=True))
