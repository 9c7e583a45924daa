"""PiSSA: LoRA that starts at the largest singular values of each layer.

Meng et al. 2024, https://arxiv.org/abs/2404.02948.

A layer W = s B0 A0 + rest starts with B0 A0 in its adapter and the rest in its base. What is learned, s (B A - B0 A0),
is saved as plain LoRA of twice the rank, [B, -B0] [A; A0]: it goes on top of the base as it was, held in whatever
precision, and nobody has to repeat a singular value decomposition, which other machines do a little differently.

Shapes: R rank, I and O what a layer takes and gives.
"""

import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import Linear
from torch import Tensor
from transformers import PreTrainedModel

from forgetmenot.method.adapter import ADAPTER
from forgetmenot.method.lora_layers import base_weight, factors, set_base_weight


def start_at_principal_values(model: PreTrainedModel) -> None:
    """Moves each layer's largest singular values from its base into its adapter; the sum stays what it was."""
    for _, layer in _layers(model):
        left_OK, values_K, right_KI = torch.linalg.svd(base_weight(layer), full_matrices=False)
        rank, scale = layer.r[ADAPTER], layer.scaling[ADAPTER]
        if rank > len(values_K):
            raise ValueError(
                f"method.rank must be at most {len(values_K)}, the narrowest adapted layer, for start=pissa, got {rank}"
            )
        roots_R = (values_K[:rank] / scale).sqrt()
        _start(layer, roots_R[:, None] * right_KI[:rank], left_OK[:, :rank] * roots_R)


def change_factors(layer: Linear) -> tuple[Tensor, Tensor]:
    """Returns (2R, I) and (O, 2R) whose product is B A - B0 A0: (B - B0) A + B0 (A - A0), exactly 0 at the start."""
    a_RI, b_OR = factors(layer)
    a0_RI, b0_OR = layer.get_buffer("start_A"), layer.get_buffer("start_B")
    return torch.cat([a_RI, a_RI - a0_RI]), torch.cat([b_OR - b0_OR, b0_OR], dim=1)


def save_as_plain_lora(model: PeftModel, folder: Path) -> None:
    """Writes an adapter of twice the rank that plain peft puts on the base."""
    weights: dict[str, Tensor] = {}
    config = copy.copy(model.peft_config[ADAPTER])
    assert isinstance(config, LoraConfig)
    for name, layer in _layers(model):
        a_RI, b_OR = factors(layer)
        weights[f"{name}.lora_A.{ADAPTER}.weight"] = torch.cat([a_RI, layer.get_buffer("start_A")])
        weights[f"{name}.lora_B.{ADAPTER}.weight"] = torch.cat([b_OR, -layer.get_buffer("start_B")], dim=1)
        config.r = 2 * layer.r[ADAPTER]
        config.lora_alpha = layer.scaling[ADAPTER] * config.r
    config.use_rslora = False  # the scale is in alpha
    config.inference_mode = True
    model.save_pretrained(str(folder), state_dict=weights)
    config.save_pretrained(str(folder))


def split_plain_lora(model: PreTrainedModel, learned: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns A and B as trained of what `save_as_plain_lora` wrote; the start is taken out of the base again.

    Raises ValueError where a layer's weights are not there.
    """
    trained = dict(learned)
    for name, layer in _layers(model):
        a, b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        if not {a, b} <= learned.keys():
            raise ValueError(f"an adapter must hold weights of all layers that it adapts, got none for {name}")
        trained[a], start_a_RI = learned[a].chunk(2)
        trained[b], start_b_OR = learned[b].chunk(2, dim=1)
        _start(layer, start_a_RI, -start_b_OR)
    return trained


def _start(layer: Linear, a_RI: Tensor, b_OR: Tensor) -> None:
    with torch.no_grad():
        set_base_weight(layer, base_weight(layer) - layer.scaling[ADAPTER] * b_OR @ a_RI)
        layer.lora_A[ADAPTER].get_parameter("weight").copy_(a_RI)
        layer.lora_B[ADAPTER].get_parameter("weight").copy_(b_OR)
    layer.register_buffer("start_A", a_RI.clone(), persistent=False)  # else checkpoints would hold the adapter twice
    layer.register_buffer("start_B", b_OR.clone(), persistent=False)


def _layers(model: PreTrainedModel | PeftModel) -> Iterator[tuple[str, Linear]]:
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, Linear))
