"""Packed attention: rows stand behind each other without padding, and each attends to itself alone.

Every other layer sees one long row without a wasted token; attention takes its queries, keys and values apart again,
row by row, in groups of like lengths. transformers passes `packing` on from the model's call to each attention layer.

Shapes: B rows of a group, H heads, T tokens of the group's longest row, N tokens of all rows, D values of a head.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

PACKED = "forgetmenot_packed"
"""The name under which transformers knows this attention."""

_BY_KERNEL = "forgetmenot_packed_by_kernel"
_COUNTED = "forgetmenot_counted"
_MOST_PADDING = 1.25  # a group's rows are padded to its longest as long as this is all that it adds up to
_QUERIES_AT_ONCE = 128  # of long rows, so that queries never meet the keys of blocks that come after them


@dataclass(frozen=True, kw_only=True)
class Group:
    """Neighbouring rows of like lengths: `places` says which token stands in each of the B times T places."""

    start: int
    end: int
    rows: int
    longest: int
    places: Tensor | None
    """(B * T,) index of a token of the group; what follows a shorter row is its own first token, never looked at."""
    tokens: Tensor | None
    """(tokens of the group,) the place of each."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Where the rows of a packed batch begin and end, and whether a kernel of the device's takes a group at once."""

    groups: tuple[Group, ...]
    by_kernel: bool

    @classmethod
    def of(cls, lengths: Sequence[int], *, device: torch.device) -> "Packing":
        """Returns the packing of rows of `lengths` tokens, in their order."""
        groups, start, members, longest, total = [], 0, [lengths[0]], lengths[0], lengths[0]
        for length in lengths[1:]:
            wider, more = max(longest, length), total + length
            if wider * (len(members) + 1) <= _MOST_PADDING * more:
                members.append(length)
                longest, total = wider, more
                continue
            groups.append(_group(members, start=start, device=device))
            start, members, longest, total = start + total, [length], length, length
        return cls(groups=(*groups, _group(members, start=start, device=device)), by_kernel=device.type == "cuda")


def _group(lengths: Sequence[int], *, start: int, device: torch.device) -> Group:
    longest, total = max(lengths), sum(lengths)
    places = tokens = None
    if min(lengths) < longest:
        sizes = np.asarray(lengths)
        taken = (np.arange(longest) < sizes[:, None]).reshape(-1)
        firsts = np.repeat(np.cumsum(sizes) - sizes, longest)
        filled = np.where(taken, np.cumsum(taken) - 1, firsts)
        places = torch.from_numpy(filled).to(device, non_blocking=True)
        tokens = torch.from_numpy(np.flatnonzero(taken)).to(device, non_blocking=True)
    return Group(start=start, end=start + total, rows=len(lengths), longest=longest, places=places, tokens=tokens)


def use_packed_attention(model: PreTrainedModel) -> None:
    """Makes every forward pass of `model` take packed rows, until `padded_attention` says otherwise."""
    AttentionInterface.register(PACKED, packed_attention)
    model.config._attn_implementation = PACKED


def use_packed_attention_by_kernel(model: PreTrainedModel) -> None:
    """Makes forward passes of `model` take packed rows as on CUDA devices, whatever the device: to plan for them."""

    def attend(*arguments: object, packing: Packing, **named: object) -> tuple[Tensor, None]:
        return packed_attention(*arguments, packing=replace(packing, by_kernel=True), **named)  # type: ignore[arg-type]

    AttentionInterface.register(_BY_KERNEL, attend)
    model.config._attn_implementation = _BY_KERNEL


def packing_seen(model: PreTrainedModel, inputs: Mapping[str, object]) -> int:
    """Returns how many times a forward pass over packed `inputs` came to attention that knew of the packing."""
    seen: list[Packing] = []

    def count(*arguments: object, packing: Packing, **named: object) -> tuple[Tensor, None]:
        seen.append(packing)
        return packed_attention(*arguments, packing=packing, **named)  # type: ignore[arg-type]  # as transformers calls

    own = model.config._attn_implementation
    AttentionInterface.register(_COUNTED, count)
    model.config._attn_implementation = _COUNTED
    try:
        model(**inputs, use_cache=False)
    finally:
        model.config._attn_implementation = own
    return len(seen)


