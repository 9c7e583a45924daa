"""What peft's LoRA layers hold, as fp32 matrices of one orientation.

Shapes: R rank, I and O what a layer takes and gives.
"""

import torch
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor

from forgetmenot.method.adapter import ADAPTER


def factors(layer: LoraLayer) -> tuple[Tensor, Tensor]:
    """Returns A (R, I) and B (O, R)."""
    a_RI, b_OR = (
        weights.get_parameter("weight").detach().float() for weights in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER])
    )
    return a_RI, b_OR


def product_square(left_OR: Tensor, right_RI: Tensor) -> Tensor:
    """Returns the squared Frobenius norm of a product, not formed: the sum of (L'L) * (R R') by elements."""
    return ((left_OR.T @ left_OR) * (right_RI @ right_RI.T)).sum()


def base_weight(layer: Linear) -> Tensor:
    """Returns W (O, I) under the adapter; GPT-2 keeps its matrices the other way round."""
    weight = layer.get_base_layer().get_parameter("weight").detach().float()
    return weight.T if layer.fan_in_fan_out else weight


def set_base_weight(layer: Linear, weight_OI: Tensor) -> None:
    """Puts W (O, I) under the adapter, in the precision of what was there."""
    with torch.no_grad():
        layer.get_base_layer().get_parameter("weight").copy_(weight_OI.T if layer.fan_in_fan_out else weight_OI)


def decomposed_change(layer: Linear) -> Tensor:
    """Returns what DoRA adds to W, (O, I): m V / |V| - W by rows, where V = W + s B A."""
    a_RI, b_OR = factors(layer)
    weight_OI = base_weight(layer)
    direction_OI = weight_OI + layer.scaling[ADAPTER] * b_OR @ a_RI
    magnitude_O = layer.lora_magnitude_vector[ADAPTER].get_parameter("weight").detach().float()
    decomposed_OI: Tensor = (magnitude_O / torch.linalg.norm(direction_OI, dim=1))[:, None] * direction_OI
    return decomposed_OI - weight_OI


def set_magnitudes(layer: LoraLayer) -> None:
    """Takes DoRA's magnitudes anew from the base, in fp32.

    peft rounds them to the base's bf16 and then compares them with norms in fp32: a fresh adapter would scale every row
    by up to 0.4%.
    """
    a_RI, b_OR = factors(layer)
    layer.lora_magnitude_vector[ADAPTER].update_layer(  # type: ignore[operator]  # a DoraLinearLayer
        base_layer=layer.get_base_layer(), lora_A=a_RI, lora_B=b_OR, scaling=layer.scaling[ADAPTER]
    )
