"""Muon beside torch's own Muon and AdamW, and as one optimizer to schedules and checkpoints."""

import copy

import pytest
import torch
from tiny_models import tiny
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from forgetmenot.muon import Muon
from forgetmenot.optim import parameter_groups


def stepped(model: nn.Module, *optimizers: torch.optim.Optimizer, steps: int = 3) -> None:
    """Takes steps with gradients that only the step's number decides."""
    for number in range(steps):
        torch.manual_seed(number)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for optimizer in optimizers:
            optimizer.step()


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_hidden_matrices_step_as_torchs_muon_does_and_all_else_as_adamw() -> None:
    ours, theirs = tiny("llama"), tiny("llama")
    hidden = [p for n, p in theirs.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    tables = [p for n, p in theirs.named_parameters() if p.ndim == 2 and ("embed" in n or "lm_head" in n)]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(hidden, lr=0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    adamw = AdamW(
        [{"params": tables, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}], lr=0.01, betas=(0.8, 0.9)
    )

    stepped(ours, Muon(parameter_groups(ours, weight_decay=0.1), lr=0.01, momentum=0.9, betas=(0.8, 0.9)))
    stepped(theirs, muon, adamw)

    assert not same(ours, tiny("llama"))
    assert same(ours, theirs)


def test_a_schedule_moves_both_parts() -> None:
    model = tiny("llama")
    optimizer = Muon(parameter_groups(model, weight_decay=0.0), lr=0.1)
    LambdaLR(optimizer, lambda _: 0.0)

    stepped(model, optimizer, steps=1)

    assert same(model, tiny("llama"))


def test_a_state_that_was_saved_and_loaded_goes_on_as_if_nothing_had_been() -> None:
    model = tiny("llama")
    optimizer = Muon(parameter_groups(model, weight_decay=0.1), lr=0.01)
    stepped(model, optimizer)
    resumed = copy.deepcopy(model)
    fresh = Muon(parameter_groups(resumed, weight_decay=0.1), lr=0.5)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    stepped(model, optimizer)
    stepped(resumed, fresh)

    assert same(model, resumed)


def test_parameters_without_groups_take_adamws_step() -> None:
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())

    stepped(ours, Muon(ours.parameters(), lr=0.01, betas=(0.9, 0.999)))
    stepped(theirs, AdamW(theirs.parameters(), lr=0.01, weight_decay=0.0))

    assert same(ours, theirs)


def test_a_closure_is_called_once_and_its_loss_returned() -> None:
    calls: list[float] = []

    def closure() -> float:
        calls.append(2.5)
        return calls[-1]

    assert Muon(nn.Linear(3, 2).parameters(), lr=0.1).step(closure) == 2.5
    assert calls == [2.5]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "t5"])
def test_embeddings_and_the_head_are_not_hidden(family: str) -> None:
    model = tiny(family)
    names = {id(p): name for name, p in model.named_parameters()}

    hidden = [names[id(p)] for g in parameter_groups(model, weight_decay=0.0) if g["hidden"] for p in g["params"]]  # type: ignore[attr-defined]

    tables = ("embed", "shared", "wte", "wpe", "lm_head", "relative_attention_bias")
    assert hidden
    assert not [name for name in hidden if any(table in name for table in tables)]
