"""Prompting as a method: nothing is trained, and its facts say what stands before prompts."""

from pathlib import Path

import pytest
from tiny_models import tiny

from forgetmenot.config.compose import compose
from forgetmenot.method.shots import Shots


@pytest.mark.parametrize(("name", "shots"), [("zero_shot", 0), ("one_shot", 1), ("few_shot", 4)])
def test_the_presets_show_none_one_and_a_few(name: str, shots: int) -> None:
    method = compose(f"method/{name}")
    assert isinstance(method, Shots)
    assert (method.shots, method.trains, method.virtual_tokens, method.folder) == (shots, False, 0, "prompt")


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_saved_and_loaded_it_is_the_base_with_nothing_to_train(family: str, tmp_path: Path) -> None:
    method, base = Shots(name="few_shot", lr=None, num_shots=2), tiny(family)
    adapted = method.apply(tiny(family))
    method.save(adapted, tmp_path / "prompt")
    loaded = method.load(tiny(family), tmp_path / "prompt")

    for model in (adapted, loaded):
        assert not [p for p in model.parameters() if p.requires_grad]
        assert all(weight.equal(base.state_dict()[name]) for name, weight in model.state_dict().items())
    assert method.distance(adapted, base) == 0


def test_a_learning_rate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^lr must be null for a method that trains nothing, got 0\.1$"):
        Shots(name="few_shot", lr=0.1, num_shots=2)


def test_fewer_shots_than_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^num_shots must be at least 0, got -1$"):
        Shots(name="few_shot", lr=None, num_shots=-1)
