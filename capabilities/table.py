"""The answers as they are kept: docs/capabilities.json, and docs/capabilities.md to be read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from capabilities.answer import Answer

DOCS = Path(__file__).resolve().parents[1] / "docs"

_HEAD = """# What works with what

Probed, not written: `make capabilities` ran every method on tiny random models, and this is what came of it.
**yes**: it ran, and what came out held (see below). A number: the command refused with the sentence of that number, and
said it before it read any weights (it was tried with damaged ones, too). *idle*: it runs, and warns in that sentence.
"""

_COLUMNS = """
- **causal, seq2seq**: a few steps of training between two scorings; every score is finite, and the loss is another
  afterwards where anything is trained. Two families of encoder-decoders, since T5 has no biases and BART has.
- **4-bit**: `method.quantize=nf4`; the base scores otherwise than in fp32.
- **l2_sp, ewc, kl**: with that regularizer, whose penalty is logged at every step.
- **replay**: `replay=mixed`, and examples were replayed. **multitask**: two targets, each with its gain.
- **2 ranks**: two processes of `trainer=ddp` come to the loss of one, within 0.1%. **fsdp**: so do two of
  `trainer=fsdp`.
- **resume**: a run that SIGTERM ended after its first step goes on to the losses, scores and forgetting of one that
  nothing ended, to the last digit.
- **evaluate**: what was saved is loaded anew by `forgetmenot evaluate` and has the scores and answers of the run.
- **export**: the plain model of `forgetmenot export` has the loss of the run, within 0.01%, and its greedy answers.

All in fp32 on the CPU. What is probed is whether it works, not how well it learns: docs/log.md has that.
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a method answered, on which day last, and the code that it had when all of it was probed."""

    code: str
    probed: str
    cells: Mapping[str, Answer]


@dataclass(frozen=True, kw_only=True)
class Whole:
    """When, where and in which time all rows were last probed together."""

    date: str
    minutes: float
    cores: int
    versions: Mapping[str, str]
    command: str


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """All answers; `whole` is None until all rows were probed together.

    `columns` are the hashes of the code that each was probed with, `shared` is that of what all cells rest on.
    """

    whole: Whole | None
    rows: Mapping[str, Row]
    columns: Mapping[str, str] = field(default_factory=dict)
    shared: str = ""

    @classmethod
    def read(cls, folder: Path = DOCS) -> Self:
        """Returns what is kept in `folder`; nothing where there is none yet."""
        file = folder / "capabilities.json"
        if not file.is_file():
            return cls(whole=None, rows={})
        kept = json.loads(file.read_text(encoding="utf-8"))
        rows = {
            method: Row(
                code=row["code"],
                probed=row["probed"],
                cells={column: Answer.read(cell) for column, cell in row["cells"].items()},
            )
            for method, row in kept["rows"].items()
        }
        whole = Whole(**kept["whole"]) if kept["whole"] else None
        return cls(whole=whole, rows=rows, columns=kept["columns"], shared=kept["shared"])

    def write(self, folder: Path = DOCS) -> None:
        """Writes both files."""
        rows = {
            method: {
                "code": row.code,
                "probed": row.probed,
                "cells": {column: cell.written() for column, cell in row.cells.items()},
            }
            for method, row in sorted(self.rows.items())
        }
        whole = asdict(self.whole) if self.whole else None
        kept = {"whole": whole, "shared": self.shared, "columns": dict(self.columns), "rows": rows}
        (folder / "capabilities.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        (folder / "capabilities.md").write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """Returns the table, its reasons, what each column means, and where it was probed."""
        columns = list(dict.fromkeys(column for row in self.rows.values() for column in row.cells))
        reasons: dict[str, int] = {}
        lines = [f"| method | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}"]
        for method, row in sorted(self.rows.items()):
            shown = [_shown(row.cells.get(column), reasons) for column in columns]
            lines.append(f"| {method} | {' | '.join(shown)} |")
        said = [f"{number}. {reason}" for reason, number in reasons.items()]
        return "\n".join([_HEAD, *lines, "", *said, _COLUMNS, self._place(), ""])

    def _place(self) -> str:
        if self.whole is None:
            return "The rows were not yet probed all together."
        versions = ", ".join(f"{name} {version}" for name, version in self.whole.versions.items())
        later = [f"{name} ({row.probed})" for name, row in sorted(self.rows.items()) if row.probed > self.whole.date]
        since = f" Probed again since: {', '.join(later)}." if later else ""
        return (
            f"All was probed on {self.whole.date} by `{self.whole.command}` in {self.whole.minutes:.0f} minutes "
            f"({self.whole.minutes / 60:.1f} hours) on {self.whole.cores} cores; {versions}.{since}"
        )


def _shown(answer: Answer | None, reasons: dict[str, int]) -> str:
    if answer is None:
        return "not probed"
    if answer.kind == "yes":
        return "yes"
    number = reasons.setdefault(answer.reason, len(reasons) + 1)
    return {"refused": f"({number})", "idle": f"*idle* ({number})", "fault": f"**fault** ({number})"}[answer.kind]
