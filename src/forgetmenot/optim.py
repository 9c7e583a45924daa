"""Optimizers and schedules: parameter groups without decay where none belongs, and warm-up as a share of the steps."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from forgetmenot.model.layers import table_weights


@dataclass(frozen=True, kw_only=True)
class Stepping:
    """The keys of the optimizer group that are ours and not its class's."""

    lr: float | None
    weight_decay: float
    clip_norm: float | None

    def __post_init__(self) -> None:
        for name in ("lr", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay}")


class MakeOptimizer(Protocol):
    """An optimizer class with its settings, waiting for parameters."""

    def __call__(self, params: list[dict[str, object]], *, lr: float) -> Optimizer: ...


class MakeSchedule(Protocol):
    """A schedule class with its settings, waiting for an optimizer."""

    def __call__(self, optimizer: Optimizer, *, total_steps: int) -> LRScheduler: ...


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How weights are stepped: `lr` as used, decay for matrices alone, gradients clipped to `clip_norm` (None: not)."""

    make_optimizer: MakeOptimizer
    make_schedule: MakeSchedule
    lr: float
    weight_decay: float
    clip_norm: float | None
    total_steps: int


def try_optimizer(make_optimizer: partial[Optimizer], make_schedule: partial[LRScheduler]) -> None:
    """Raises ValueError where the optimizer or the schedule does not take its settings."""
    with torch.random.fork_rng(devices=[]):
        vector, matrix = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, 2))
        vector.grad, matrix.grad = torch.ones(2), torch.ones(2, 2)
        with _refusing("optimizer", make_optimizer.keywords):
            optimizer = make_optimizer([{"params": [vector]}, {"params": [matrix], "hidden": True}], lr=1.0)
        with _refusing("schedule", make_schedule.keywords):
            make_schedule(optimizer, total_steps=10)
        with _refusing("optimizer", make_optimizer.keywords):
            optimizer.step()


@contextmanager
def _refusing(group: str, values: Mapping[str, object]) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, IndexError, RuntimeError, AssertionError) as error:
        shown = ", ".join(f"{group}.{name}={value}" for name, value in values.items()) or "none"
        raise ValueError(f"{group} must be settings that its class takes, got {shown} ({error})") from error


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, object]]:
    """Returns the trained parameters in groups: hidden matrices, tables (embeddings, the head), norms and biases.

    All but norms and biases decay. Hidden matrices are marked `hidden`: some optimizers step them their own way.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tables = {id(weight) for weight in table_weights(model)}
    hidden = [p for p in trained if p.ndim == 2 and id(p) not in tables]
    vectors = [p for p in trained if p.ndim < 2]
    apart = {id(p) for p in (*hidden, *vectors)}
    groups = [
        {"params": hidden, "weight_decay": weight_decay, "hidden": True},
        {"params": [p for p in trained if id(p) not in apart], "weight_decay": weight_decay, "hidden": False},
        {"params": vectors, "weight_decay": 0.0, "hidden": False},
    ]
    return [group for group in groups if group["params"]]


class ConstantSchedule(LambdaLR):
    """Warm-up, then the full learning rate."""

    def __init__(self, optimizer: Optimizer, *, total_steps: int, warmup: float) -> None:
        super().__init__(optimizer, lambda step: _warm(step, total_steps, warmup))


class LinearSchedule(LambdaLR):
    """Warm-up, then a straight line that reaches 0 after the last step."""

    def __init__(self, optimizer: Optimizer, *, total_steps: int, warmup: float) -> None:
        super().__init__(
            optimizer, lambda step: _warm(step, total_steps, warmup) * (1 - _progress(step, total_steps, warmup))
        )


class CosineSchedule(LambdaLR):
    """Warm-up, then half a cosine that reaches 0 after the last step."""

    def __init__(self, optimizer: Optimizer, *, total_steps: int, warmup: float) -> None:
        super().__init__(
            optimizer,
            lambda step: (
                _warm(step, total_steps, warmup) * (1 + math.cos(math.pi * _progress(step, total_steps, warmup))) / 2
            ),
        )


def _warmup_steps(total_steps: int, warmup: float) -> int:
    if not isinstance(warmup, float | int) or not 0 <= warmup < 1:
        raise ValueError(f"warmup must be a share of the steps, at least 0 and below 1, got {warmup}")
    return round(warmup * total_steps)


def _warm(step: int, total_steps: int, warmup: float) -> float:
    steps = _warmup_steps(total_steps, warmup)
    return min(1.0, (step + 1) / (steps + 1))


def _progress(step: int, total_steps: int, warmup: float) -> float:
    steps = _warmup_steps(total_steps, warmup)
    return min(1.0, max(0.0, (step - steps) / max(1, total_steps - steps)))
