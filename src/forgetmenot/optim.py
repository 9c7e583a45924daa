"""Optimizers and schedules: parameter groups without decay where none belongs, and warm-up as a share of the steps."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(parameters: Iterable[nn.Parameter], *, weight_decay: float) -> list[dict[str, object]]:
    """Returns two groups: matrices decay, norms and biases (vectors) do not. Frozen parameters are left out."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class ConstantSchedule(LambdaLR):
    """Warm-up, then the full learning rate."""

    def __init__(self, optimizer: Optimizer, *, total_steps: int, warmup: float) -> None:
        super().__init__(optimizer, lambda step: _warm(step, total_steps, warmup))


class LinearSchedule(LambdaLR):
    """Warm-up, then a straight line down to 0 at the last step."""

    def __init__(self, optimizer: Optimizer, *, total_steps: int, warmup: float) -> None:
        super().__init__(
            optimizer, lambda step: _warm(step, total_steps, warmup) * (1 - _progress(step, total_steps, warmup))
        )


class CosineSchedule(LambdaLR):
    """Warm-up, then half a cosine down to 0 at the last step."""

    def __init__(self, optimizer: Optimizer, *, total_steps: int, warmup: float) -> None:
        super().__init__(
            optimizer,
            lambda step: (
                _warm(step, total_steps, warmup) * (1 + math.cos(math.pi * _progress(step, total_steps, warmup))) / 2
            ),
        )


def _warmup_steps(total_steps: int, warmup: float) -> int:
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup must be a share of the steps, at least 0 and below 1, got {warmup}")
    return round(warmup * total_steps)


def _warm(step: int, total_steps: int, warmup: float) -> float:
    steps = _warmup_steps(total_steps, warmup)
    return min(1.0, (step + 1) / (steps + 1))


def _progress(step: int, total_steps: int, warmup: float) -> float:
    steps = _warmup_steps(total_steps, warmup)
    return min(1.0, max(0.0, (step - steps) / max(1, total_steps - steps)))
