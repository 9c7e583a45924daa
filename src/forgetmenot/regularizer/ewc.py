"""EWC: each weight is held at its start as firmly as what the base knows depends on it.

Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796: weight / 2 * sum F (w - w0)^2, F the diagonal Fisher.

Shapes: O and I what a layer gives and takes.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from forgetmenot.data.types import Encoded
from forgetmenot.model.layers import inputs, outputs
from forgetmenot.model.quantize import was_conv1d
from forgetmenot.regularizer.base import Frozen, Penalty, Regularizer, Supplies, Tensors
from forgetmenot.regularizer.fisher import diagonal_fisher, sample_texts
from forgetmenot.regularizer.low_rank import LowRankPair, Start, check_matrices, trained_alone, trained_pairs

_PEFT_PREFIX = "base_model.model."
_MAGNITUDE = ".lora_magnitude_vector."  # DoRA's, beside A and B


class ConsolidationPenalty(Penalty):
    """weight / 2 times the squared distance of the base's weights from their start, each weighed by its Fisher.

    An adapter is weighed by the change that it makes, formed for one layer at a time and again in the backward pass:
    beside the Fisher itself (fp32, as large as the adapted weights) it takes a few times the largest layer.
    """

    def __init__(self, model: nn.Module, *, fisher: Mapping[str, Tensor], weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.pairs = nn.ModuleList(Start(model, pair) for pair in trained_pairs(model))
        self.names = [name for name in trained_alone(model) if _MAGNITUDE not in name]
        for index, start in enumerate(self._starts()):
            self.register_buffer(f"pair_fisher_{index}", fisher[_own_weight(start.pair)].clone(), persistent=False)
        for index, name in enumerate(self.names):
            self.register_buffer(f"start_{index}", model.get_parameter(name).detach().clone(), persistent=False)
            self.register_buffer(f"fisher_{index}", fisher[_own_name(name)].clone(), persistent=False)

    def forward(self, model: nn.Module) -> Tensor:
        """Returns the penalty as a scalar."""
        parts = [
            (
                self.get_buffer(f"fisher_{index}")
                * (model.get_parameter(name) - self.get_buffer(f"start_{index}")).pow(2)
            ).sum()
            for index, name in enumerate(self.names)
        ]
        parts += [
            checkpoint(_weighed, model, start, self.get_buffer(f"pair_fisher_{index}"), use_reentrant=False)
            for index, start in enumerate(self._starts())
        ]
        return self.weight / 2 * torch.stack(parts).sum()

    def _starts(self) -> list[Start]:
        return [start for start in self.pairs if isinstance(start, Start)]


def _weighed(model: nn.Module, start: Start, fisher: Tensor) -> Tensor:
    """Returns sum F (change)^2 of one adapted layer."""
    layer, adapter = start.pair.layer_in(model), start.pair.adapter
    change_OI = start.factors(model).matrix
    fisher_OI = fisher.T if was_conv1d(layer.get_base_layer()) else fisher
    if adapter in layer.lora_magnitude_vector:
        held = dequantize_module_weight(layer.get_base_layer()).detach().float()
        held_OI = held.T if isinstance(layer.get_base_layer(), Conv1D) else held
        turned_OI = held_OI + change_OI
        magnitude_O1 = layer.lora_magnitude_vector[adapter].get_parameter("weight")[:, None]
        change_OI = magnitude_O1 * turned_OI / turned_OI.norm(dim=1, keepdim=True) - held_OI
    return (fisher_OI * change_OI.pow(2)).sum()


@dataclass(frozen=True, kw_only=True)
class EWC(Regularizer):
    """Holds each weight by the Fisher that `source` gives: texts the base itself says, or the retained tasks' examples.

    `num_examples` of them are taken; a text sampled from the base has at most `max_tokens`.
    """

    source: Literal["samples", "retained"]
    num_examples: int
    max_tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_examples", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def needs_retained(self) -> bool:
        """Whether the Fisher is taken over examples of the retained tasks."""
        return self.source == "retained"

    def check(self, model: nn.Module, *, own: Collection[str], context: int | None) -> None:
        """Raises ValueError where something is trained that is no weight of the base: it has no Fisher before it.

        Or where a sampled text, with what it starts from, would be longer than the base reads.
        """
        if not self.needs_retained and context is not None and self.max_tokens >= context:
            raise ValueError(
                f"regularizer.{self.name}.max_tokens must be below the model's context of {context} tokens, "
                f"got {self.max_tokens}"
            )
        check_matrices(model, name=self.name)
        added = [name for name in trained_alone(model) if _MAGNITUDE not in name and _own_name(name) not in own]
        if added:
            raise ValueError(
                f"regularizer.{self.name} must hold weights of the base itself or low-rank changes of them, got a "
                f"method that trains {added[0]}; regularizer=kl holds what the model says, whatever is trained"
            )

    def kept_bytes(self, model: nn.Module) -> int:
        """Returns the bytes of the starting point and of the Fisher, which is of fp32 and as large as what is held."""
        adapted = [pair.layer_in(model).get_base_layer() for pair in trained_pairs(model)]
        alone = [weight for name, weight in trained_alone(model).items() if _MAGNITUDE not in name]
        starts = (start for pair in trained_pairs(model) for start in Start(model, pair).buffers())
        weighed = sum(inputs(layer) * outputs(layer) for layer in adapted) + sum(weight.numel() for weight in alone)
        return sum(start.nbytes for start in (*alone, *starts)) + weighed * torch.float32.itemsize

    def prepare(self, model: nn.Module, supplies: Supplies) -> ConsolidationPenalty:
        """Returns the penalty around the weights that `model` has now; the Fisher is that of the base alone."""
        rows = supplies.retained(self.num_examples) if self.needs_retained else ()
        if self.needs_retained and not rows:
            raise ValueError(
                f"max_length must hold a retained example for regularizer.{self.name}.source=retained, got none that "
                f"fits; regularizer.{self.name}.source=samples needs none"
            )
        settings = {
            "source": self.source, "num_examples": self.num_examples, "max_tokens": self.max_tokens,
            "seed": supplies.seed, "rows": _digest(rows),
        }  # fmt: skip

        def estimate() -> Tensors:
            base = supplies.load(dtype=torch.float32)
            nn.Module.to(base.model, supplies.device)
            examples = rows or self._sampled(base, seed=supplies.seed)
            title = f"estimating the Fisher over {len(examples)} {self._said}"
            return diagonal_fisher(
                base, supplies.track(examples, title=title, total=len(examples)), device=supplies.device
            )

        fisher = supplies.keep("fisher", settings, make=estimate)
        return ConsolidationPenalty(model, fisher=fisher, weight=self.weight)

    def _sampled(self, base: Frozen, *, seed: int) -> Sequence[Encoded]:
        return sample_texts(base, self.num_examples, max_tokens=self.max_tokens, seed=seed)

    @property
    def _said(self) -> str:
        return "retained examples" if self.needs_retained else "texts of the base"


def _own_name(name: str) -> str:
    """Returns what the base calls a parameter of the adapted model."""
    return name.removeprefix(_PEFT_PREFIX).replace(".base_layer.", ".")


def _own_weight(pair: LowRankPair) -> str:
    return _own_name(f"{pair.layer}.weight")


def _digest(rows: Sequence[Encoded]) -> str:
    """Returns a name for the rows; others have another."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.input_ids.tobytes() + b"|" + row.labels.tobytes() + b"\n")
    return digest.hexdigest()
