"""Alike blocks are found by what they are made of, and some of them stay."""

import pytest
from tiny_models import of_depth
from torch import nn

from forgetmenot.model.depth import KEPT, shorten
from forgetmenot.model.layers import stacks


def test_of_alike_blocks_the_first_two_one_and_the_last_two_stay() -> None:
    model = of_depth("llama", 9)
    blocks = list(stacks(model)[0])
    (stretch,) = shorten(model)
    assert [unit[0] for unit in stretch.units] == [*blocks[:3], *blocks[7:]] == list(stacks(model)[0])
    assert stretch.count == 9


def test_few_blocks_all_stay() -> None:
    model = of_depth("llama", KEPT)
    assert shorten(model) == []
    assert len(stacks(model)[0]) == KEPT


def test_blocks_that_alternate_come_in_pairs() -> None:
    (stretch,) = shorten(of_depth("gemma2", 13))
    assert [len(unit) for unit in stretch.units] == [2] * KEPT
    assert stretch.count == 6


def test_blocks_that_learn_are_not_like_frozen_ones() -> None:
    model = of_depth("llama", 14)
    stacks(model)[0][:6].requires_grad_(False)
    assert [stretch.count for stretch in shorten(model)] == [6, 8]


def test_a_block_of_another_shape_is_no_part_of_a_stretch() -> None:
    model = of_depth("llama", 9)
    stacks(model)[0][4].mlp = nn.Identity()
    assert shorten(model) == []


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_encoder_and_a_decoder_have_a_stretch_each(family: str) -> None:
    assert len(shorten(of_depth(family, 8))) == 2
