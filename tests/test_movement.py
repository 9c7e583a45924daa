"""Whether training has moved off its starting loss: noise alone has not, a fall of any shape has."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from tiny_models import rows_for, tiny
from tiny_training import fit, module_of, steps_of

from forgetmenot.method.full import Full
from forgetmenot.movement import Movement, has_moved

STEPS = 40


def noise(*, seed: int, steps: int = STEPS) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, steps)


def test_noise_around_one_loss_is_taken_for_learning_about_as_rarely_as_two_errors_say() -> None:
    taken = np.mean([has_moved((2 + noise(seed=seed, steps=400)).tolist()) for seed in range(500)])

    assert taken < 0.05  # 0.023 by the normal distribution, and what the median adds


@pytest.mark.parametrize(
    "trend",
    [np.linspace(2, 1, STEPS), 0.2 + 3 * np.exp(-np.arange(STEPS)), np.where(np.arange(STEPS) < 15, 2.0, 1.0)],
    ids=["straight", "steep and over soon", "a step down"],
)
def test_a_fall_of_any_shape_is_movement(trend: np.ndarray) -> None:
    assert all(has_moved((trend + noise(seed=seed) / 3).tolist()) for seed in range(20))


def test_a_loss_that_rises_or_stands_still_to_rounding_has_not_moved() -> None:
    assert not has_moved(np.linspace(1, 2, STEPS).tolist())
    assert not has_moved((2 - 1e-7 * np.arange(STEPS)).tolist())


def test_of_a_few_steps_nothing_is_said() -> None:
    assert has_moved([2.0] * 19) and not has_moved([2.0] * 20)


@pytest.mark.parametrize("lr", [1e-12, 0.05])
def test_a_run_tells_at_its_end_only_where_it_has_not_learned(lr: float) -> None:
    examples = [rows_for(tiny("llama"), [(4, 2)], seed=seed % 2) for seed in range(20)]
    module = module_of(Full(name="full", lr=1e-3).apply(tiny("llama")), "llama", total_steps=20)
    module.optimization = replace(module.optimization, lr=lr)

    said = io.StringIO()
    fit(module, steps_of("llama", examples, cut=[[0]]), Movement(Console(file=said, width=80)))

    assert ("has not moved" in said.getvalue()) == (lr < 1e-3)
    assert ("optimizer.lr than 1e-12" in said.getvalue()) == (lr < 1e-3)
    assert said.getvalue().count("\n") == (lr < 1e-3)
