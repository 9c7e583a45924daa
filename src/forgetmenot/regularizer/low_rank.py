"""What a low-rank adapter changes of the weights under it, from its start on, without forming it.

The change of scale (B A - B0 A0) is scale times [B - B0, B0] [A; A - A0], a product of twice the rank: exactly 0 at the
start, and no difference of large numbers where B0 A0 is not 0 (PiSSA: Meng et al. 2024, https://arxiv.org/abs/2404.02948).

Shapes: R rank, I and O what a layer takes and gives, P the rank of the difference.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import Tensor, nn

from forgetmenot.method.lora_layers import product_square


@dataclass(frozen=True, kw_only=True)
class LowRankPair:
    """The names of A and B of one adapter in one layer of a model."""

    layer: str
    adapter: str

    @property
    def a(self) -> str:
        """The full name of A."""
        return f"{self.layer}.lora_A.{self.adapter}.weight"

    @property
    def b(self) -> str:
        """The full name of B."""
        return f"{self.layer}.lora_B.{self.adapter}.weight"

    def layer_in(self, model: nn.Module) -> LoraLayer:
        """Returns the layer that holds both."""
        layer = model.get_submodule(self.layer)
        assert isinstance(layer, LoraLayer)
        return layer

    def scale_in(self, model: nn.Module) -> float:
        """Returns what multiplies B A."""
        return float(self.layer_in(model).scaling[self.adapter])


def trained_pairs(model: nn.Module) -> list[LowRankPair]:
    """Returns the low-rank adapters that `model` trains both parts of."""
    return list(_pairs(model))


def _pairs(model: nn.Module) -> Iterator[LowRankPair]:
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, layer in model.named_modules():
        for adapter in layer.lora_A if isinstance(layer, LoraLayer) else ():
            pair = LowRankPair(layer=name, adapter=adapter)
            if {pair.a, pair.b} <= trained:
                yield pair


def trained_alone(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns what `model` trains beside its low-rank adapters, by name."""
    paired = {name for pair in trained_pairs(model) for name in (pair.a, pair.b)}
    return {name: p for name, p in model.named_parameters() if p.requires_grad and name not in paired}


def check_matrices(model: nn.Module, *, name: str) -> None:
    """Raises ValueError where an adapter holds a product for each of a block's experts, which is none of two matrices.

    `name` is the regularizer's.
    """
    for pair in trained_pairs(model):
        layer = pair.layer_in(model)
        if isinstance(layer, ParamWrapper) and layer.num_experts > 1:
            raise ValueError(
                f"regularizer.{name} must hold layers of one matrix each, got an adapter of experts at {pair.layer}; "
                "regularizer=kl holds what the model says, whatever is trained"
            )


class Start(nn.Module):
    """Where a low-rank adapter started; one whose B was 0 changed nothing then, and nothing is held."""

    def __init__(self, model: nn.Module, pair: LowRankPair) -> None:
        super().__init__()
        self.pair = pair
        a_RI, b_OR = (model.get_parameter(name).detach() for name in (pair.a, pair.b))
        self.moved = b_OR.is_meta or bool(b_OR.any())
        self.register_buffer("a_RI", a_RI.clone() if self.moved else None, persistent=False)
        self.register_buffer("b_OR", b_OR.clone() if self.moved else None, persistent=False)

    def factors(self, model: nn.Module) -> "Factors":
        """Returns the change since then, scale among it, as a product."""
        a_RI, b_OR = model.get_parameter(self.pair.a), model.get_parameter(self.pair.b)
        scale = self.pair.scale_in(model)
        if not self.moved:
            return Factors(left_OP=scale * b_OR, right_PI=a_RI)
        start_a_RI, start_b_OR = self.get_buffer("a_RI"), self.get_buffer("b_OR")
        return Factors(
            left_OP=scale * torch.cat([b_OR - start_b_OR, start_b_OR], dim=1),
            right_PI=torch.cat([a_RI, a_RI - start_a_RI], dim=0),
        )


@dataclass(frozen=True, kw_only=True)
class Factors:
    """A matrix (O, I) as a product."""

    left_OP: Tensor
    right_PI: Tensor

    @property
    def square(self) -> Tensor:
        """Its squared Frobenius norm."""
        return product_square(self.left_OP, self.right_PI)

    @property
    def matrix(self) -> Tensor:
        """(O, I), formed."""
        return self.left_OP @ self.right_PI
