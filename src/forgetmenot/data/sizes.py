"""Sizes that batches to score are rounded up to, so that matrix products come in few shapes.

A CPU's library makes a kernel for each shape in bf16 and keeps it for good, about half a megabyte each (docs/log.md):
over thousands of batches, each of a length of its own, memory would grow without end.
"""

import sys

_LENGTHS_AN_OCTAVE = 4  # padding adds up to a quarter, on average a tenth
_ROWS_AN_OCTAVE = 2


def round_length(tokens: int, *, most: int = sys.maxsize) -> int:
    """Returns the tokens that rows as long as this are padded to, `most` at most where they have no more."""
    return max(tokens, min(most, _rounded(tokens, steps=_LENGTHS_AN_OCTAVE)))


def round_rows(rows: int) -> int:
    """Returns how many rows a batch keeps that so many are needed of."""
    return _rounded(rows, steps=_ROWS_AN_OCTAVE)


def round_rows_down(rows: int) -> int:
    """Returns the most rows, of these, that `round_rows` leaves as they are."""
    step = max(1, (1 << rows.bit_length() - 1) // _ROWS_AN_OCTAVE)
    return rows // step * step


def _rounded(size: int, *, steps: int) -> int:
    """Returns the smallest of `steps` sizes between each two powers of two that is no smaller."""
    step = max(1, (1 << (size - 1).bit_length() - 1) // steps) if size > 1 else 1
    return -(-size // step) * step
