"""`compare`: sets finished runs side by side, seeds together.

forgetmenot compare outputs/sweeps/DATE/TIME --answers 2 --html runs.html
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from forgetmenot.report.best import best_sentences
from forgetmenot.report.compare import answers_side_by_side, answers_table, comparison
from forgetmenot.report.lines import cut_files
from forgetmenot.report.page import write_page
from forgetmenot.report.runs import find_runs, group_runs

_PIPED = 160  # columns where no terminal says how many it has


def main(arguments: Sequence[str]) -> None:
    """Prints the comparison of the runs below some folders; raises ValueError where there are none."""
    options = _parse(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=_PIPED)

    runs, others = find_runs(options.paths)
    groups = group_runs(runs)

    console.print(comparison(groups))
    for sentence in best_sentences(groups):
        console.print(sentence, soft_wrap=True, markup=False)
    for other in others:
        console.print(f"left out: {other.folder} ({other.why})", soft_wrap=True, markup=False)
    for sentence in cut_files(groups):
        console.print(sentence, soft_wrap=True, markup=False)
    for answers in answers_side_by_side(groups, per_task=options.answers) if options.answers else ():
        console.print(answers_table(answers))
    if options.html:
        write_page(options.html, groups, others)
        console.print(f"the page lies in {options.html}", soft_wrap=True, markup=False)
    if not options.answers:
        again = shlex.join(["forgetmenot", "compare", *map(str, options.paths), "--answers", "2"])
        console.print(f"what they answered: {again}", soft_wrap=True, markup=False)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="forgetmenot compare", description="Sets finished runs side by side.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a run, a sweep or any folder above them")
    parser.add_argument(
        "--answers",
        type=int,
        default=0,
        metavar="N",
        help="also what they answered to the first N prompts of each retained task",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also as a page with charts, for a browser")
    return parser.parse_args(arguments)
