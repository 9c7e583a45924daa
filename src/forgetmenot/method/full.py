"""Full fine-tuning: every weight learns."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedModel

from forgetmenot.method.base import Method, norm


@dataclass(frozen=True, kw_only=True)
class Full(Method):
    """Trains all parameters of the base model."""

    freezes_base: ClassVar[bool] = False

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the model itself, all of it trainable."""
        return model.requires_grad_(True)

    def change(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns the norm of all differences."""
        start = dict(base.named_parameters())
        return norm(
            weight.detach().float() - start[name].to(weight.device) for name, weight in model.named_parameters()
        )

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes the whole model as safetensors; `transformers` loads it."""
        model.save_pretrained(folder)

    def load(self, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Returns `model` with the weights of `folder` in place of its own."""
        learned = type(model).from_pretrained(folder, dtype=model.dtype, use_safetensors=True)
        model.load_state_dict(learned.state_dict())
        return model
