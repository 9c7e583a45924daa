"""Fine-tuning of the last blocks alone: what lies below them stays as it is."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from forgetmenot.method.whole import WholeModel
from forgetmenot.model.layers import blocks, final_norms


@dataclass(frozen=True, kw_only=True)
class LastLayers(WholeModel):
    """Trains the last `num_layers` blocks and the final norm; of an encoder-decoder, the decoder's.

    Embeddings and output head stay frozen: where they are tied, one cannot learn without the other.
    """

    num_layers: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {self.num_layers}")

    def learned(self, model: PreTrainedModel) -> Iterable[nn.Parameter]:
        """Returns their parameters; raises ValueError where the model has fewer blocks than `num_layers`."""
        layers = blocks(model)
        if self.num_layers > len(layers):
            raise ValueError(
                f"method.num_layers must be at most {len(layers)}, the model's blocks, got {self.num_layers}"
            )
        chosen = [*layers[-self.num_layers :], *final_norms(model)]
        return [weight for layer in chosen for weight in layer.parameters()]
