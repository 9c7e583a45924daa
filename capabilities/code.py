"""What code the cells of a row, of a column or all rest on: when it changed, those cells are probed again.

What one row or one column rests on alone is probed along it; what all rest on, across: each row and each column once.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from capabilities.probes import PROBES
from capabilities.rows import own_files, rows
from forgetmenot.config.paths import choices, conf_folder

_TOP = Path(__file__).resolve().parents[1]
_SOURCE = _TOP / "src" / "forgetmenot"

_OF_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "4-bit": ("model/quantize.py",),
    "ewc": ("kept_tensors.py",),
    "kl": ("data/compare.py",),
    "replay": ("data/mix.py",),
    "multitask": ("data/mix.py",),
    "resume": ("checkpoint.py", "checkpointing.py", "cli/resuming.py"),
    "evaluate": ("cli/evaluate.py",),
    "export": ("cli/export.py", "export.py"),
}
"""Beside a penalty's own files. Two ranks have none: a cell takes 20 seconds, so they are left to what all rest on."""

_OF_ALL = ("method/base.py", "regularizer/base.py", "penalties.py")
"""Beside model/. Loop, loss and commands would make nearly every change one of all cells: the drawn share has them."""


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Hashes of the code of each row and each column, and of what all cells rest on."""

    rows: Mapping[str, str]
    columns: Mapping[str, str]
    shared: str

    @classmethod
    def now(cls) -> Self:
        """Returns those of the files as they lie on the disk."""
        return cls(
            rows={method: code(own_files("method", method)) for method in rows()},
            columns={column: code(column_files(column)) for column in PROBES},
            shared=code(shared_files()),
        )


def column_files(column: str) -> list[Path]:
    """Returns what a column alone rests on, or few of them do."""
    penalty = own_files("regularizer", column) if column in choices("regularizer") else []
    replay = [conf_folder() / "replay" / "mixed.yaml"] if column == "replay" else []
    return [*penalty, *replay, *(_SOURCE / name for name in _OF_COLUMNS.get(column, ()))]


def shared_files() -> list[Path]:
    """Returns what all cells rest on and no column has for its own."""
    columns = {name for names in _OF_COLUMNS.values() for name in names}
    model = [file for file in sorted((_SOURCE / "model").glob("*.py")) if f"model/{file.name}" not in columns]
    return [*(_SOURCE / name for name in _OF_ALL), *model]


def code(files: Iterable[Path]) -> str:
    """Returns a hash of files, by name and content."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
