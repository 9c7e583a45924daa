"""Full fine-tuning: every weight learns."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedModel

from forgetmenot.method.base import Method


@dataclass(frozen=True, kw_only=True)
class Full(Method):
    """Trains all parameters of the base model."""

    freezes_base: ClassVar[bool] = False

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the model itself, all of it trainable."""
        return model.requires_grad_(True)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes the whole model as safetensors; `transformers` loads it."""
        model.save_pretrained(folder)
