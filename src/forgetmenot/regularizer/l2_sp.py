"""L2-SP: weights are pulled back to where they started.

Equation 2 of Li, Grandvalet, Davoine 2018, https://arxiv.org/abs/1802.01483.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forgetmenot.regularizer.base import Penalty, Regularizer


class StartingPointPenalty(Penalty):
    """weight / 2 times the squared distance of the trained weights from their start."""

    def __init__(self, model: nn.Module, *, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        for index, name in enumerate(self.names):
            self.register_buffer(f"start_{index}", model.get_parameter(name).detach().clone())

    def forward(self, model: nn.Module) -> Tensor:
        """Returns the penalty as a scalar."""
        distances = [
            (model.get_parameter(name) - self.get_buffer(f"start_{index}")).pow(2).sum()
            for index, name in enumerate(self.names)
        ]
        return self.weight / 2 * torch.stack(distances).sum()


@dataclass(frozen=True, kw_only=True)
class L2SP(Regularizer):
    """Pulls every trained weight back to its starting point."""

    def prepare(self, model: nn.Module) -> StartingPointPenalty:
        """Returns the penalty around the weights that `model` has now."""
        return StartingPointPenalty(model, weight=self.weight)
