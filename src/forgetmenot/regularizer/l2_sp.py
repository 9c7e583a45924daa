"""L2-SP: weights are pulled back to where they started.

Equation 2 of Li, Grandvalet, Davoine 2018, https://arxiv.org/abs/1802.01483. Of a low-rank adapter the weights are
those that it changes: it is held by its product, and not by its two factors, which can move while that stays.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forgetmenot.regularizer.base import Penalty, Regularizer, Supplies
from forgetmenot.regularizer.low_rank import Start, check_matrices, trained_alone, trained_pairs


class StartingPointPenalty(Penalty):
    """weight / 2 times the squared distance of the weights from their start."""

    def __init__(self, model: nn.Module, *, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.pairs = nn.ModuleList(Start(model, pair) for pair in trained_pairs(model))
        self.names = list(trained_alone(model))
        for index, name in enumerate(self.names):
            self.register_buffer(f"start_{index}", model.get_parameter(name).detach().clone(), persistent=False)

    def forward(self, model: nn.Module) -> Tensor:
        """Returns the penalty as a scalar."""
        distances = [
            (model.get_parameter(name) - self.get_buffer(f"start_{index}")).pow(2).sum()
            for index, name in enumerate(self.names)
        ]
        distances += [start.factors(model).square for start in self._starts()]
        return self.weight / 2 * torch.stack(distances).sum()

    def _starts(self) -> list[Start]:
        return [start for start in self.pairs if isinstance(start, Start)]


@dataclass(frozen=True, kw_only=True)
class L2SP(Regularizer):
    """Pulls every trained weight, and what every low-rank adapter changes, back to its starting point."""

    def check(self, model: nn.Module, *, own: Collection[str], context: int | None) -> None:
        """Raises ValueError where experts are adapted, of which one A and one B hold several products."""
        check_matrices(model, name=self.name)

    def kept_bytes(self, model: nn.Module) -> int:
        """Returns the bytes of the starting point."""
        return sum(held.nbytes for held in StartingPointPenalty(model, weight=self.weight).buffers())

    def prepare(self, model: nn.Module, supplies: Supplies) -> StartingPointPenalty:
        """Returns the penalty around the weights that `model` has now."""
        return StartingPointPenalty(model, weight=self.weight)
