"""What methods share that learn tokens before each row, a vector each: how peft makes the vectors and keeps them.

What is saved is what was made, in peft's layout, so that peft loads it without us and without what made it.

Shapes: V virtual tokens, D values of a vector.
"""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PromptLearningConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from forgetmenot.method.base import Method

_FILE = "adapter_model.safetensors"  # peft's names for the file and what is in it
_KEY = "prompt_embeddings"


class LearnedVectors(nn.Module):
    """Holds what makes the vectors: peft's prompt encoder, or once they are loaded a table of them."""

    def __init__(self, prompt: nn.Module, *, config: PromptLearningConfig) -> None:
        super().__init__()
        self.prompt = prompt
        self.config = config

    def vectors(self) -> Tensor:
        """Returns (V, D): in fp32 under autocast, too, as they are saved, so that they answer as they were trained."""
        device = next(self.prompt.parameters()).device
        with torch.autocast(device.type, enabled=False):
            vectors_VD: Tensor = self.prompt(torch.arange(self.config.num_virtual_tokens, device=device))
        return vectors_VD

    def kept(self) -> Tensor:
        """Returns the vectors as peft's file has them."""
        return self.vectors()

    def found(self, kept: Tensor) -> Tensor:
        """Returns (V, D): the vectors of what `kept` gave."""
        return kept


@dataclass(frozen=True, kw_only=True)
class LearnedTokens(Method):
    """The contract of a method that learns `num_virtual_tokens` tokens: it says where in a model their vectors lie."""

    num_virtual_tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_virtual_tokens < 1:
            raise ValueError(f"num_virtual_tokens must be at least 1, got {self.num_virtual_tokens}")

    @property
    def virtual_tokens(self) -> int:
        """The number of virtual tokens."""
        return self.num_virtual_tokens

    @abstractmethod
    def learned(self, model: PreTrainedModel) -> LearnedVectors:
        """Returns the part of the adapted `model` that holds the vectors."""

    def change(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns 0: no weight of the base is touched."""
        return 0.0

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes the vectors in peft's layout."""
        learned = self.learned(model)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({_KEY: learned.kept().detach().cpu().contiguous()}, folder / _FILE)
        learned.config.inference_mode = True
        learned.config.save_pretrained(str(folder))

    def load(self, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Returns the base `model` with the vectors of `folder`; raises ValueError where they are of another shape."""
        adapted = self.apply(model)
        learned = self.learned(adapted)
        kept = load_file(folder / _FILE)[_KEY]
        number, size = learned.kept().shape
        if kept.shape != (number, size):
            found = " x ".join(map(str, kept.shape))
            raise ValueError(f"{folder} must hold {number} virtual tokens of {size} values, got {found}")
        learned.prompt = nn.Embedding.from_pretrained(learned.found(kept), freeze=False)
        return adapted
