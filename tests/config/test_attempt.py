"""What a sweep makes of how a member ended."""

import pytest
from omegaconf import DictConfig

from forgetmenot.config.attempt import check_direction
from forgetmenot.config.errors import ConfigError
from forgetmenot.result import RunResult


def ended(direction: str) -> RunResult:
    result = RunResult(status="complete", name="member")
    result.objective = {"name": "forgetting.mean", "value": 0.1, "direction": direction}  # type: ignore[typeddict-item]
    return result


@pytest.mark.parametrize(("asked", "direction"), [("maximize", "min"), ("Direction.minimize", "max")])
def test_a_search_for_the_worst_is_refused(asked: str, direction: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^hydra\.sweeper\.direction must be .* for objective=forgetting\.mean, got "
    ):
        check_direction(DictConfig({"direction": asked}), ended(direction))


@pytest.mark.parametrize("sweeper", [{}, {"direction": "minimize"}, {"direction": ["minimize", "maximize"]}])
def test_what_searches_for_the_best_or_not_at_all_is_taken(sweeper: dict[str, object]) -> None:
    check_direction(DictConfig(sweeper), ended("min"))
    check_direction(DictConfig(sweeper), RunResult(status="failed", name="member"))
