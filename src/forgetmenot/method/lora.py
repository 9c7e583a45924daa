"""LoRA: a low-rank update of linear layers, through peft (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

Shapes: R rank, I and O what a layer takes and gives.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from peft import LoraConfig, PeftModel, TaskType, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import load_peft_weights
from transformers import PreTrainedModel

from forgetmenot.method.base import Method
from forgetmenot.model.layers import linear_layers

_ADAPTER = "default"  # peft's name for an adapter that got none


@dataclass(frozen=True, kw_only=True)
class Lora(Method):
    """Trains B and A of W + (alpha / rank) B A in the layers that `target_modules` names, or in all linear ones."""

    unmergeable: ClassVar[str | None] = None

    rank: int
    alpha: float
    dropout: float
    target_modules: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be above 0, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        if not self.target_modules:
            raise ValueError("target_modules must be [all-linear] or names of layers, got none")

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns peft's model; a fresh one answers as the base does, since B starts at 0."""
        encoder_decoder = model.config.is_encoder_decoder
        every_layer = self.target_modules == ("all-linear",)
        if not every_layer:
            self._check_targets(model)
        self._check_rank(model)
        config = LoraConfig(
            task_type=TaskType.SEQ_2_SEQ_LM if encoder_decoder else TaskType.CAUSAL_LM,
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft declares int but divides it by r: any number works
            lora_dropout=self.dropout,
            target_modules="all-linear" if every_layer else list(self.target_modules),
        )
        # peft's wrapper is no PreTrainedModel, but passes on to the base whatever it does not have itself
        return cast(PreTrainedModel, get_peft_model(model, config))

    def _check_targets(self, model: PreTrainedModel) -> None:
        layers = linear_layers(model)
        for target in self.target_modules:
            if not any(name == target or name.endswith(f".{target}") for name in layers):
                known = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
                raise ValueError(
                    f"method.target_modules must be [all-linear] or names of linear layers ({known}), got {target}"
                )

    def _check_rank(self, model: PreTrainedModel) -> None:
        widths = [min(model.get_parameter(f"{name}.weight").shape) for name in linear_layers(model)]
        if self.rank > max(widths):
            raise ValueError(f"method.rank must be at most {max(widths)}, the model's widest layer, got {self.rank}")

    def change(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns the norm of all scale B A, without forming one: |B A|^2 is the sum of (B'B) * (A A') by elements."""
        squares = 0.0
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                pair = (layer.lora_A[_ADAPTER], layer.lora_B[_ADAPTER])
                a_RI, b_OR = (weights.get_parameter("weight").detach().float() for weights in pair)
                squares += layer.scaling[_ADAPTER] ** 2 * float(((b_OR.T @ b_OR) * (a_RI @ a_RI.T)).sum())
        return math.sqrt(squares)

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the base with scale B A added to its weights; raises ValueError where that is no number."""
        return cast(PreTrainedModel, cast(PeftModel, model).merge_and_unload(safe_merge=True))

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes the adapter in peft's layout."""
        model.save_pretrained(folder)

    def load(self, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Returns the base `model` with the adapter of `folder`."""
        adapted = self.apply(model)
        learned = load_peft_weights(str(folder), device="cpu")
        loaded = set_peft_model_state_dict(adapted, learned)
        _, unknown = cast(tuple[list[str], list[str]], loaded)  # missing and unexpected keys
        if unknown:
            raise ValueError(f"{folder} must hold an adapter of this method and model, got weights for {unknown[0]}")
        return adapted
