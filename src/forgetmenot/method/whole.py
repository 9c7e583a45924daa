"""Methods that train weights of the base itself: the model is saved whole, as transformers loads it."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import nn
from transformers import PreTrainedModel

from forgetmenot.method.base import Method, norm


@dataclass(frozen=True, kw_only=True)
class WholeModel(Method):
    """The contract of such a method: it says which parameters learn."""

    freezes_base: ClassVar[bool] = False
    unmergeable: ClassVar[str | None] = None

    @abstractmethod
    def learned(self, model: PreTrainedModel) -> Iterable[nn.Parameter]:
        """Returns the parameters that learn; raises ValueError where the model has none of the kind."""

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the model itself, `learned` trainable and the rest frozen."""
        model.requires_grad_(False)
        for parameter in self.learned(model):
            parameter.requires_grad_(True)
        return model

    def change(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns the norm of all differences."""
        start = dict(base.named_parameters())
        return norm(
            weight.detach().float() - start[name].to(weight.device) for name, weight in model.named_parameters()
        )

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the model itself."""
        return model

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes the whole model as safetensors; `transformers` loads it."""
        model.save_pretrained(folder)

    def load(self, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Returns `model` with the weights of `folder` in place of its own."""
        learned = type(model).from_pretrained(folder, dtype=model.dtype, use_safetensors=True)
        model.load_state_dict(learned.state_dict())
        return model
