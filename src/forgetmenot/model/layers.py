"""A model's layers, found by structure and not by family."""

from torch import nn
from transformers.pytorch_utils import Conv1D


def linear_layers(model: nn.Module) -> list[str]:
    """Returns the full names of the layers that multiply by a matrix; GPT-2's Conv1D is one."""
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | Conv1D)]
