"""Blocks that are alike, one behind the other: a model of a few of them tells what one of many would take."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from forgetmenot.model.layers import stacks

KEPT = 5
"""Units of a stretch that stay: the first two and the last two, whose neighbours may differ, and one in between."""

_PLACES = {"layer_idx", "layer_id", "layer_number"}
"""Under which names blocks know where they stand: that alone does not make them differ."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """What stayed of alike units, each of one block or of some that differ, and how many units there were."""

    units: Sequence[Sequence[nn.Module]]
    count: int


def shorten(model: nn.Module) -> list[Stretch]:
    """Takes all but a few units out of each stretch of alike ones in the stacks of `model`, in place."""
    stretches: list[Stretch] = []
    within: set[nn.Module] = set()
    for stack in stacks(model):
        if stack not in within:
            within.update(layer for block in stack for layer in block.modules())
            stretches += _shorten(stack)
    return stretches


def _shorten(stack: nn.ModuleList) -> list[Stretch]:
    blocks, stretches, dropped = list(stack), [], set[nn.Module]()
    known: dict[Hashable, int] = {}
    kinds = [known.setdefault(_kind(block), len(known)) for block in blocks]
    for start, period, count in _repeats(kinds, start=0, end=len(kinds)):
        units = [blocks[first : first + period] for first in range(start, start + count * period, period)]
        first, last = KEPT // 2 + 1, count - KEPT // 2
        dropped |= {block for unit in units[first:last] for block in unit}
        stretches.append(Stretch(units=units[:first] + units[last:], count=count))
    for place in reversed(range(len(blocks))):
        if blocks[place] in dropped:
            del stack[place]
    return stretches


def _repeats(kinds: Sequence[int], *, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields (start, period, count) of what repeats more than KEPT times between `start` and `end`, in order.

    The one that saves most blocks first, then what is left on both of its sides.
    """
    best = (0, 0, 0)
    saved = 0
    for period in range(1, (end - start) // (KEPT + 1) + 1):
        first = start
        for place in range(start, end - period + 1):
            if place == end - period or kinds[place] != kinds[place + period]:
                count = (place - first) // period + 1
                if (count - KEPT) * period > saved:
                    best, saved = (first, period, count), (count - KEPT) * period
                first = place + 1
    if saved:
        first, period, count = best
        yield from _repeats(kinds, start=start, end=first)
        yield best
        yield from _repeats(kinds, start=first + period * count, end=end)


def _kind(block: nn.Module) -> Hashable:
    """Returns what is the same of blocks that compute alike: classes, settings, weights and which of them learn."""
    layers = tuple((name, type(layer), _settings(layer)) for name, layer in block.named_modules())
    weights = tuple((name, type(w), w.shape, w.dtype, w.requires_grad) for name, w in block.named_parameters())
    buffers = tuple((name, b.shape, b.dtype) for name, b in block.named_buffers())
    return layers, weights, buffers


def _settings(layer: nn.Module) -> Hashable:
    plain = (bool, int, float, str, type(None))
    return tuple((key, value) for key, value in vars(layer).items() if isinstance(value, plain) and key not in _PLACES)
