"""Keys and values of an answer in the making, with room for what follows: a step writes its own and copies nothing.

transformers' DynamicCache joins old and new ones at every step, which copies all of them each time.

Shapes: B rows, H heads, T tokens, D values of a head.
"""

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

_ROOM = 64  # tokens that there is room for before the next copy


class RoomyLayer(DynamicLayer):
    """One layer's keys and values: the beginnings of buffers that are longer."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers declares no types here
        self.buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Adds (B, H, T, D) keys and values; returns all that there are."""
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = (self.keys, self.values) if start else (key_states[:, :, :0], value_states[:, :, :0])
        assert keys is not None and values is not None, "a layer with tokens has their keys and values"
        # rows that were chosen or repeated meanwhile stand elsewhere
        if self.buffers is None or keys.data_ptr() != self.buffers[0].data_ptr() or self.buffers[0].shape[2] < end:
            self.buffers = (_with_room(keys, length=end + _ROOM), _with_room(values, length=end + _ROOM))
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values


def roomy_cache(config: PretrainedConfig) -> DynamicCache:
    """Returns an empty cache for a model; layers that keep a window alone stay transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _with_room(old_BHTD: Tensor, *, length: int) -> Tensor:
    """Returns a buffer of that many tokens that begins with the old ones."""
    rows, heads, tokens, width = old_BHTD.shape
    buffer_BHTD = torch.empty(rows, heads, length, width, dtype=old_BHTD.dtype, device=old_BHTD.device)
    buffer_BHTD[:, :, :tokens] = old_BHTD
    return buffer_BHTD
