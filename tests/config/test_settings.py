"""The root keys of `train` check themselves."""

import pytest

from forgetmenot.config.settings import Settings

GOOD: dict[str, object] = {
    "seed": 0,
    "epochs": 1,
    "max_steps": None,
    "batch_size": 16,
    "micro_batch_tokens": "auto",
    "max_length": 512,
    "precision": "auto",
    "objective": None,
    "select": "last",
    "patience": None,
    "group_by_length": False,
    "plugins": (),
}


def test_good_settings_are_taken_as_they_are() -> None:
    assert Settings(**GOOD).batch_size == 16  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["epochs", "max_steps", "batch_size", "micro_batch_tokens", "patience"])
def test_a_count_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be at least 1, got 0$"):
        Settings(**{**GOOD, name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": -1}, "seed must be at least 0 and below 2**32, got -1"),
        ({"max_length": 7}, "max_length must be at least 8 tokens, got 7"),
        ({"epochs": None}, "epochs must be a whole number where max_steps is null, got null"),
    ],
)
def test_what_no_run_can_use_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        Settings(**{**GOOD, **values})  # type: ignore[arg-type]
    assert str(error.value) == message


def test_steps_alone_end_a_run() -> None:
    assert Settings(**{**GOOD, "epochs": None, "max_steps": 3}).max_steps == 3  # type: ignore[arg-type]
