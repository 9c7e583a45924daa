"""Which weights decay, and schedules beside those of transformers."""

from collections.abc import Callable

import pytest
import torch
from tiny_models import tiny
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from forgetmenot.optim import ConstantSchedule, CosineSchedule, LinearSchedule, parameter_groups

Ours = type[ConstantSchedule] | type[LinearSchedule] | type[CosineSchedule]
SHAPES: list[tuple[Ours, Callable[[Optimizer, int, int], LRScheduler]]] = [
    (ConstantSchedule, lambda optimizer, warmup, _: get_constant_schedule_with_warmup(optimizer, warmup)),
    (LinearSchedule, get_linear_schedule_with_warmup),
    (CosineSchedule, get_cosine_schedule_with_warmup),
]
every_shape = pytest.mark.parametrize(("ours", "theirs"), SHAPES, ids=["constant", "linear", "cosine"])
WARMUPS = [(20, 0.0, 0), (20, 0.25, 5), (30, 0.1, 3), (7, 0.5, 4), (3, 0.1, 0), (1, 0.0, 0), (1, 0.9, 1)]
"""Steps in all, the share that warms up, and how many steps that is."""


def optimizer() -> SGD:
    return SGD([torch.nn.Parameter(torch.zeros(2))], lr=2.0)


def rates(make: Callable[[Optimizer], LRScheduler], steps: int) -> list[float]:
    """Returns the learning rate that each step is taken with."""
    stepped = optimizer()
    schedule = make(stepped)
    taken = []
    for _ in range(steps):
        taken.append(schedule.get_last_lr()[0])
        stepped.step()
        schedule.step()
    return taken


@every_shape
@pytest.mark.parametrize(("total", "share", "warmup"), WARMUPS)
def test_after_warm_up_a_schedule_equals_that_of_transformers(
    ours: Ours, theirs: Callable[[Optimizer, int, int], LRScheduler], total: int, share: float, warmup: int
) -> None:
    own = rates(lambda o: ours(o, total_steps=total, warmup=share), total)
    reference = rates(lambda o: theirs(o, warmup, total), total)

    assert own[warmup:] == pytest.approx(reference[warmup:], rel=1e-12)


@every_shape
@pytest.mark.parametrize(("total", "share", "warmup"), WARMUPS)
def test_warm_up_rises_in_equal_parts_from_one_part_to_the_full_rate(
    ours: Ours, theirs: Callable[[Optimizer, int, int], LRScheduler], total: int, share: float, warmup: int
) -> None:
    own = rates(lambda o: ours(o, total_steps=total, warmup=share), total)

    reference = rates(lambda o: get_constant_schedule_with_warmup(o, warmup + 1), warmup + 1)

    assert own[:warmup] == pytest.approx([2.0 * part / (warmup + 1) for part in range(1, warmup + 1)])
    assert own[:warmup] == pytest.approx(reference[1:])  # theirs starts at 0


@every_shape
@pytest.mark.parametrize("total", [1, 2, 3, 10, 1000])
def test_no_step_is_taken_at_a_rate_of_zero(
    ours: Ours, theirs: Callable[[Optimizer, int, int], LRScheduler], total: int
) -> None:
    assert min(rates(lambda o: ours(o, total_steps=total, warmup=0.1), total)) > 0


@pytest.mark.parametrize("ours", [LinearSchedule, CosineSchedule])
def test_a_falling_schedule_has_reached_zero_when_the_last_step_is_done(ours: Ours) -> None:
    own = rates(lambda o: ours(o, total_steps=12, warmup=0.25), 14)

    assert own[3] == pytest.approx(2.0)
    assert own[3:12] == sorted(own[3:12], reverse=True)
    assert own[12:] == pytest.approx([0.0, 0.0], abs=1e-12)


@every_shape
@pytest.mark.parametrize("share", [-0.1, 1.0, 3.0])
def test_a_warm_up_that_is_no_share_of_the_steps_is_refused(
    ours: Ours, theirs: Callable[[Optimizer, int, int], LRScheduler], share: float
) -> None:
    with pytest.raises(ValueError, match=rf"^warmup must be a share of the steps, .*, got {share}$"):
        ours(optimizer(), total_steps=10, warmup=share)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "t5"])
def test_norms_and_biases_do_not_decay_and_all_else_does(family: str) -> None:
    model = tiny(family)
    names = {id(p): name for name, p in model.named_parameters()}

    groups = parameter_groups(model, weight_decay=0.1)

    still = {names[id(p)] for group in groups if group["weight_decay"] == 0.0 for p in group["params"]}
    norms_and_biases = {n for n in names.values() if n.endswith(".bias") or "norm" in n or ".ln_" in n}
    assert still == norms_and_biases
    assert all(group["weight_decay"] in (0.0, 0.1) for group in groups)


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_every_trained_weight_is_in_one_group_and_no_frozen_one_is(family: str) -> None:
    model = tiny(family)
    frozen = next(model.parameters()).requires_grad_(False)

    grouped = [p for group in parameter_groups(model, weight_decay=0.1) for p in group["params"]]

    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters()} - {id(frozen)}


def test_a_group_without_weights_is_left_out() -> None:
    groups = parameter_groups(torch.nn.Linear(2, 3, bias=False), weight_decay=0.1)

    assert [group["weight_decay"] for group in groups] == [0.1]


def test_a_step_without_gradient_shrinks_matrices_by_lr_times_decay_and_leaves_vectors() -> None:
    layer = torch.nn.Linear(3, 2)
    for weight in layer.parameters():
        torch.nn.init.ones_(weight)
        weight.grad = torch.zeros_like(weight)
    adamw = AdamW(parameter_groups(layer, weight_decay=0.5), lr=0.1)

    adamw.step()

    torch.testing.assert_close(layer.weight.detach(), torch.full((2, 3), 1 - 0.1 * 0.5))
    torch.testing.assert_close(layer.bias.detach(), torch.ones(2))
