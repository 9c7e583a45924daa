"""The contract of a method: how a pretrained model is made ready for training, and how what was learned is kept."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from forgetmenot.model.quantize import Quantization, dense_weights


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A way of adapting a model; `lr` is its learning rate for models from 100 M parameters up.

    What the rest of the house needs to know of a method are facts on it: nobody asks which one it is.
    """

    name: str
    lr: float | None

    freezes_base: ClassVar[bool] = True
    """Whether the base's own weights stay as they are: they are then held in low precision, and an adapter is saved."""

    trains: ClassVar[bool] = True
    """Whether anything is learned; `lr` is null where nothing is."""

    packs: ClassVar[bool] = True
    """Whether the adapted model takes rows that stand behind each other without padding."""

    recomputes: ClassVar[bool] = True
    """Whether a block of the adapted model can be computed once more in backward, to save activations."""

    unmergeable: ClassVar[str | None] = "what it learned is no part of the base's own weights"
    """Why `merge` cannot make a plain model of the base's architecture, and what to do instead; None where it can."""

    def __post_init__(self) -> None:
        if not self.trains and self.lr is not None:
            raise ValueError(f"lr must be null for a method that trains nothing, got {self.lr}")
        if self.trains and not (self.lr is not None and self.lr > 0):
            raise ValueError(f"lr must be above 0, got {'null' if self.lr is None else self.lr}")

    @property
    def folder(self) -> str:
        """Where in a run's folder the learned weights lie: an adapter alone, or the whole model."""
        return "adapter" if self.freezes_base else "model"

    @property
    def virtual_tokens(self) -> int:
        """How many virtual tokens stand before each prompt and take their share of max_length."""
        return 0

    @property
    def virtual_ids(self) -> int:
        """How many of them stand in the row itself, as ids behind the vocabulary."""
        return self.virtual_tokens

    @property
    def start_text(self) -> str | None:
        """The text whose embeddings virtual tokens start from; None: the method starts them by itself."""
        return None

    @property
    def shots(self) -> int:
        """How many training examples stand before each prompt of the target, as text."""
        return 0

    @property
    def quantization(self) -> Quantization | None:
        """What the frozen base's linear layers are held in; None: as they are."""
        return None

    @abstractmethod
    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the model with exactly those parameters trainable that this method learns."""

    @abstractmethod
    def change(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns the Frobenius norm of what the adapted `model` adds to the weights of its `base`."""

    def distance(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns that norm over the norm of all the base's weights."""
        return self.change(model, base) / norm(dense_weights(base))

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the plain model that answers as the adapted `model` does, which is used up.

        Raises ValueError where the method is unmergeable.
        """
        raise ValueError(f"method must be one that can be merged, got {self.name}: {self.unmergeable}")

    @abstractmethod
    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes what was learned into `folder`, in the Hugging Face layout."""

    @abstractmethod
    def load(self, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Returns the base `model` with what `save` wrote into `folder`."""


def norm(tensors: Iterable[Tensor]) -> float:
    """Returns the Frobenius norm of all of them together."""
    return math.sqrt(sum(float(tensor.detach().float().square().sum()) for tensor in tensors))


def load_learned(method: Method, base: PreTrainedModel, learned: Path) -> PreTrainedModel:
    """Returns `base` with what a method learned; raises ValueError where a file of it is damaged."""
    try:
        return method.load(base, learned)
    except SafetensorError as error:
        raise ValueError(f"{learned} must hold what a run learned, got a damaged file ({error})") from error
