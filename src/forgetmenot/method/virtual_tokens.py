"""What methods share whose virtual tokens stand in a row, between padding and prompt.

They are extra vocabulary, with ids from the end of the embedding table up, which collate.py puts there. So training,
scoring and `generate` need no other path, and a row answers the same alone and in a padded batch.

Shapes: B rows, T positions, V virtual tokens, D hidden size.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import ClassVar

import torch
from peft import PromptLearningConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from forgetmenot.method.learned_tokens import LearnedTokens, LearnedVectors


class VirtualTokenEmbedding(LearnedVectors):
    """The base's embedding with virtual tokens behind its last row."""

    def __init__(self, base: nn.Module, *, prompt: nn.Module, config: PromptLearningConfig) -> None:
        super().__init__(prompt, config=config)
        self.base = base

    @property
    def weight(self) -> Tensor:
        """The base's own table, for code of transformers that looks at an embedding's dtype and size."""
        return self.base.get_parameter("weight")

    def forward(self, input_ids_BT: Tensor) -> Tensor:
        """Returns (B, T, D); ids past the base's table are virtual tokens."""
        first = self.weight.shape[0]
        virtual_BT = input_ids_BT >= first
        embedded_BTD = self.base(input_ids_BT.masked_fill(virtual_BT, 0))
        places_BT = (input_ids_BT - first).clamp(min=0, max=self.config.num_virtual_tokens - 1)
        vectors_BTD = self.vectors().to(embedded_BTD.dtype)[places_BT]
        return torch.where(virtual_BT[..., None], vectors_BTD, embedded_BTD)


@dataclass(frozen=True, kw_only=True)
class VirtualTokens(LearnedTokens):
    """The contract of a method whose tokens stand in each row: it says how peft makes them."""

    unmergeable: ClassVar[str | None] = (
        "its virtual tokens stand before each prompt and are no weights of the base; peft loads the run's adapter/ "
        "beside the base as it is, or a run with method=lora can be merged"
    )

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

    def learned(self, model: PreTrainedModel) -> LearnedVectors:
        """Returns the embedding layer."""
        return _embedding(model)


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


def _embedding(model: PreTrainedModel) -> VirtualTokenEmbedding:
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, VirtualTokenEmbedding)
    return embedding
