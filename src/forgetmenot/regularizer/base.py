"""The contract of a regularizer: a penalty added to the loss that keeps a model near what it was.

A penalty looks at weights, once a step, or at what the model says of each token, beside the loss of each micro-batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forgetmenot.data.collate import Collator
from forgetmenot.data.compare import Comparison
from forgetmenot.data.types import Compared, Encoded
from forgetmenot.model.facts import ModelFacts

Tensors = dict[str, Tensor]


class Penalty(nn.Module, ABC):
    """On weights: state in buffers, so that devices come free; `forward` is the penalty.

    Buffers are not persistent: they follow from the untrained model, so no checkpoint has to hold them, and a run that
    goes on prepares them before it takes the checkpoint's weights (docs/decisions/0012).
    """

    @abstractmethod
    def forward(self, model: nn.Module) -> Tensor:
        """Returns the penalty of `model` as it is now: a scalar in the loss's unit, added once a step."""


class TokenPenalty(nn.Module, ABC):
    """On what a model says of tokens, beside another's reading of the same rows: `comparison` lays them out."""

    comparison: Comparison

    @abstractmethod
    def forward(self, model: PreTrainedModel, compared: Compared, facts: ModelFacts) -> Tensor:
        """Returns the penalty in nats, summed over the compared tokens; a step's is divided by all that it compares."""


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A model that is not trained, in evaluation mode, and how it reads rows."""

    model: PreTrainedModel
    facts: ModelFacts
    tokenizer: PreTrainedTokenizerBase
    collator: Collator


class LoadFrozen(Protocol):
    """Loads the base, or the model at `path`, with weights in `dtype` (None: as a frozen base is held)."""

    def __call__(self, path: str | None = None, *, dtype: torch.dtype | None = None) -> Frozen: ...


class Keep(Protocol):
    """Returns what `make` made of this base under `name` and `settings`, now or in an earlier run."""

    def __call__(self, name: str, settings: Mapping[str, object], *, make: Callable[[], Tensors]) -> Tensors: ...


class Track(Protocol):
    """Passes items on and shows how far a long job is."""

    def __call__(self, items: Iterable[Encoded], *, title: str, total: int) -> Iterator[Encoded]: ...


@dataclass(frozen=True, kw_only=True)
class Supplies:
    """What a run gives its regularizers before it trains; models and examples are made when they are asked for."""

    collator: Collator
    """How the model under adaptation reads rows."""
    seed: int
    device: torch.device
    load: LoadFrozen
    retained: Callable[[int], Sequence[Encoded]]
    """That many training examples of the retained tasks (all, where there are fewer), drawn by the seed."""
    keep: Keep
    track: Track


@dataclass(frozen=True, kw_only=True)
class Regularizer(ABC):
    """A way of holding a model near its start; any method, several at once."""

    name: str
    weight: float

    holds_weights: ClassVar[bool] = True
    """Whether the penalty compares weights, and needs them whole on each device; else what the model says."""

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"weight must be at least 0, got {self.weight}")

    @property
    def other_model(self) -> str | None:
        """The folder or hub id of a model, beside the base, whose next tokens are compared; None: none."""
        return None

    @property
    def needs_retained(self) -> bool:
        """Whether training examples of the retained tasks have to be there."""
        return False

    def check(  # noqa: B027  # most can hold anything
        self, model: nn.Module, *, own: Collection[str], context: int | None
    ) -> None:
        """Raises ValueError where what `model` trains cannot be held.

        `own` are the names of the base's parameters, `context` the tokens that it reads (None: any number).
        """

    def kept_bytes(self, model: nn.Module) -> int | None:
        """Returns what its penalty on the weights of the adapted `model`, which may be empty, holds beside them.

        None: that is known once it is prepared, and not before.
        """
        return None

    @abstractmethod
    def prepare(self, model: nn.Module, supplies: Supplies) -> Penalty | TokenPenalty:
        """Returns the penalty, having taken from the untrained `model` and `supplies` what it needs."""
