"""Which cells are probed: all, some rows, those whose code changed, a seeded share."""

import math
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

from capabilities.probes import PROBES
from capabilities.rows import code, rows
from capabilities.table import Capabilities

Cell = tuple[str, str]
"""A method and a column."""


def cells_of(methods: Sequence[str]) -> list[Cell]:
    """Returns all cells of these rows, row by row."""
    return [(method, column) for method in methods for column in PROBES]


def changed(known: Capabilities) -> list[str]:
    """Returns the rows that are new, or whose code or columns are not those that they were probed with."""
    probed = {method: (row.code, list(row.cells)) for method, row in known.rows.items()}
    return [method for method in rows() if probed.get(method) != (code(method), list(PROBES))]


def share(parts: int, *, seed: int) -> list[Cell]:
    """Returns one cell of `parts`, always the same ones for a seed, row by row."""
    cells = cells_of(rows())
    return sorted(random.Random(seed).sample(cells, math.ceil(len(cells) / parts)), key=cells.index)


def seed_of_commit() -> int:
    """Returns a seed that is the same wherever a commit is tried and another for the next; 0 without git."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return 0
    return int(told[:8] or "0", 16)
