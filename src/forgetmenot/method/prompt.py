"""Prompt tuning: learned virtual tokens before each prompt (Lester et al. 2021, https://arxiv.org/abs/2104.08691).

peft makes and keeps the weights. Where they stand is ours: virtual tokens are extra vocabulary, with ids from the end
of the embedding table up, which collate.py puts between padding and prompt. So training, scoring and `generate` need no
other path, and a row answers the same alone and in a padded batch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from peft import PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model
from peft.tuners import PromptEmbedding
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from forgetmenot.method.base import Method


class VirtualTokenEmbedding(nn.Module):
    """The base's embedding with a soft prompt behind its last row."""

    def __init__(self, base: nn.Module, *, prompt: PromptEmbedding, config: PromptTuningConfig) -> None:
        super().__init__()
        self.base = base
        self.prompt = prompt
        self.config = config

    @property
    def weight(self) -> Tensor:
        """The base's own table, for code of transformers that looks at an embedding's dtype and size."""
        return self.base.get_parameter("weight")

    def forward(self, input_ids_BT: Tensor) -> Tensor:
        """Returns (B, T, hidden); ids past the base's table come from the soft prompt."""
        first = self.weight.shape[0]
        virtual_BT = input_ids_BT >= first
        embedded_BTD = self.base(input_ids_BT.masked_fill(virtual_BT, 0))
        prompt_BTD = self.prompt((input_ids_BT - first).clamp(min=0, max=self.config.num_virtual_tokens - 1))
        return torch.where(virtual_BT[..., None], prompt_BTD.to(embedded_BTD.dtype), embedded_BTD)


@dataclass(frozen=True, kw_only=True)
class Prompt(Method):
    """Trains `num_virtual_tokens` virtual tokens, started from embeddings drawn from the vocabulary."""

    unmergeable: ClassVar[str | None] = (
        "its virtual tokens stand before each prompt and are no weights of the base; peft loads the run's adapter/ "
        "beside the base as it is, or a run with method=lora can be merged"
    )

    num_virtual_tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_virtual_tokens < 1:
            raise ValueError(f"num_virtual_tokens must be at least 1, got {self.num_virtual_tokens}")

    @property
    def virtual_tokens(self) -> int:
        """The length of the soft prompt."""
        return self.num_virtual_tokens

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the frozen base with the soft prompt in its embedding layer."""
        self._check_embeddings(model)
        encoder_decoder = model.config.is_encoder_decoder
        config = PromptTuningConfig(
            task_type=TaskType.SEQ_2_SEQ_LM if encoder_decoder else TaskType.CAUSAL_LM,
            num_virtual_tokens=self.num_virtual_tokens,
            num_transformer_submodules=1,
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        )
        peft_model = get_peft_model(model, config)
        prompt = peft_model.prompt_encoder["default"]
        assert isinstance(prompt, PromptEmbedding)
        base = model.requires_grad_(False)
        base.set_input_embeddings(
            VirtualTokenEmbedding(base.get_input_embeddings(), prompt=prompt, config=peft_model.active_peft_config)
        )
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
                    f"got prompt for a model with {name}"
                )

    def change(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns 0: no weight of the base is touched."""
        return 0.0

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes the adapter in peft's layout."""
        embedding = model.get_input_embeddings()
        assert isinstance(embedding, VirtualTokenEmbedding)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {"prompt_embeddings": embedding.prompt.embedding.weight.detach().cpu().contiguous()},
            folder / "adapter_model.safetensors",
        )
        embedding.config.inference_mode = True
        embedding.config.save_pretrained(str(folder))

    def load(self, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Returns the base `model` with the soft prompt of `folder`."""
        adapted = self.apply(model)
        embedding = adapted.get_input_embeddings()
        assert isinstance(embedding, VirtualTokenEmbedding)
        learned = load_file(folder / "adapter_model.safetensors")["prompt_embeddings"]
        with torch.no_grad():
            embedding.prompt.embedding.weight.copy_(learned)
        return adapted
