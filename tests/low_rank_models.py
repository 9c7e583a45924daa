"""Low-rank adapters of several starts and kinds, and the weights that they make, formed plainly by peft."""

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from tiny_models import tiny
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

KINDS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "dora": {"use_dora": True},
}


def low_rank(family: str, kind: str) -> PreTrainedModel:
    """Returns a tiny model with an adapter of the kind in all its linear layers."""
    task = "SEQ_2_SEQ_LM" if family == "t5" else "CAUSAL_LM"
    config = LoraConfig(task_type=task, r=2, lora_alpha=6, target_modules="all-linear", **KINDS[kind])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return get_peft_model(tiny(family), config)


def merged(model: PreTrainedModel) -> dict[str, Tensor]:
    """Returns every adapted weight as `merge` makes it, by the name that the base has for it, with its graph."""
    weights = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            held, change = layer.get_base_layer().weight.detach(), layer.get_delta_weight("default")
            turned = held + change
            if layer.use_dora["default"]:
                per_output = layer.lora_magnitude_vector["default"].weight
                transposed = isinstance(layer.get_base_layer(), Conv1D)
                scale = per_output / turned.norm(dim=0 if transposed else 1)
                turned = turned * (scale if transposed else scale[:, None])
            weights[f"{name.removeprefix('base_model.model.')}.weight"] = turned
    return weights
