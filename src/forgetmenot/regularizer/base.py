"""The contract of a regularizer: a penalty added to the loss that keeps a model near what it was."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


class Penalty(nn.Module, ABC):
    """State in buffers, so that devices and checkpoints come free; `forward` is the penalty."""

    @abstractmethod
    def forward(self, model: nn.Module) -> Tensor:
        """Returns the penalty of `model` as it is now: a scalar in the loss's unit, added once a step."""


@dataclass(frozen=True, kw_only=True)
class Regularizer(ABC):
    """A way of holding a model near its start; any method, several at once."""

    name: str
    weight: float

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"weight must be at least 0, got {self.weight}")

    @abstractmethod
    def prepare(self, model: nn.Module) -> Penalty:
        """Returns the penalty, having taken from the untrained `model` what it needs."""
