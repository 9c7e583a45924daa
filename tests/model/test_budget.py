"""The tokens of a forward pass, worked out by hand for machines of given memory."""

import os

import pytest
import torch
from tiny_models import CONFIGS
from transformers import LlamaConfig

from forgetmenot.model.budget import micro_batch_tokens

# 2 blocks of 1000 values at 40 bytes and 10 000 logits at 12 bytes: 200 000 bytes a token.
LARGE = LlamaConfig(hidden_size=1000, num_hidden_layers=2, vocab_size=10_000, num_attention_heads=2)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A CPU with 1 GB of memory, which a test may change."""
    there = {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 1_000_000}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "sysconf", lambda name: there[name])
    return there


def test_a_quarter_of_the_memory_is_shared_out_among_tokens(memory: dict[str, int]) -> None:
    assert micro_batch_tokens(LARGE, max_length=64) == 1_000_000_000 // 4 // 200_000


def test_twice_the_memory_holds_twice_the_tokens(memory: dict[str, int]) -> None:
    once = micro_batch_tokens(LARGE, max_length=64)
    memory["SC_PHYS_PAGES"] *= 2

    assert micro_batch_tokens(LARGE, max_length=64) == 2 * once


def test_one_row_of_the_greatest_length_always_fits(memory: dict[str, int]) -> None:
    memory["SC_PHYS_PAGES"] = 1

    assert micro_batch_tokens(LARGE, max_length=512) == 512


def test_a_cpu_takes_4096_tokens_at_most_however_small_the_model(memory: dict[str, int]) -> None:
    assert micro_batch_tokens(CONFIGS["llama"], max_length=64) == 4096


@pytest.mark.parametrize("family", list(CONFIGS))
def test_every_family_has_a_figure_and_it_is_the_same_on_every_start(family: str, memory: dict[str, int]) -> None:
    figures = {micro_batch_tokens(CONFIGS[family], max_length=32) for _ in range(3)}

    assert len(figures) == 1
    assert figures.pop() >= 32