@contextmanager
def padded_attention(model: PreTrainedModel) -> Iterator[None]:
    """Lets a model that packs answer padded prompts, with transformers' own attention."""
    own = model.config._attn_implementation
    if own == PACKED:
        model.config._attn_implementation = "sdpa" if model._supports_sdpa else "eager"
    try:
        yield
    finally:
        model.config._attn_implementation = own


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Returns (1, N, H, D): causal attention of (1, H, N, D) queries within each row, as transformers calls it.

    Keys and values may have fewer heads. `sliding_window` counts the tokens that are seen, oneself among them;
    `softcap` bounds scores (Gemma 2). Raises NotImplementedError for attention sinks.
    """
    if s_aux is not None:
        raise NotImplementedError("packed attention has no attention sinks")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    settings = _Settings(
        scale=scale, dropout=dropout, window=sliding_window, softcap=softcap, by_kernel=packing.by_kernel
    )
    parts = []
    for group in packing.groups:
        attended_BHTD = _attend(_rows(query, group), _rows(key, group), _rows(value, group), settings=settings)
        flat_TNHD = attended_BHTD.transpose(1, 2).flatten(0, 1)
        parts.append(flat_TNHD if group.tokens is None else flat_TNHD.index_select(0, group.tokens))
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None], None


@dataclass(frozen=True, kw_only=True)
class _Settings:
    scale: float
    dropout: float
    window: int | None
    softcap: float | None
    by_kernel: bool


def _rows(packed_1HND: Tensor, group: Group) -> Tensor:
    """Returns the group's part as (B, H, T, D)."""
    tokens_NHD = packed_1HND[0].transpose(0, 1)[group.start : group.end]
    if group.places is not None:
        tokens_NHD = tokens_NHD.index_select(0, group.places)
    rows_BTHD: Tensor = tokens_NHD.unflatten(0, (group.rows, group.longest))
    return rows_BTHD.transpose(1, 2)


def _attend(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, *, settings: _Settings) -> Tensor:
    """Returns (B, H, T, D) of causal attention."""
    repeats = query_BHTD.shape[1] // key_BHTD.shape[1]
    if repeats > 1:
        key_BHTD, value_BHTD = (each.repeat_interleave(repeats, dim=1) for each in (key_BHTD, value_BHTD))
    length = query_BHTD.shape[2]
    windowed = settings.window is not None and settings.window < length
    if settings.by_kernel and not windowed and settings.softcap is None:
        attended_BHTD: Tensor = scaled_dot_product_attention(
            query_BHTD, key_BHTD, value_BHTD, is_causal=True, scale=settings.scale, dropout_p=settings.dropout
        )
        return attended_BHTD
    parts = []
    for start in range(0, length, _QUERIES_AT_ONCE):
        end = min(length, start + _QUERIES_AT_ONCE)
        first = max(0, start + 1 - settings.window) if windowed and settings.window is not None else 0
        scores_BHQK = (query_BHTD[:, :, start:end] * settings.scale) @ key_BHTD[:, :, first:end].transpose(-1, -2)
        if settings.softcap is not None:
            scores_BHQK = torch.tanh(scores_BHQK / settings.softcap) * settings.softcap
        scores_BHQK = scores_BHQK + _mask(start, end, first=first, window=settings.window, like=scores_BHQK)
        weights_BHQK = drop(scores_BHQK.softmax(dim=-1), settings.dropout)
        parts.append(weights_BHQK @ value_BHTD[:, :, first:end])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _mask(start: int, end: int, *, first: int, window: int | None, like: Tensor) -> Tensor:
    """Returns (queries, keys) of 0 where query `start` and on may look at key `first` and on, else minus infinity."""
    distance_QK = torch.arange(start, end, device=like.device)[:, None] - torch.arange(first, end, device=like.device)
    hidden_QK = distance_QK < 0 if window is None else (distance_QK < 0) | (distance_QK >= window)
    return torch.zeros(hidden_QK.shape, dtype=like.dtype, device=like.device).masked_fill(hidden_QK, float("-inf"))
