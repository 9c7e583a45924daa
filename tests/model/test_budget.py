"""The tokens of a forward pass, worked out by hand for machines of given memory."""

from types import SimpleNamespace

import psutil
import pytest
from tiny_models import CONFIGS
from transformers import LlamaConfig, PretrainedConfig

from forgetmenot.model.budget import micro_batch_tokens

# 2 blocks of 1000 values at 40 bytes: 80 000 bytes a token; with 10 000 logits at 20 bytes 280 000.
LARGE = LlamaConfig(hidden_size=1000, num_hidden_layers=2, vocab_size=10_000, num_attention_heads=2)
HEAD = 2**25 * 20


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with 3 GB of memory, which a test may change."""
    there = SimpleNamespace(total=3_000_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: there)
    return there


def tokens(config: PretrainedConfig = LARGE, *, max_length: int = 64, selects_head: bool = True) -> int:
    return micro_batch_tokens(config, max_length=max_length, selects_head=selects_head, on_cuda=False)


def test_a_quarter_of_the_memory_less_the_head_is_shared_out_among_tokens(memory: SimpleNamespace) -> None:
    assert tokens() == (3_000_000_000 // 4 - HEAD) // 80_000


def test_a_head_at_every_position_takes_memory_for_every_token(memory: SimpleNamespace) -> None:
    assert tokens(selects_head=False) == 3_000_000_000 // 4 // 280_000


def test_one_row_of_the_greatest_length_always_fits(memory: SimpleNamespace) -> None:
    memory.total = 1000

    assert tokens(max_length=512) == 512


def test_a_cpu_takes_4096_tokens_at_most_however_small_the_model(memory: SimpleNamespace) -> None:
    assert tokens(CONFIGS["llama"]) == 4096


@pytest.mark.parametrize("family", list(CONFIGS))
def test_every_family_has_a_figure_and_it_is_the_same_on_every_start(family: str, memory: SimpleNamespace) -> None:
    figures = {tokens(CONFIGS[family], max_length=32) for _ in range(3)}

    assert len(figures) == 1
    assert figures.pop() >= 32
