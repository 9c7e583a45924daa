"""A model's layers, found by structure and not by family."""

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


def linear_layers(model: nn.Module) -> list[str]:
    """Returns the full names of the layers that multiply by a matrix; GPT-2's Conv1D is one."""
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | Conv1D)]


def table_weights(model: nn.Module) -> list[Tensor]:
    """Returns the weights that have a row a token: embeddings, soft prompts and the output head."""
    weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Embedding)]
    heads = [layer.get_output_embeddings() for layer in model.modules() if isinstance(layer, PreTrainedModel)]
    return [*weights, *(head.weight for head in heads if head is not None)]
