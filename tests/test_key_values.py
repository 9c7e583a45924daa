"""A cache with room gives what transformers' own gives, and copies nothing while it has room."""

import copy

import pytest
import torch
from tiny_models import CONFIGS
from transformers import DynamicCache

from forgetmenot.key_values import RoomyLayer, roomy_cache


def states(tokens: int, *, rows: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(rows, 1, tokens, 8, generator=draw) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("inference", [False, True])
def test_keys_and_values_are_those_of_transformers_cache_whatever_is_done_to_rows(inference: bool) -> None:
    ours, theirs = roomy_cache(CONFIGS["llama"]), DynamicCache(config=CONFIGS["llama"])
    rows = 3
    with torch.inference_mode(inference):
        for step in range(150):
            new = states(9 if step == 0 else 1, rows=rows, seed=step)
            for layer in range(2):
                for mine, other in zip(ours.update(*new, layer), theirs.update(*new, layer), strict=True):
                    assert torch.equal(mine, other)
            assert ours.get_seq_length() == theirs.get_seq_length()
            if step == 20:
                ours, theirs = copy.deepcopy(ours), copy.deepcopy(theirs)
            if step == 40:
                for cache in (ours, theirs):
                    cache.batch_select_indices(torch.tensor([2, 0]))
                rows = 2
            if step == 60:
                for cache in (ours, theirs):
                    cache.batch_repeat_interleave(2)
                rows = 4


def test_a_step_writes_into_the_room_that_there_is() -> None:
    layer = RoomyLayer()
    layer.update(*states(5))
    places = set()
    for step in range(60):
        keys, _ = layer.update(*states(1, seed=step))
        places.add(keys.data_ptr())
    assert len(places) == 1


def test_layers_that_see_a_window_stay_transformers_own() -> None:
    kinds = {type(layer) for layer in roomy_cache(CONFIGS["gemma3"]).layers}
    assert any(kind is not RoomyLayer for kind in kinds)
