"""Tuning of the normalization layers alone (Zhao et al. 2023, https://arxiv.org/abs/2312.11420)."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from forgetmenot.method.whole import WholeModel
from forgetmenot.model.layers import norms


@dataclass(frozen=True, kw_only=True)
class LayerNorm(WholeModel):
    """Trains the weights, and the biases where there are any, of all normalization layers."""

    def learned(self, model: PreTrainedModel) -> Iterable[nn.Parameter]:
        """Returns their parameters; raises ValueError where the model's norms have none."""
        weights = [weight for layer in norms(model) for weight in layer.parameters()]
        if not weights:
            raise ValueError(
                "method must be one that needs no weights of norms for a model without them "
                f"({model.config.model_type}), got {self.name}; method=lora trains few weights of any model"
            )
        return weights
