"""What a process on Linux has resident for its tensors: more than they hold, since glibc's heap does not fit them.

torch asks for addresses that 64 divides. Before version 2.38, glibc then takes a larger piece, cuts both ends off and
keeps them as pieces of their own (https://sourceware.org/bugzilla/show_bug.cgi?id=14581). Its cache for a thread, which
joins pieces to no others, hands them to the small objects that torch notes beside tensors, and once the tensor between
them is freed, its place is too short for another of its size. So a step's tensors take up to some 2.5 times what they
hold. This is that heap, tensor by tensor: plain numbers in and out.
"""

import os
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Trace = Sequence[tuple[int, int]]
"""What is made and freed, in order: (number, bytes), or (-number, 0) for what is freed again."""


class Part(NamedTuple):
    """A stretch of a pass; what is `forward` notes a graph, which is gone at the end of the next that is not."""

    forward: bool
    trace: Trace


LIBRARIES = 21_000_000
"""Bytes that libraries load and keep once a first step computes, kernels of each shape among them (measured)."""

_FIXED_IN = (2, 38)
_ALIGNED = 64
_SMALLEST = 32  # bytes of a piece
_LARGEST_CACHED = 1040
_CACHED = 7  # pieces of a size that a thread keeps to itself
_EXTENDS_BY = 128 * 1024
_LARGEST_APART = 32 * 2**20  # pieces above this are never of the heap
_PASSES = 3  # after which the heap hardly grows
_STORAGE = 112  # bytes that torch's record of a tensor's storage takes, made before it and freed after it
_NODE = 48
"""Bytes of what a graph keeps for each tensor of a forward pass, 0.8 to 1.3 pieces of them (counted in three runs).

Of the small objects that a step makes, this and the storage's record alone are replayed: that choice was made beside
the peaks of ten runs, and with pieces of 32 bytes, which are as many, LoRA was planned up to a quarter too high.
"""


def fits_badly() -> bool:
    """Tells whether this process has a C library of that kind."""
    name, _, version = (_libc() or "").partition(" ")
    return name == "glibc" and tuple(map(int, version.split("."))) < _FIXED_IN


def resident(held: Trace, repeated: Sequence[Part]) -> int:
    """Returns the most bytes that are resident where `held` comes first, and then `repeated` over and over.

    What a pass leaves behind, such as gradients, is freed before the next.
    """
    heap = _Heap()
    for number, size in held:
        heap.take((0, number), size)
    for name in range(1, _PASSES + 1):
        for part in repeated:
            heap.replay(part, name=name)
        heap.end_pass(name)
    return heap.peak


@dataclass(eq=False)
class _Heap:
    """Pieces by where they start; the free ones also by where they end, and by size."""

    top: int = 0
    end: int = 0
    apart: int = 0
    apart_from: int = _EXTENDS_BY  # grows with what is freed of them
    peak: int = 0
    starts: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    by_size: list[tuple[int, int]] = field(default_factory=list)
    cached: dict[int, list[int]] = field(default_factory=dict)
    taken: dict[tuple[int, int], tuple[int | None, int]] = field(default_factory=dict)
    storages: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    graph: list[tuple[int, int]] = field(default_factory=list)

    def replay(self, part: Part, *, name: int) -> None:
        """Makes and frees what `part` says; what it frees of an earlier one is left."""
        for number, size in part.trace:
            if number > 0:
                self.take((name, number), size)
                if part.forward:
                    self.graph.append(self._take_small(_NODE))
            elif (name, -number) in self.taken:
                self.free((name, -number))
        if not part.forward:
            self._free_graph()

    def end_pass(self, name: int) -> None:
        """Frees what is left of a pass."""
        for key in [key for key in self.taken if key[0] == name]:
            self.free(key)
        self._free_graph()

    def take(self, key: tuple[int, int], size: int) -> None:
        """Takes room for a tensor: the smallest free piece that can hold it, or more of the heap."""
        self.storages[key] = self._take_small(_STORAGE)
        whole = max(_SMALLEST, -(-(size + 8) // 16) * 16)
        start, found = self._piece(whole + _ALIGNED + _SMALLEST)
        if start is None:
            self.apart += found
            self.taken[key] = (None, found)
        else:
            front = -(start + 16) % _ALIGNED
            front += _ALIGNED if 0 < front < _SMALLEST else 0
            back = found - front - whole
            whole += back if back <= _SMALLEST else 0
            self.taken[key] = (start + front, whole)
            self._give_back(start, front)
            self._give_back(start + front + whole, found - front - whole)
        self.peak = max(self.peak, self.end + self.apart)

    def free(self, key: tuple[int, int]) -> None:
        """Frees what a tensor took."""
        start, size = self.taken.pop(key)
        if start is not None:
            self._give_back(start, size)
        else:
            self.apart -= size
            if self.apart_from < size <= _LARGEST_APART:
                self.apart_from = size
        self._give_back(*self.storages.pop(key))

    def _free_graph(self) -> None:
        for start, size in self.graph:
            self._give_back(start, size)
        self.graph.clear()

    def _take_small(self, size: int) -> tuple[int, int]:
        """Returns where a small object begins, and its size: one that the thread has kept, else of a free piece."""
        if self.cached.get(size):
            return self.cached[size].pop(), size
        start, found = self._piece(size)
        assert start is not None, "no small object is kept apart"
        return start, found

    def _give_back(self, start: int, size: int) -> None:
        """Frees a piece: the thread keeps small ones to itself, some of each size."""
        kept = self.cached.setdefault(size, []) if 0 < size <= _LARGEST_CACHED else None
        if kept is not None and len(kept) < _CACHED:
            kept.append(start)
        elif size:
            self._put_back(start, size)

    def _piece(self, size: int) -> tuple[int | None, int]:
        """Returns where a piece begins and its size, what is left over cut off; None for one apart from the heap."""
        place = bisect_left(self.by_size, (size, 0))
        if place < len(self.by_size):
            found, start = self.by_size[place]
            self._forget(start, found)
            if found - size < _SMALLEST:
                return start, found
            self._put_back(start + size, found - size)
            return start, size
        if self.end - self.top < size:
            if size >= self.apart_from:
                return None, -(-size // 4096) * 4096
            self.end = self.top + size + _EXTENDS_BY
        self.top += size
        return self.top - size, size

    def _put_back(self, start: int, size: int) -> None:
        """Makes a piece free, one with those beside it; at the top the heap shrinks."""
        if (before := self.ends.get(start)) is not None:
            self._forget(before, start - before)
            start, size = before, size + start - before
        if (after := self.starts.get(start + size)) is not None:
            self._forget(start + size, after)
            size += after
        if start + size == self.top:
            self.top = start
            if self.end - self.top > 2 * self.apart_from:
                self.end = self.top + _EXTENDS_BY
            return
        self.starts[start], self.ends[start + size] = size, start
        insort(self.by_size, (size, start))

    def _forget(self, start: int, size: int) -> None:
        del self.starts[start], self.ends[start + size]
        del self.by_size[bisect_left(self.by_size, (size, start))]


def _libc() -> str | None:
    """Returns the C library's name and version where it tells them."""
    return os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {}) else None
