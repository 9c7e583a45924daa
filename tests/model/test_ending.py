"""A frozen head with one row for several tokens can never tell which of them ends an answer."""

import math

import pytest
import torch
from tiny_models import CONFIGS, EOS, collator_of, facts_of, rows_for, tiny
from transformers import PreTrainedModel

from forgetmenot.loss import row_losses
from forgetmenot.method.base import Method
from forgetmenot.method.full import Full
from forgetmenot.method.last_layers import LastLayers
from forgetmenot.method.lora import Lora
from forgetmenot.method.prompt import Prompt
from forgetmenot.model.ending import alike_in_frozen_head

FULL = Full(name="full", lr=1e-3)
FROZEN_HEAD = [
    Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",)),
    Prompt(name="prompt", lr=1e-3, num_virtual_tokens=3, start=None),
    LastLayers(name="last_layers", lr=1e-3, num_layers=1),
]
UNMET = [EOS, 30, 31, 47]


def unmet(family: str) -> PreTrainedModel:
    """Returns a model that never met EOS and three other tokens, whose rows differ by less than a thousandth."""
    model = tiny(family)
    head = model.get_output_embeddings()
    assert head is not None
    with torch.no_grad():
        head.weight[UNMET] = head.weight[EOS] * torch.tensor([[1.0], [1.0004], [0.9996], [1.0008]])
    return model


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("method", FROZEN_HEAD, ids=lambda method: method.name)
def test_tokens_that_share_the_end_tokens_row_are_counted_where_the_head_is_frozen(family: str, method: Method) -> None:
    assert alike_in_frozen_head(method.apply(unmet(family)), EOS) == 3
    assert alike_in_frozen_head(method.apply(tiny(family)), EOS) == 0


@pytest.mark.parametrize("family", CONFIGS)
def test_a_head_that_is_trained_can_learn_any_end(family: str) -> None:
    assert alike_in_frozen_head(FULL.apply(unmet(family)), EOS) == 0


def test_a_head_with_an_adapter_of_its_own_can_learn_any_end() -> None:
    lora = Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("lm_head",))
    assert alike_in_frozen_head(lora.apply(unmet("llama")), EOS) == 0


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_loss_of_the_end_is_about_the_logarithm_of_those_that_share_its_row(family: str) -> None:
    model = FROZEN_HEAD[0].apply(unmet(family))
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.5)  # whatever an adapter may learn
    ends = collator_of(tiny(family)).rows(rows_for(tiny(family), [(5, 1), (9, 1), (3, 1)]))  # one token, EOS, to learn
    losses = row_losses(model, ends, facts_of(tiny(family)))
    assert losses.min() >= 0.95 * math.log(len(UNMET))
