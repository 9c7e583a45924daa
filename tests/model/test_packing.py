"""Packed attention beside transformers' own over the same rows one by one."""

import pytest
import torch
from tiny_models import packing, tiny
from torch.nn.functional import scaled_dot_product_attention

from forgetmenot.model import packing as module
from forgetmenot.model.packing import Packing, packed_attention, padded_attention

CPU = torch.device("cpu")
LENGTHS = [(7,), (5, 5, 5), (3, 4, 4, 5, 11, 12), (9, 2, 30, 31), (1, 1, 2)]


def drawn(lengths: tuple[int, ...], *, heads: int = 4, key_heads: int = 4) -> tuple[torch.Tensor, ...]:
    """Returns queries, keys and values of packed rows, (1, heads, tokens, 8)."""
    draw = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(1, count, sum(lengths), 8, generator=draw, requires_grad=True)
        for count in (heads, key_heads, key_heads)
    )


def row_by_row(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...], *, window: int | None = None
) -> torch.Tensor:
    """Returns (1, tokens, heads, 8): torch's attention of each row alone."""
    rows = []
    for q, k, v in zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True):
        distance = torch.arange(q.shape[2])[:, None] - torch.arange(q.shape[2])
        seen = (distance >= 0) & (distance < (window or q.shape[2]))
        rows.append(scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True).transpose(1, 2))
    return torch.cat(rows, dim=1)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("block", [4, 128])
def test_packed_rows_attend_as_each_row_does_alone(
    lengths: tuple[int, ...], key_heads: int, window: int | None, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_QUERIES_AT_ONCE", block)
    ours, theirs = (drawn(lengths, key_heads=key_heads) for _ in range(2))

    attended, _ = packed_attention(
        torch.nn.Module(), *ours, None, packing=Packing.of(lengths, device=CPU), sliding_window=window
    )
    expected = row_by_row(*theirs, lengths, window=window)
    torch.testing.assert_close(attended, expected, rtol=1e-5, atol=1e-6)

    for output in (attended, expected):
        output.pow(2).sum().backward()
    torch.testing.assert_close([each.grad for each in ours], [each.grad for each in theirs], rtol=1e-4, atol=1e-5)


def test_soft_caps_bound_the_scores_as_gemma_2_does() -> None:
    query, key, value = drawn((4,))
    attended, _ = packed_attention(
        torch.nn.Module(), query * 100, key, value, None, packing=Packing.of((4,), device=CPU), softcap=2.0, scaling=1.0
    )
    scores = torch.tanh(query @ key.transpose(-1, -2) * 100 / 2) * 2
    hidden = torch.ones(4, 4).triu(1).bool()
    expected = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ value
    torch.testing.assert_close(attended, expected.transpose(1, 2), rtol=1e-5, atol=1e-6)


def test_a_rows_answer_does_not_change_with_what_stands_beside_it() -> None:
    alone, beside = drawn((6,)), drawn((6, 9))
    together = [torch.cat([a, b[:, :, 6:]], dim=2) for a, b in zip(alone, beside, strict=True)]
    first, _ = packed_attention(torch.nn.Module(), *alone, None, packing=Packing.of((6,), device=CPU))
    both, _ = packed_attention(torch.nn.Module(), *together, None, packing=Packing.of((6, 9), device=CPU))
    torch.testing.assert_close(both[:, :6], first, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_groups_cover_every_token_once_and_pad_little(lengths: tuple[int, ...]) -> None:
    groups = Packing.of(lengths, device=CPU).groups
    assert [g.start for g in groups] == [0, *(g.end for g in groups[:-1])]
    assert groups[-1].end == sum(lengths)
    assert all(g.rows * g.longest <= 1.25 * (g.end - g.start) for g in groups)


def test_attention_sinks_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="sinks"):
        packed_attention(
            torch.nn.Module(), *drawn((3,)), None, packing=Packing.of((3,), device=CPU), s_aux=torch.zeros(4)
        )


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_model_that_packs_answers_padded_prompts_as_before(family: str) -> None:
    model = tiny(family)
    ids = torch.arange(4, 12).view(2, 4)
    packs = packing(model)
    with padded_attention(packs):
        logits = packs(input_ids=ids).logits
    torch.testing.assert_close(logits, model(input_ids=ids).logits, rtol=1e-5, atol=1e-6)


def test_the_way_of_attending_is_not_written_into_a_saved_config() -> None:
    model = packing(tiny("llama"))
    assert "forgetmenot" not in model.config.to_json_string()
