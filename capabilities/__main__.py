"""Probes what works with what, and keeps the answers in docs/capabilities.json and docs/capabilities.md.

python -m capabilities                                every cell, about a quarter of an hour
python -m capabilities --only lora,dora               these rows
python -m capabilities --changed                      rows and columns whose code changed, and across for what all share
python -m capabilities --check --changed --share 20   compares them with what is kept, and a twentieth of all cells
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

from capabilities.answer import Answer
from capabilities.bench import Bench
from capabilities.choice import Cell, cells_of, changed, crosses, seed_of_commit, share
from capabilities.code import Codes
from capabilities.probes import PROBES, answer
from capabilities.rows import rows
from capabilities.table import Capabilities, Row, Whole

_PACKAGES = ("torch", "transformers", "peft", "lightning", "bitsandbytes")

Answers = dict[Cell, Answer]


def main(arguments: Sequence[str] | None = None) -> None:
    """Probes the chosen cells, then keeps the answers or compares them with those that are kept."""
    asked = _parse(arguments)
    known = Capabilities.read()
    codes = Codes.now()  # before they are probed: it may be edited meanwhile
    cells = _chosen(asked, known, codes)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="capabilities_") as place:
        answers = _probed(Bench.at(Path(place)), cells)
    minutes = (time.perf_counter() - started) / 60
    print(f"{len(cells)} cells in {minutes:.1f} minutes")

    if asked.check:
        told = differences(known, answers)
    else:
        updated(known, answers, codes=codes, minutes=minutes).write()
        told = [f"{method}, {column}: {found}" for (method, column), found in answers.items() if found.kind == "fault"]
    if told:
        sys.exit("\n".join(told))


def differences(known: Capabilities, answers: Answers) -> list[str]:
    """Returns in a sentence each which answers are others than those that are kept."""
    told = []
    for (method, column), found in answers.items():
        kept = known.rows[method].cells.get(column) if method in known.rows else None
        if found != kept:
            told.append(f"{method}, {column}: {kept or 'nothing'} is kept, the probe came to {found}")
    return told


def updated(known: Capabilities, answers: Answers, *, codes: Codes, minutes: float) -> Capabilities:
    """Returns what is kept with `answers` in the place of older ones; rows that are gone are left out.

    A row or column whose cells were all probed has the code of now, a row its day too, and so has what all share where
    each had a turn.
    """
    today = date.today().isoformat()
    kept = {}
    for method in rows():
        fresh = {column: answers[method, column] for column in PROBES if (method, column) in answers}
        row = known.rows.get(method, Row(code="", probed=today, cells={}))
        kept[method] = Row(
            code=codes.rows[method] if len(fresh) == len(PROBES) else row.code,
            probed=today if len(fresh) == len(PROBES) else row.probed,
            cells={column: cell for column in PROBES if (cell := fresh.get(column, row.cells.get(column))) is not None},
        )
    columns = {name for name in PROBES if answers.keys() >= {(method, name) for method in rows()}}
    return Capabilities(
        whole=_whole(today, minutes) if len(columns) == len(PROBES) else known.whole,
        rows={method: row for method, row in kept.items() if row.cells},
        columns={**known.columns, **{name: codes.columns[name] for name in PROBES if name in columns}},
        shared=codes.shared if crosses(answers) else known.shared,
    )


def _whole(today: str, minutes: float) -> Whole:
    return Whole(
        date=today,
        minutes=round(minutes, 1),
        cores=os.cpu_count() or 1,
        versions={name: version(name) for name in _PACKAGES},
        command="make capabilities",
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m capabilities", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="METHODS", help="rows to probe, such as lora,dora")
    parser.add_argument("--changed", action="store_true", help="cells whose code changed since they were probed")
    parser.add_argument("--check", action="store_true", help="compare with the kept answers and write nothing")
    parser.add_argument("--share", type=int, metavar="N", help="one of N cells, with --check")
    parser.add_argument("--seed", type=int, help="draws the share; default: from the git commit")
    asked = parser.parse_args(arguments)
    unknown = set(asked.only.split(",") if asked.only else ()) - set(rows())
    if unknown:
        parser.error(f"--only must be methods of conf/method, got {', '.join(sorted(unknown))}")
    if asked.share is not None and not (asked.check and asked.share > 0):
        parser.error("--share must be at least 1 and stand with --check, since it is drawn to compare")
    return asked


def _chosen(asked: argparse.Namespace, known: Capabilities, codes: Codes) -> list[Cell]:
    """Returns the cells that were asked for, each once; without a choice all."""
    if not (asked.only or asked.changed or asked.share):
        return cells_of(rows())
    chosen = cells_of(asked.only.split(",")) if asked.only else []
    if asked.changed:
        chosen += changed(known, codes)
    if asked.share:
        seed = seed_of_commit() if asked.seed is None else asked.seed
        print(f"--seed {seed}")
        chosen += share(asked.share, seed=seed)
    return list(dict.fromkeys(chosen))


def _probed(bench: Bench, cells: Sequence[Cell]) -> Answers:
    answers = {}
    for number, (method, column) in enumerate(cells, start=1):
        started = time.perf_counter()
        found = answers[method, column] = answer(bench, method, column)
        seconds = time.perf_counter() - started
        print(f"{number}/{len(cells)}  {method}, {column}: {found} ({seconds:.1f} s)", flush=True)
    return answers


if __name__ == "__main__":
    main()
