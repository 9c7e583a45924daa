"""L2-SP beside the same sum written plainly; an adapter's with the matrices formed."""

import pytest
import torch
from low_rank_models import low_rank, merged
from peft.tuners.lora import LoraLayer
from tiny_models import tiny
from tiny_penalties import gradients, moved, supplies_of
from torch import Tensor, nn

from forgetmenot.method.base import Method
from forgetmenot.method.full import Full
from forgetmenot.method.lora import Lora
from forgetmenot.method.prompt import Prompt
from forgetmenot.regularizer.l2_sp import L2SP, StartingPointPenalty

FULL = Full(name="full", lr=1e-3)
LORA = Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",))
PROMPT = Prompt(name="prompt", lr=1e-2, num_virtual_tokens=4, start=None)
every_method = pytest.mark.parametrize("method", [FULL, LORA, PROMPT], ids=lambda method: method.name)
every_plain_one = pytest.mark.parametrize("method", [FULL, PROMPT], ids=lambda method: method.name)
ADAPTERS = [("llama", "lora"), ("llama", "rslora"), ("llama", "pissa"), ("gpt2", "pissa"), ("t5", "lora")]
every_adapter = pytest.mark.parametrize(("family", "kind"), ADAPTERS)


def penalty_of(model: nn.Module, *, weight: float = 0.7) -> StartingPointPenalty:
    return L2SP(name="l2_sp", weight=weight).prepare(model, supplies_of("llama"))


def start(model: nn.Module) -> dict[str, Tensor]:
    """Returns copies of what is trained."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def changes(model: nn.Module) -> list[Tensor]:
    """Returns what each adapter adds to its layer, as peft forms it."""
    return [layer.get_delta_weight("default").detach() for layer in model.modules() if isinstance(layer, LoraLayer)]


@every_method
def test_the_penalty_is_zero_at_the_start(method: Method) -> None:
    model = method.apply(tiny("llama"))

    assert penalty_of(model)(model).item() == 0.0


@every_plain_one
@pytest.mark.parametrize("weight", [0.3, 2.0])
def test_the_penalty_is_half_the_weight_times_the_squared_distance(method: Method, weight: float) -> None:
    model = method.apply(tiny("llama"))
    before, penalty = start(model), penalty_of(model, weight=weight)

    after = start(moved(model))

    plain = weight / 2 * sum(((after[name] - before[name]).double() ** 2).sum().item() for name in before)
    assert penalty(model).item() == pytest.approx(plain, rel=1e-6)


@every_plain_one
def test_its_gradient_is_the_weight_times_the_distance(method: Method) -> None:
    model = method.apply(tiny("llama"))
    before, penalty = start(model), penalty_of(model)

    penalty(moved(model)).backward()

    assert gradients(model).keys() == before.keys()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, 0.7 * (model.get_parameter(name) - before[name]).detach())


@every_adapter
def test_an_adapter_is_held_by_the_change_of_the_weights_as_if_it_were_formed(family: str, kind: str) -> None:
    model = low_rank(family, kind)
    before = {name: weight.detach() for name, weight in merged(model).items()}
    penalty = penalty_of(model)
    assert penalty(model).item() == 0.0

    moved(model, by=0.1)
    penalty(model).backward()
    value, ours = penalty(model).item(), gradients(model)
    model.zero_grad()
    plain = 0.7 / 2 * sum((weight - before[name]).pow(2).sum() for name, weight in merged(model).items())
    plain.backward()

    assert value == pytest.approx(plain.item(), rel=1e-5)
    torch.testing.assert_close(ours, gradients(model), rtol=1e-4, atol=1e-5)


def test_factors_that_move_while_their_product_stays_are_free() -> None:
    model = moved(LORA.apply(tiny("llama")))
    penalty = penalty_of(model)
    whole = 0.7 / 2 * sum(layer.pow(2).sum().item() for layer in changes(model))

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.mul_(4.0 if "lora_A" in name else 0.25)

    assert penalty(model).item() == pytest.approx(0.0, abs=1e-6 * whole)


def test_what_is_trained_beside_an_adapter_is_held_by_its_own_distance() -> None:
    model = LORA.apply(tiny("llama"))
    norm = model.base_model.model.model.norm.weight.requires_grad_(True)
    penalty = penalty_of(model)

    with torch.no_grad():
        norm.add_(2.0)

    assert penalty(model).item() == pytest.approx(0.7 / 2 * 4 * norm.numel())


def test_tied_weights_are_counted_once() -> None:
    model = FULL.apply(tiny("gpt2"))
    penalty = penalty_of(model, weight=2.0)

    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1.0)

    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert penalty(model).item() == pytest.approx(model.get_input_embeddings().weight.numel(), rel=1e-5)


def test_its_state_is_buffers_alone_which_no_checkpoint_holds() -> None:
    model = FULL.apply(tiny("llama"))
    penalty = penalty_of(model)

    assert list(penalty.parameters()) == []
    assert sum(b.numel() for b in penalty.buffers()) == sum(p.numel() for p in model.parameters())
    assert penalty.state_dict() == {}


@pytest.mark.parametrize(("kind", "held"), [("lora", False), ("pissa", True)])
def test_an_adapter_that_starts_from_no_change_needs_no_state(kind: str, held: bool) -> None:
    assert bool(list(penalty_of(low_rank("llama", kind)).buffers())) is held


def test_a_weight_of_zero_penalizes_nothing_however_far_the_model_moved() -> None:
    model = FULL.apply(tiny("llama"))
    penalty = penalty_of(model, weight=0.0)

    assert penalty(moved(model)).item() == 0.0


def test_adapted_experts_are_refused_with_what_to_use_instead() -> None:
    with pytest.raises(
        ValueError, match=r"^regularizer\.l2_sp must hold .* got an adapter of experts at .*experts.*; regularizer=kl"
    ):
        L2SP(name="l2_sp", weight=0.1).check(LORA.apply(tiny("mixtral")), own=(), context=None)


@pytest.mark.parametrize("weight", [-0.1, float("nan")])
def test_a_weight_that_is_negative_or_no_number_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"^weight must be at least 0, got {weight}$"):
        L2SP(name="l2_sp", weight=weight)
