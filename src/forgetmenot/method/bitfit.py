"""BitFit: the bias terms learn (Ben Zaken et al. 2022, https://arxiv.org/abs/2106.10199)."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from forgetmenot.method.whole import WholeModel


@dataclass(frozen=True, kw_only=True)
class BitFit(WholeModel):
    """Trains all bias terms of the base model, those of its norms among them."""

    def learned(self, model: PreTrainedModel) -> Iterable[nn.Parameter]:
        """Returns the biases; raises ValueError where the family has none, as Llama's."""
        last = {name: name.rpartition(".")[2] for name, _ in model.named_parameters()}
        biases = [w for name, w in model.named_parameters() if last[name] == "bias" or last[name].endswith("_bias")]
        if not biases:
            raise ValueError(
                f"method must be one that needs no bias terms for a model without them ({model.config.model_type}), "
                f"got {self.name}; method=layer_norm trains as few weights"
            )
        return biases
