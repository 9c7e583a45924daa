"""What a sweep judges by, and whether more of it is better."""

import pytest
from tiny_tasks import make_task

from forgetmenot.cli.objective import direction_of


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val.accuracy", "max"),
        ("val.loss", "min"),
        ("after.bits_per_byte", "min"),
        ("val.mood.loss", "min"),
        ("gain", "max"),
        ("forgetting.mean", "min"),
        ("val.mean", "max"),
    ],
)
def test_an_objective_gets_better_in_its_own_direction(name: str, direction: str) -> None:
    assert direction_of(name, [make_task(metric="accuracy"), make_task(metric="loss")]) == direction


def test_a_mean_of_losses_gets_better_as_it_falls() -> None:
    assert direction_of("val.mean", [make_task(metric="loss"), make_task(metric="loss")]) == "min"
