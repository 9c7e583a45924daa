"""The contract of a method: how a pretrained model is made ready for training, and how what was learned is kept."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

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
    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes what was learned into `folder`, in the Hugging Face layout."""
