"""What a process on Linux has resident for its tensors: more than they hold, since glibc's heap does not fit them.

torch asks for addresses that 64 divides. Before version 2.38, glibc then takes a larger piece, cuts both ends off and
keeps them as pieces of their own (https://sourceware.org/bugzilla/show_bug.cgi?id=14581). Small objects move into
those, and once the tensor between them is freed, its place is too short for another of its size. So a step's tensors
take up to three times what they hold. This is that heap, tensor by tensor: plain numbers in and out.
"""

import os
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

Trace = Sequence[tuple[int, int]]
"""What is made and freed, in order: (number, bytes), or (-number, 0) for what is freed again."""

LIBRARIES = 21_000_000
"""Bytes that libraries load and keep once a first step computes, kernels of each shape among them (measured)."""

_FIXED_IN = (2, 38)
_ALIGNED = 64
_SMALLEST = 32  # bytes of a piece
_LARGEST_END = 128  # an end is shorter, and small objects take it
_EXTENDS_BY = 128 * 1024
_LARGEST_APART = 32 * 2**20  # pieces above this are never of the heap
_PASSES = 4  # after which the heap grows no more
_COME_BACK = (2, 7)  # of so many ends, those that small objects have left again (measured: docs/log.md)


def fits_badly() -> bool:
    """Tells whether this process has a C library of that kind."""
    name, _, version = (_libc() or "").partition(" ")
    return name == "glibc" and tuple(map(int, version.split("."))) < _FIXED_IN


def resident(held: Trace, repeated: Trace) -> int:
    """Returns the most bytes that are resident where `held` comes first, and then `repeated` over and over."""
    heap = _Heap()
    heap.replay(held, name=0)
    for number in range(1, _PASSES + 1):
        heap.replay(repeated, name=number)
        heap.give_ends_back()
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
    taken: dict[tuple[int, int], tuple[int | None, int]] = field(default_factory=dict)
    cut_off: list[tuple[int, int]] = field(default_factory=list)

    def replay(self, trace: Trace, *, name: int) -> None:
        """Makes and frees what `trace` says; what it frees of an earlier one is left, and what stays, stays."""
        for number, size in trace:
            if number > 0:
                self.take((name, number), size)
            elif (name, -number) in self.taken:
                self.free((name, -number))

    def take(self, number: tuple[int, int], size: int) -> None:
        """Takes room for a tensor: the smallest free piece that can hold it, or more of the heap."""
        whole = max(_SMALLEST, -(-(size + 8) // 16) * 16)
        start, found = self._piece(whole + _ALIGNED + _SMALLEST)
        if start is None:
            self.apart += found
            self.taken[number] = (None, found)
        else:
            front = -(start + 16) % _ALIGNED
            front += _ALIGNED if 0 < front < _SMALLEST else 0
            back = found - front - whole
            whole += back if back < _SMALLEST else 0
            self.taken[number] = (start + front, whole)
            self._cut_off(start, front)
            self._cut_off(start + front + whole, found - front - whole)
        self.peak = max(self.peak, self.end + self.apart)

    def free(self, number: tuple[int, int]) -> None:
        """Frees what a tensor took."""
        start, size = self.taken.pop(number)
        if start is not None:
            self._put_back(start, size)
            return
        self.apart -= size
        if self.apart_from < size <= _LARGEST_APART:
            self.apart_from = size

    def give_ends_back(self) -> None:
        """Frees as many of the ends that were cut off as small objects leave, once a pass is over."""
        back, of = _COME_BACK
        ends, self.cut_off = self.cut_off, [end for place, end in enumerate(self.cut_off) if place % of >= back]
        for place, (start, size) in enumerate(ends):
            if place % of < back:
                self._put_back(start, size)

    def _piece(self, size: int) -> tuple[int | None, int]:
        """Returns where a piece begins and its size; None for one apart from the heap."""
        place = bisect_left(self.by_size, (size, 0))
        if place < len(self.by_size):
            found, start = self.by_size[place]
            self._forget(start, found)
            return start, found
        if self.end - self.top < size:
            if size >= self.apart_from:
                return None, -(-size // 4096) * 4096
            self.end = self.top + size + _EXTENDS_BY
        self.top += size
        return self.top - size, size

    def _cut_off(self, start: int, size: int) -> None:
        if size > _LARGEST_END:
            self._put_back(start, size)
        elif size:
            self.cut_off.append((start, size))

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
