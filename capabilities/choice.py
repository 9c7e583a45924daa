"""Which cells are probed: all, some rows, those whose code changed, a seeded share."""

import math
import random
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from capabilities.code import Codes
from capabilities.probes import PROBES
from capabilities.rows import rows
from capabilities.table import Capabilities

Cell = tuple[str, str]
"""A method and a column."""


def cells_of(methods: Sequence[str]) -> list[Cell]:
    """Returns all cells of these rows, row by row."""
    return [(method, column) for method in methods for column in PROBES]


def changed(known: Capabilities, now: Codes) -> list[Cell]:
    """Returns what is not kept or was probed with other code: rows, columns, and across for what all rest on."""
    probed = {method: (row.code, list(row.cells)) for method, row in known.rows.items()}
    cells = cells_of([method for method in rows() if probed.get(method) != (now.rows[method], list(PROBES))])
    others = {column for column in PROBES if known.columns.get(column) != now.columns[column]}
    cells += [cell for cell in cells_of(rows()) if cell[1] in others]
    if known.shared != now.shared:
        cells += across(seed=int(now.shared, 16))
    return list(dict.fromkeys(cells))


def across(*, seed: int) -> list[Cell]:
    """Returns one cell of each row in which each column has its turn; another seed takes others."""
    columns = list(PROBES)
    return [(method, columns[(number + seed) % len(columns)]) for number, method in enumerate(rows())]


def crosses(cells: Collection[Cell]) -> bool:
    """Tells whether all rows and all columns are among `cells`."""
    return {row for row, _ in cells} >= set(rows()) and {column for _, column in cells} >= set(PROBES)


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
