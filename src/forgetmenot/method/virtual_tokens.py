"""What methods with virtual tokens share: where the tokens stand in a row, and how peft keeps what was learned.

Virtual tokens are extra vocabulary, with ids from the end of the embedding table up, which collate.py puts between
padding and prompt. So training, scoring and `generate` need no other path, and a row answers the same alone and in a
padded batch. peft makes the weights, and loads the saved ones without us.

Shapes: B rows, T positions, V virtual tokens, D hidden size.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import ClassVar

import torch
from peft import PromptLearningConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from forgetmenot.method.base import Method

_FILE = "adapter_model.safetensors"  # peft's names for the file and what is in it
_KEY = "prompt_embeddings"


class VirtualTokenEmbedding(nn.Module):
    """The base's embedding with virtual tokens behind its last row."""

    def __init__(self, base: nn.Module, *, prompt: nn.Module, config: PromptLearningConfig) -> None:
        super().__init__()
        self.base = base
        self.prompt = prompt
        self.config = config

    @property
    def weight(self) -> Tensor:
        """The base's own table, for code of transformers that looks at an embedding's dtype and size."""
        return self.base.get_parameter("weight")

    def vectors(self) -> Tensor:
        """Returns (V, D), all virtual tokens."""
        return vectors_of(self.prompt, number=self.config.num_virtual_tokens, device=self.weight.device)

    def forward(self, input_ids_BT: Tensor) -> Tensor:
        """Returns (B, T, D); ids past the base's table are virtual tokens."""
        first = self.weight.shape[0]
        virtual_BT = input_ids_BT >= first
        embedded_BTD = self.base(input_ids_BT.masked_fill(virtual_BT, 0))
        places_BT = (input_ids_BT - first).clamp(min=0, max=self.config.num_virtual_tokens - 1)
        vectors_BTD = self.vectors().to(embedded_BTD.dtype)[places_BT]
        return torch.where(virtual_BT[..., None], vectors_BTD, embedded_BTD)


@dataclass(frozen=True, kw_only=True)
class VirtualTokens(Method):
    """The contract of a method whose `num_virtual_tokens` tokens stand in each row: it says how peft makes them."""

    unmergeable: ClassVar[str | None] = (
        "its virtual tokens stand before each prompt and are no weights of the base; peft loads the run's adapter/ "
        "beside the base as it is, or a run with method=lora can be merged"
    )

    num_virtual_tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.num_virtual_tokens)

    @property
    def virtual_tokens(self) -> int:
        """The number of virtual tokens."""
        return self.num_virtual_tokens

    @abstractmethod
    def config(self, task: TaskType) -> PromptLearningConfig:
        """Returns peft's configuration of the virtual tokens."""

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the frozen base with the virtual tokens in its embedding layer."""
        self._check_embeddings(model)
        config = self.config(TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM)
        prompt = get_peft_model(model, config).prompt_encoder["default"]
        base = model.requires_grad_(False)
        embedding = VirtualTokenEmbedding(base.get_input_embeddings(), prompt=prompt, config=config)
        base.set_input_embeddings(embedding)
        return base

    def _check_embeddings(self, model: PreTrainedModel) -> None:
        """Refuses families that look token ids up twice (Gemma's embeddings per layer): virtual tokens stand in one."""
        table = model.get_input_embeddings().get_parameter("weight")
        values = model.config.get_text_config().to_dict()
        vocabularies = {value for key, value in values.items() if key.startswith("vocab_size")}
        for name, layer in model.named_modules():
            other = isinstance(layer, nn.Embedding) and layer.weight is not table
            if other and layer.num_embeddings in vocabularies:
                raise ValueError(
                    "method must be one without virtual tokens for a model that looks tokens up twice, "
                    f"got {self.name} for a model with {name}"
                )

    def change(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns 0: no weight of the base is touched."""
        return 0.0

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes the virtual tokens themselves in peft's layout, without what made them."""
        embedding = _embedding(model)
        save_vectors(embedding.vectors(), config=embedding.config, folder=folder)

    def load(self, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Returns the base `model` with the virtual tokens of `folder`."""
        adapted = self.apply(model)
        embedding = _embedding(adapted)
        embedding.prompt = load_vectors(folder, shape=(self.num_virtual_tokens, embedding.weight.shape[1]))
        return adapted


def start_from(model: PreTrainedModel, tokens: Sequence[int], *, text: str) -> None:
    """Lets the virtual tokens of an adapted `model` start as the embeddings of `tokens`, repeated or cut to fit.

    Raises ValueError where the `text` that they were is none.
    """
    if not tokens:
        raise ValueError(f"method.start must be a text of at least one token, got {text!r}")
    embedding = _embedding(model)
    number = embedding.config.num_virtual_tokens
    ids_V = torch.tensor(list(islice(cycle(tokens), number)), device=embedding.weight.device)
    with torch.no_grad():  # the layer is called, since some families scale what they look up
        embedding.prompt.get_parameter("embedding.weight").copy_(embedding.base(ids_V))


def check_number(num_virtual_tokens: int) -> None:
    """Raises ValueError where there is no virtual token."""
    if num_virtual_tokens < 1:
        raise ValueError(f"num_virtual_tokens must be at least 1, got {num_virtual_tokens}")


def vectors_of(encoder: nn.Module, *, number: int, device: torch.device) -> Tensor:
    """Returns what peft's `encoder` makes of its `number` virtual tokens, a vector each.

    In fp32 under autocast, too, as it is saved: so what was saved answers as what was trained.
    """
    with torch.autocast(device.type, enabled=False):
        vectors: Tensor = encoder(torch.arange(number, device=device))
    return vectors


def save_vectors(vectors_VD: Tensor, *, config: PromptLearningConfig, folder: Path) -> None:
    """Writes one vector a virtual token as peft writes them, to be answered with."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({_KEY: vectors_VD.detach().cpu().contiguous()}, folder / _FILE)
    config.inference_mode = True
    config.save_pretrained(str(folder))


def load_vectors(folder: Path, *, shape: tuple[int, int]) -> nn.Embedding:
    """Returns what `save_vectors` wrote; raises ValueError where it is of another `shape`."""
    vectors_VD = load_file(folder / _FILE)[_KEY]
    if vectors_VD.shape != shape:
        found = " x ".join(map(str, vectors_VD.shape))
        raise ValueError(f"{folder} must hold {shape[0]} virtual tokens of {shape[1]} values, got {found}")
    table: nn.Embedding = nn.Embedding.from_pretrained(vectors_VD, freeze=False)
    return table


def _embedding(model: PreTrainedModel) -> VirtualTokenEmbedding:
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, VirtualTokenEmbedding)
    return embedding
