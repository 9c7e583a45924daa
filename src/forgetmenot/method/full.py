"""Full fine-tuning: every weight learns."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from forgetmenot.method.whole import WholeModel


@dataclass(frozen=True, kw_only=True)
class Full(WholeModel):
    """Trains all parameters of the base model."""

    def learned(self, model: PreTrainedModel) -> Iterable[nn.Parameter]:
        """Returns all parameters."""
        return model.parameters()
