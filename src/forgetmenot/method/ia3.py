"""IA3: learned factors on keys, values and inner activations (Liu et al. 2022, https://arxiv.org/abs/2205.05638).

Shapes: I and O what a layer takes and gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import ClassVar, cast

from peft import IA3Config, TaskType, get_peft_model
from peft.tuners.ia3 import Linear
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)
from transformers import PreTrainedModel

from forgetmenot.method.adapter import ADAPTER, merge_adapter, put_adapter, read_adapter
from forgetmenot.method.base import Method, norm
from forgetmenot.model.layers import check_linear_layers, last_names, linear_layers, stacked_weights

_AUTO = ("auto",)


@dataclass(frozen=True, kw_only=True)
class IA3(Method):
    """Trains a factor for each output of `target_modules`, for each input of those also in `feedforward_modules`.

    `[auto]` is what peft has for the model's family.
    """

    unmergeable: ClassVar[str | None] = None

    target_modules: tuple[str, ...]
    feedforward_modules: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.target_modules:
            raise ValueError("target_modules must be [auto] or names of layers, got none")
        if self.target_modules != _AUTO and self.feedforward_modules != _AUTO:
            for name in self.feedforward_modules:
                if name not in self.target_modules:
                    raise ValueError(f"feedforward_modules must be [auto] or some of target_modules, got {name}")

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns peft's model; a fresh one answers as the base does, since all factors start at 1."""
        targets, feedforward = self._layers(model)
        encoder_decoder = model.config.is_encoder_decoder
        config = IA3Config(
            task_type=TaskType.SEQ_2_SEQ_LM if encoder_decoder else TaskType.CAUSAL_LM,
            target_modules=targets,
            feedforward_modules=feedforward,
        )
        # peft's wrapper is no PreTrainedModel, but passes on to the base whatever it does not have itself
        return cast(PreTrainedModel, get_peft_model(model, config))

    def _layers(self, model: PreTrainedModel) -> tuple[list[str], list[str]]:
        """Returns the layers to adapt, and those of them whose inputs are scaled."""
        chosen = {
            "target_modules": (self.target_modules, TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING),
            "feedforward_modules": (self.feedforward_modules, TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING),
        }
        family = model.config.model_type
        found: list[list[str]] = []
        for key, (names, of_families) in chosen.items():
            if names == _AUTO and family not in of_families:
                raise ValueError(
                    f"method.target_modules and method.feedforward_modules must be names of linear layers "
                    f"({last_names(linear_layers(model))}) for a model that peft has none for ({family}), got auto"
                )
            found.append(list(of_families[family] if names == _AUTO else names))
            if names == _AUTO:
                _check_known(model, found[-1])
            check_linear_layers(model, found[-1], key=f"method.{key}", other="auto")
        targets, feedforward = found
        if not set(feedforward) <= set(targets):
            raise ValueError(
                f"method.feedforward_modules must be some of target_modules ({', '.join(targets)}), "
                f"got {', '.join(feedforward)}"
            )
        return targets, feedforward

    def change(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns the norm of (factor - 1) W over all layers; factors of outputs scale a layer's bias, too."""
        changes = (_layer_change(layer) for layer in model.modules() if isinstance(layer, Linear))
        return sqrt(sum(change**2 for change in changes))

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the base with its weights scaled by the factors."""
        return merge_adapter(model)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes the factors in peft's layout."""
        model.save_pretrained(folder)

    def load(self, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Returns the base `model` with the factors of `folder`."""
        return put_adapter(self.apply(model), read_adapter(folder), folder=folder)


def _check_known(model: PreTrainedModel, known: Sequence[str]) -> None:
    """Raises ValueError where experts hold what peft calls layers: their matrices lie in one weight of three axes."""
    layers = linear_layers(model)
    there = [name for name in known if any(f".{layer}".endswith(f".{name}") for layer in layers)]
    missing = [name for name in known if name not in there]
    if missing and stacked_weights(model):
        raise ValueError(
            f"method.target_modules and method.feedforward_modules must be names of linear layers "
            f"({last_names(layers)}) for {model.config.model_type}, whose experts share weights of three axes, which "
            f"ia3 cannot scale, got auto, which peft takes for {', '.join(missing)}; target_modules="
            f"[{','.join(there) or last_names(layers)}] with feedforward_modules=[] leaves the experts as they are, "
            "and method=lora adapts them"
        )


def _layer_change(layer: Linear) -> float:
    weights = dict(layer.get_base_layer().named_parameters())
    weight_OI = weights["weight"].T if layer.fan_in_fan_out else weights["weight"]
    steps = layer.ia3_l[ADAPTER].detach().float() - 1  # (1, I) of a feed-forward layer, else (O, 1)
    parts = [weight_OI.detach().float() * steps]
    if "bias" in weights and not layer.is_feedforward:
        parts.append(weights["bias"].detach().float() * steps.flatten())
    return norm(parts)
