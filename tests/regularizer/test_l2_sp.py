"""L2-SP beside the same sum written plainly."""

import pytest
import torch
from tiny_models import tiny
from torch import Tensor, nn
from transformers import PreTrainedModel

from forgetmenot.method.base import Method
from forgetmenot.method.full import Full
from forgetmenot.method.lora import Lora
from forgetmenot.method.prompt import Prompt
from forgetmenot.regularizer.l2_sp import L2SP

METHODS = [
    Full(name="full", lr=1e-3),
    Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",)),
    Prompt(name="prompt", lr=1e-2, num_virtual_tokens=4),
]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def start(model: nn.Module) -> dict[str, Tensor]:
    """Returns copies of what is trained."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def moved(model: PreTrainedModel) -> PreTrainedModel:
    """Moves every trained weight by random amounts."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    return model


@every_method
def test_the_penalty_is_zero_at_the_start(method: Method) -> None:
    model = method.apply(tiny("llama"))

    assert L2SP(name="l2_sp", weight=0.5).prepare(model)(model).item() == 0.0


@every_method
@pytest.mark.parametrize("weight", [0.3, 2.0])
def test_the_penalty_is_half_the_weight_times_the_squared_distance(method: Method, weight: float) -> None:
    model = method.apply(tiny("llama"))
    before, penalty = start(model), L2SP(name="l2_sp", weight=weight).prepare(model)

    after = start(moved(model))

    plain = weight / 2 * sum(((after[name] - before[name]).double() ** 2).sum().item() for name in before)
    assert penalty(model).item() == pytest.approx(plain, rel=1e-6)


@every_method
def test_its_gradient_is_the_weight_times_the_distance(method: Method) -> None:
    model = method.apply(tiny("llama"))
    before, penalty = start(model), L2SP(name="l2_sp", weight=0.7).prepare(model)

    penalty(moved(model)).backward()

    for name, parameter in model.named_parameters():
        expected = 0.7 * (parameter - before[name]) if parameter.requires_grad else None
        assert (parameter.grad is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(parameter.grad, expected.detach())


def test_tied_weights_are_counted_once() -> None:
    model = Full(name="full", lr=1e-3).apply(tiny("gpt2"))
    penalty = L2SP(name="l2_sp", weight=2.0).prepare(model)

    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1.0)

    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert penalty(model).item() == pytest.approx(model.get_input_embeddings().weight.numel(), rel=1e-5)


def test_its_state_is_buffers_alone_and_holds_no_parameter_of_the_model() -> None:
    model = METHODS[1].apply(tiny("llama"))
    penalty = L2SP(name="l2_sp", weight=1.0).prepare(model)

    assert list(penalty.parameters()) == []
    assert sum(b.numel() for b in penalty.buffers()) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_weight_of_zero_penalizes_nothing_however_far_the_model_moved() -> None:
    model = METHODS[0].apply(tiny("llama"))
    penalty = L2SP(name="l2_sp", weight=0.0).prepare(model)

    assert penalty(moved(model)).item() == 0.0


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^weight must be at least 0, got -0\.1$"):
        L2SP(name="l2_sp", weight=-0.1)


def test_a_weight_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^weight must be at least 0, got nan$"):
        L2SP(name="l2_sp", weight=float("nan"))
