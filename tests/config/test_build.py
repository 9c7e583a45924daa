"""build(): the one way from config to objects."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import pytest
from omegaconf import OmegaConf
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from forgetmenot.config.build import build, build_partial, plain
from forgetmenot.config.errors import ConfigError
from forgetmenot.method.base import Method
from forgetmenot.method.lora import Lora

LORA = {
    "_target_": "forgetmenot.method.lora.Lora",
    "name": "lora",
    "lr": 1,
    "rank": 8,
    "alpha": 16,
    "dropout": 0.0,
    "target_modules": ["all-linear"],
}


@dataclass(frozen=True, kw_only=True)
class Fruit:
    """One field of every kind that a config may have."""

    count: int
    weight: float
    ripe: bool
    name: str | None
    size: int | Literal["auto"]
    colours: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"count must be at least 0, got {self.count}")


FRUIT: dict[str, object] = {"count": 1, "weight": 2, "ripe": True, "name": None, "size": "auto"}


def _build(**values: object) -> Fruit:
    return build(OmegaConf.create({**FRUIT, **values}), Fruit, key="fruit")


def test_values_become_a_dataclass_with_the_fields_types() -> None:
    fruit = _build(colours=["red", "green"])
    assert fruit == Fruit(count=1, weight=2.0, ripe=True, name=None, size="auto", colours=("red", "green"))
    assert isinstance(fruit.weight, float), "a whole number is a number"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": "abc"}, "fruit.count must be a whole number, got abc"),
        ({"count": ""}, "fruit.count must be a whole number, got nothing"),
        ({"count": 1.5}, "fruit.count must be a whole number, got 1.5"),
        ({"count": True}, "fruit.count must be a whole number, got True"),
        ({"count": None}, "fruit.count must be a whole number, got null"),
        ({"count": [1]}, "fruit.count must be a whole number, got [1]"),
        ({"count": -1}, "fruit.count must be at least 0, got -1"),
        ({"weight": "heavy"}, "fruit.weight must be a number, got heavy"),
        ({"weight": False}, "fruit.weight must be a number, got False"),
        ({"ripe": 1}, "fruit.ripe must be true or false, got 1"),
        ({"name": 3}, "fruit.name must be text or null, got 3"),
        ({"size": "large"}, "fruit.size must be a whole number or auto, got large"),
        ({"colours": "red"}, "fruit.colours must be a list, got red"),
        ({"colours": ["red", 3]}, "fruit.colours[1] must be text, got 3"),
        ({"count": "???"}, "fruit.count must be given, got nothing; add fruit.count=VALUE"),
    ],
)
def test_a_wrong_value_is_told_with_key_rule_and_value(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        _build(**values)
    assert str(error.value) == message


def test_an_unknown_key_lists_the_known_ones_and_the_closest() -> None:
    with pytest.raises(ConfigError) as error:
        _build(cuont=1)
    assert str(error.value) == (
        "fruit.cuont must be a key of fruit (colours, count, name, ripe, size, weight), got cuont; "
        "did you mean fruit.count?"
    )


def test_a_key_that_lacks_is_told_with_the_way_to_give_it() -> None:
    node = OmegaConf.create({key: value for key, value in FRUIT.items() if key != "count"})
    with pytest.raises(ConfigError, match=r"^fruit\.count must be given, got nothing; add fruit\.count=VALUE$"):
        build(node, Fruit, key="fruit")


def test_a_root_key_stands_without_a_dot() -> None:
    with pytest.raises(ConfigError, match=r"^count must be at least 0, got -1$"):
        build(OmegaConf.create({**FRUIT, "count": -1}), Fruit, key="")


def test_interpolations_are_resolved() -> None:
    assert _build(count=3, size="${count}").size == 3


def test_a_target_chooses_the_subclass() -> None:
    method = build(OmegaConf.create(LORA), Method, key="method")
    assert isinstance(method, Lora) and method.rank == 8 and isinstance(method.alpha, float)


TARGETS = [
    "os.system", "builtins.eval", "torch.load", "torch.nn.Linear", "forgetmenot.method.base.Method",
    "forgetmenot.method.full", "forgetmenot.config.app.run_app", "forgetmenot.nowhere.Lora", "Lora", "", "..", ".x",
    "forgetmenot_evil.Lora", "torchx.Lora", "lightning.pytorch.Trainer",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_is_no_subclass_of_ours_is_refused_in_one_sentence(target: str) -> None:
    with pytest.raises(ConfigError, match=r"^method\._target_ must be [^\n]+$"):
        build(OmegaConf.create({**LORA, "_target_": target}), Method, key="method")


def test_a_module_outside_is_not_even_imported() -> None:
    import sys

    sys.modules.pop("this", None)
    with pytest.raises(ConfigError):
        build(OmegaConf.create({**LORA, "_target_": "this.Zen"}), Method, key="method")
    assert "this" not in sys.modules


@dataclass(frozen=True, kw_only=True)
class OwnLora(Method):
    """A user's method."""

    def apply(self, model: object) -> object:  # type: ignore[override]
        return model

    def change(self, model: object, base: object) -> float:  # type: ignore[override]
        return 0.0

    def save(self, model: object, folder: object) -> None:  # type: ignore[override]
        """Writes nothing."""

    def load(self, model: object, folder: object) -> object:  # type: ignore[override]
        return model


def test_a_users_own_class_is_taken_where_its_module_is_listed() -> None:
    node = OmegaConf.create({"_target_": f"{__name__}.OwnLora", "name": "own", "lr": 0.1})
    assert isinstance(build(node, Method, key="method", plugins=(__name__,)), OwnLora)
    with pytest.raises(ConfigError, match="list your own module under plugins"):
        build(node, Method, key="method")


class _Abstract(ABC):
    @abstractmethod
    def answer(self) -> int: ...


def test_an_abstract_base_without_a_target_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"kind\._target_ must be"):
        build(OmegaConf.create({}), _Abstract, key="kind")  # type: ignore[type-abstract]


def test_a_library_class_keeps_its_settings_and_waits_for_the_rest() -> None:
    node = OmegaConf.create({"_target_": "torch.optim.SGD", "momentum": 0.5, "clip_norm": 1.0})
    make = build_partial(node, Optimizer, key="optimizer", ours=("clip_norm",))
    assert make.keywords == {"momentum": 0.5}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("target", "base", "values", "message"),
    [
        ("torch.optim.SGD", Optimizer, {"momentun": 1}, r"optimizer\.momentun must be a key.*optimizer\.momentum\?"),
        ("torch.optim.lr_scheduler.StepLR", Optimizer, {}, r"must be a subclass of torch\.optim\.optimizer\.Optimizer"),
        ("torch.optim.SGD", LRScheduler, {}, "must be a subclass of"),
        ("os.system", Optimizer, {}, "must be a class of"),
    ],
)
def test_a_library_class_is_checked_by_group_and_signature(
    target: str, base: type, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_partial(OmegaConf.create({"_target_": target, **values}), base, key="optimizer")


def test_plain_tells_what_has_to_be_given_by_its_full_key() -> None:
    whole = OmegaConf.create({"data": {"path": "???", "prompt": "a"}})
    for node in (whole.data, {"path": "???"}):
        with pytest.raises(ConfigError, match=r"^data\.path must be given, got nothing; add data\.path=VALUE$"):
            plain(node, key="data")
