"""The contract of a method: how a pretrained model is made ready for training, and how what was learned is kept."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A way of adapting a model; `lr` is its learning rate for models from 100 M parameters up."""

    name: str
    lr: float

    freezes_base: ClassVar[bool] = True
    """Whether the base's own weights stay as they are: they are then held in low precision, and an adapter is saved."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")

    @property
    def folder(self) -> str:
        """Where in a run's folder the learned weights lie: an adapter alone, or the whole model."""
        return "adapter" if self.freezes_base else "model"

    @property
    def virtual_tokens(self) -> int:
        """How many virtual tokens stand before each prompt."""
        return 0

    @abstractmethod
    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the model with exactly those parameters trainable that this method learns."""

    @abstractmethod
    def change(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns the Frobenius norm of what the adapted `model` adds to the weights of its `base`."""

    def distance(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns that norm over the norm of all the base's weights."""
        return self.change(model, base) / norm(base.parameters())

    @abstractmethod
    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes what was learned into `folder`, in the Hugging Face layout."""

    @abstractmethod
    def load(self, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Returns the base `model` with what `save` wrote into `folder`."""


def norm(tensors: Iterable[Tensor]) -> float:
    """Returns the Frobenius norm of all of them together."""
    return math.sqrt(sum(float(tensor.detach().float().square().sum()) for tensor in tensors))
