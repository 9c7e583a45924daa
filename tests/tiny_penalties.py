"""What a run gives its regularizers, for a tiny model: the base anew, some retained rows, and nothing kept on disk."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from tiny_models import collator_of, facts_of, rows_for, tiny, word_tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from forgetmenot.data.types import Encoded
from forgetmenot.regularizer.base import Frozen, Supplies

TEACHER_SEED = 9
RETAINED = [(4, 2), (2, 5), (6, 1)]


def frozen(family: str, *, seed: int = 0, packs: bool = False) -> Frozen:
    """Returns a tiny model as a run holds one that it does not train."""
    model = tiny(family, seed=seed).requires_grad_(False)
    return Frozen(
        model=model, facts=facts_of(model), tokenizer=word_tokenizer(), collator=collator_of(model, packs=packs)
    )


def supplies_of(family: str, *, virtual_tokens: int = 0, made: list[Mapping[str, object]] | None = None) -> Supplies:
    """Returns them; what was asked to be kept is added to `made`. Every path is that of one other model."""

    def load(path: str | None = None, *, dtype: torch.dtype | None = None) -> Frozen:
        return frozen(family, seed=0 if path is None else TEACHER_SEED)

    def keep(name: str, settings: Mapping[str, object], *, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if made is not None:
            made.append({"name": name, **settings})
        return make()

    def track(items: Iterable[Encoded], *, title: str, total: int) -> Iterator[Encoded]:
        return iter(items)

    return Supplies(
        collator=collator_of(tiny(family), virtual_tokens=virtual_tokens),
        seed=3,
        device=torch.device("cpu"),
        load=load,
        retained=lambda number: retained(family)[:number],
        keep=keep,
        track=track,
    )


def retained(family: str) -> Sequence[Encoded]:
    """Returns the rows of the retained tasks."""
    return rows_for(tiny(family), RETAINED, seed=7)


def moved(model: PreTrainedModel, *, by: float = 1.0) -> PreTrainedModel:
    """Moves every trained weight by random amounts."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return model


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Returns what each parameter got, by name."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
