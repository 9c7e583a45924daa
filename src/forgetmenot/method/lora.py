"""LoRA and its kin: a low-rank update of linear layers, through peft.

LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685. rsLoRA: Kalajdzievski 2023, https://arxiv.org/abs/2312.03732.
DoRA: Liu et al. 2024, https://arxiv.org/abs/2402.09353. PiSSA: pissa.py. QLoRA: Dettmers et al. 2023,
https://arxiv.org/abs/2305.14314.
"""

from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import ClassVar, Literal, cast

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import Linear, LoraLayer, ParamWrapper
from torch import nn
from transformers import PreTrainedModel

from forgetmenot.method.adapter import ADAPTER, merge_adapter, put_adapter, read_adapter
from forgetmenot.method.base import Method, norm
from forgetmenot.method.lora_layers import decomposed_change, factors, product_square, set_magnitudes
from forgetmenot.method.pissa import change_factors, save_as_plain_lora, split_plain_lora, start_at_principal_values
from forgetmenot.model.layers import check_linear_layers, inputs, linear_layers, outputs
from forgetmenot.model.quantize import Quantization


@dataclass(frozen=True, kw_only=True)
class Lora(Method):
    """Trains B and A of W + (alpha / rank) B A in the layers that `target_modules` names, or in all linear ones."""

    unmergeable: ClassVar[str | None] = None

    rank: int
    alpha: float
    dropout: float
    target_modules: tuple[str, ...]
    rank_stabilized: bool = False
    """Whether the update is scaled by alpha / sqrt(rank), so that higher ranks learn as fast (rsLoRA)."""
    decomposed: bool = False
    """Whether the norm of each row is learned apart from its direction (DoRA)."""
    start: Literal["zero", "pissa"] = "zero"
    """What B A is at first: 0, or the largest singular values of W, taken out of it (PiSSA)."""
    quantize: Quantization | None = None
    """What W is held in; None: as the base is (QLoRA)."""

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
        if self.decomposed and self.start != "zero":
            raise ValueError(f"start must be zero with decomposed=true, got {self.start}")
        if self.quantize is not None and (self.decomposed or self.start != "zero"):
            other = "decomposed=true" if self.decomposed else f"start={self.start}"
            raise ValueError(
                f"quantize must be null with {other}, which needs exact base weights, got {self.quantize}; "
                "method=qlora learns over 4 bits"
            )

    @property
    def quantization(self) -> Quantization | None:
        """What the base's linear layers are held in."""
        return self.quantize

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns peft's model; a fresh one answers as the base does."""
        if self.target_modules != ("all-linear",):
            check_linear_layers(model, self.target_modules, key="method.target_modules", other="all-linear")
        self._check_rank(model)
        adapted = self._adapted(model)
        if self.start == "pissa":
            self._check_matrices(adapted)
            start_at_principal_values(adapted)
        return adapted

    def _check_matrices(self, adapted: PreTrainedModel) -> None:
        if any(isinstance(layer, ParamWrapper) for layer in _lora_layers(adapted)):
            raise ValueError(
                "method.start must be zero for a model whose experts share a weight of three axes, got "
                f"{self.start} for {adapted.config.model_type}; method=lora learns there"
            )

    def _adapted(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns peft's model with B at 0."""
        encoder_decoder = model.config.is_encoder_decoder
        config = LoraConfig(
            task_type=TaskType.SEQ_2_SEQ_LM if encoder_decoder else TaskType.CAUSAL_LM,
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft declares int but divides it by r: any number works
            lora_dropout=self.dropout,
            target_modules="all-linear" if self.target_modules == ("all-linear",) else list(self.target_modules),
            use_rslora=self.rank_stabilized,
            use_dora=self.decomposed,
        )
        try:
            # peft's wrapper is no PreTrainedModel, but passes on to the base whatever it does not have itself
            adapted = cast(PreTrainedModel, get_peft_model(model, config))
        except ValueError as error:  # such as DoRA for experts
            raise ValueError(
                f"method must be one that peft can put on the layers of {model.config.model_type}, got {self.name} "
                f"({error}); method.target_modules can name others, or method=full trains any"
            ) from error
        if self.decomposed:
            for layer in _lora_layers(adapted):
                set_magnitudes(layer)
        return adapted

    def _check_rank(self, model: PreTrainedModel) -> None:
        layers = [model.get_submodule(name) for name in linear_layers(model)]
        widest = max(min(inputs(layer), outputs(layer)) for layer in layers)
        if self.rank > widest:
            raise ValueError(f"method.rank must be at most {widest}, the model's widest layer, got {self.rank}")

    def change(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns the norm of what is added to all W: of scale B A without forming it, of DoRA layer by layer."""
        return hypot(*(self._layer_change(layer) for layer in _lora_layers(model)))

    def _layer_change(self, layer: LoraLayer) -> float:
        if isinstance(layer, ParamWrapper):  # experts: a product each, in one A and one B
            return norm([layer.get_delta_weight(ADAPTER)])  # type: ignore[no-untyped-call]  # peft's
        if self.decomposed:
            assert isinstance(layer, Linear)
            return norm([decomposed_change(layer)])
        if self.start == "pissa":
            assert isinstance(layer, Linear)
            a_RI, b_OR = change_factors(layer)
        else:
            a_RI, b_OR = factors(layer)
        return float(layer.scaling[ADAPTER] * product_square(b_OR, a_RI).clamp(min=0).sqrt())

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the base with scale B A added to its weights; raises ValueError where that is no number."""
        return merge_adapter(model)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes the adapter in peft's layout; of a quantized base, too, nothing else is written."""
        if self.start == "pissa":
            save_as_plain_lora(cast(PeftModel, model), folder)
        else:
            model.save_pretrained(folder)

    def load(self, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Returns the base `model` with the adapter of `folder`."""
        adapted, learned = self._adapted(model), read_adapter(folder)
        if self.start == "pissa":
            learned = split_plain_lora(adapted, learned)
        return put_adapter(adapted, learned, folder=folder)


def _lora_layers(model: nn.Module) -> list[LoraLayer]:
    return [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
