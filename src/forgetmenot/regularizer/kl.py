"""KL: what a model says next is held near what another says, the base or a teacher.

Learning without forgetting (Li and Hoiem 2016, https://arxiv.org/abs/1606.09282) where the other is the base,
distillation (Hinton et al. 2015, https://arxiv.org/abs/1503.02531) where it is another model.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from torch import Tensor, nn
from transformers import PreTrainedModel

from forgetmenot.data.compare import Comparison
from forgetmenot.data.types import Compared
from forgetmenot.loss import Reading, divergence_sum
from forgetmenot.model.facts import ModelFacts
from forgetmenot.regularizer.base import Frozen, Regularizer, Supplies, TokenPenalty


class DivergencePenalty(TokenPenalty):
    """weight times KL(reference, model) of the next token; the reference is held a second time, frozen."""

    def __init__(self, reference: Frozen, *, comparison: Comparison, weight: float) -> None:
        super().__init__()
        self.model = reference.model.requires_grad_(False)
        self.facts = reference.facts
        self.comparison = comparison
        self.weight = weight

    def train(self, mode: bool = True) -> Self:
        """Leaves the reference in evaluation mode: it has no dropout."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, model: PreTrainedModel, compared: Compared, facts: ModelFacts) -> Tensor:
        """Returns the weighted divergence in nats, summed over the compared tokens."""
        reference = Reading(model=self.model, batch=compared.reference_rows, facts=self.facts)
        return self.weight * divergence_sum(Reading(model=model, batch=compared.rows, facts=facts), reference)


@dataclass(frozen=True, kw_only=True)
class KL(Regularizer):
    """Holds the model to what `reference` says (null: the base) at the supervised tokens of training rows or at all."""

    holds_weights: ClassVar[bool] = False

    reference: str | None
    positions: Literal["supervised", "all"]

    @property
    def other_model(self) -> str | None:
        """The reference, where it is not the base."""
        return self.reference

    def prepare(self, model: nn.Module, supplies: Supplies) -> DivergencePenalty:
        """Returns the penalty beside the reference, loaded as a second model: in bf16 where the hardware has it."""
        reference = supplies.load(self.reference)
        comparison = Comparison(
            collator=supplies.collator, reference_collator=reference.collator, positions=self.positions
        )
        return DivergencePenalty(reference, comparison=comparison, weight=self.weight)
