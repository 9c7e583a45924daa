"""`compare`: sets finished runs side by side, seeds together.

forgetmenot compare outputs/sweeps/DATE/TIME --answers 2
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from forgetmenot.report.compare import answers, comparison, find_runs, group_runs

_PIPED = 160  # columns where no terminal says how many it has


def main(arguments: Sequence[str]) -> None:
    """Prints the comparison of the runs below some folders; raises ValueError where there are none."""
    options = _parse(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=_PIPED)

    runs, left_out = find_runs(options.paths)
    groups = group_runs(runs)

    console.print(comparison(groups))
    if left_out:
        console.print(f"left out: {left_out} runs that failed or were interrupted")
    for table in answers(groups, per_task=options.answers) if options.answers else ():
        console.print(table)
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
    return parser.parse_args(arguments)
