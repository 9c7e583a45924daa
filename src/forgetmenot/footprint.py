"""What a training step holds on one device, part by part, and what that says: plain numbers in and out."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

Strategy = Literal["one", "ddp", "fsdp"]
"""Whether there is one device, or how several share the work: all weights on each, or a share on each."""

ROOM = 0.9
"""The share of a device's memory that a plan may fill.

A tenth is for what it does not see: the context of CUDA, the workspace of kernels, what an allocator cannot use.
"""

_GATHERED_BLOCKS = 2  # the one that computes, and the next, which is on its way


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The memory of one device at one moment, in bytes."""

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    logits: int = 0
    exchange: int = 0
    """What ranks hold for each other: weights that FSDP has gathered, or DDP's buckets of gradients."""
    penalties: int = 0
    allocator: int = 0
    """What the C library's heap and others keep beside them, on a CPU."""

    @property
    def total(self) -> int:
        """All of them together."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, kw_only=True)
class Groups:
    """How weights come in groups that FSDP gathers one by one, in bytes."""

    largest_block: int
    outside_blocks: int
    """Embeddings, the last norm and the head: one group, which stays gathered throughout a step."""
    largest_block_trained: int


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Over how many devices a step is spread, and how; `several`: whether a device takes more than one micro-batch."""

    devices: int
    strategy: Strategy
    several: bool

    def __post_init__(self) -> None:
        assert self.devices >= 1 and (self.devices == 1) == (self.strategy == "one")


def fullest(moments: Mapping[str, Parts], *, spread: Spread, groups: Groups) -> Parts:
    """Returns the memory of a device at its fullest moment; `moments` are those of one device that holds all alone."""
    return max((on_device(parts, spread=spread, groups=groups) for parts in moments.values()), key=lambda p: p.total)


def on_device(parts: Parts, *, spread: Spread, groups: Groups) -> Parts:
    """Returns what a device holds of `parts` where weights are spread.

    FSDP divides weights, gradients and the optimizer's state. Gradients of all micro-batches but the last are added up
    whole, on each device alone. Activations are each device's own, with the copies of trained weights in low precision
    that autocast makes, which no one divides.
    """
    if spread.strategy == "one":
        return parts
    if spread.strategy == "ddp":
        return replace(parts, exchange=parts.gradients)
    gathered = groups.outside_blocks + _GATHERED_BLOCKS * groups.largest_block
    whole_gradients = 0 if spread.several else groups.largest_block_trained
    return replace(
        parts,
        weights=_share(parts.weights, spread.devices),
        gradients=parts.gradients if spread.several else _share(parts.gradients, spread.devices),
        optimizer=_share(parts.optimizer, spread.devices),
        exchange=min(gathered, parts.weights) + min(whole_gradients, parts.gradients),
    )


def fits(parts: Parts, *, memory: int) -> bool:
    """Tells whether a device of so many bytes has room for them."""
    return parts.total <= ROOM * memory


def seconds_of(steps: int, *, flops_per_step: float, flops_per_second: float, devices: int) -> float:
    """Returns how long steps take whose work `devices` share, each at `flops_per_second`."""
    return steps * flops_per_step / (flops_per_second * devices)


def halvings(tokens: int, *, least: int) -> list[int]:
    """Returns ever smaller micro-batches: half of `tokens`, a quarter and so on, and `least` as the last."""
    sizes = []
    while tokens > least:
        tokens = max(least, tokens // 2)
        sizes.append(tokens)
    return sizes


def _share(size: int, devices: int) -> int:
    return -(-size // devices)
