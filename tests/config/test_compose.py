"""compose(): from Python, the same object that the command line builds."""

import pytest
from hydra.core.global_hydra import GlobalHydra

from forgetmenot import compose
from forgetmenot.config.errors import ConfigError
from forgetmenot.data.task import Task
from forgetmenot.method.lora import Lora
from forgetmenot.model.load import Model
from forgetmenot.regularizer.l2_sp import L2SP


def test_a_method_is_composed_with_its_defaults_and_a_changed_value() -> None:
    lora = compose("method/lora", rank=2)
    assert lora == Lora(name="lora", lr=5e-4, rank=2, alpha=16.0, dropout=0.0, target_modules=("all-linear",))


def test_every_group_is_composed_to_its_own_kind() -> None:
    assert isinstance(compose("regularizer/l2_sp", weight=2), L2SP)
    assert isinstance(compose("data/sentiment"), Task)
    assert isinstance(compose("model/causal", path="gpt2"), Model)


def test_a_method_that_brings_a_regularizer_is_composed_too() -> None:
    assert compose("method/regularized").name == "regularized"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("choice", "values", "message"),
    [
        ("method/lora", {"rnak": 2}, r"method\.rnak must be a key of method .*did you mean method\.rank\?"),
        ("method/lora", {"rank": "abc"}, r"method\.rank must be a whole number, got abc"),
        ("method/lora", {"_target_": "os.system"}, r"method\._target_ must be a class of"),
        ("data/local", {}, r"data\.\w+ must be given, got nothing"),
        ("trainer/auto", {}, r"choice must be one of method, regularizer, data, model"),
        ("method/loar", {}, r"loar.*did you mean"),
    ],
)
def test_a_mistake_is_told_as_on_the_command_line(choice: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(choice, **values)


def test_composing_leaves_no_trace_in_hydra() -> None:
    compose("method/full")
    assert not GlobalHydra.instance().is_initialized()
