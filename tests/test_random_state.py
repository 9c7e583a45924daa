"""Random numbers go on where they stood, through a file that holds no code."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from forgetmenot.random_state import go_on_from, random_numbers


def drawn() -> tuple[object, ...]:
    return random.gauss(), random.random(), np.random.normal(), np.random.randint(9), torch.rand(2).tolist()


def test_after_a_state_is_read_the_same_numbers_are_drawn(tmp_path: Path) -> None:
    random.gauss(), np.random.normal()  # half of a pair is kept back
    torch.save(random_numbers(), tmp_path / "state")
    expected = drawn()
    drawn()
    go_on_from(torch.load(tmp_path / "state", weights_only=True))
    assert drawn() == expected


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(ValueError, match="random numbers must be a state"):
        go_on_from({"torch": 1, "numpy": [], "python": []})
