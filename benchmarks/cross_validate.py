"""Cross-validates settings of a run over the training and validation rows of an embedded data set.

Its test rows are never read. Every row is held out once, so that a choice rests on all of them and not on one small
split: on the 160 validation rows of sentiment alone, two rates five points apart changed places on other rows.

python -m benchmarks.cross_validate "method=full optimizer.lr=1.6e-4" "method=full optimizer.lr=3.3e-4"
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from forgetmenot.durable import write_whole
from forgetmenot.result import FILE_NAME, RunResult

TOP = Path(__file__).resolve().parents[1]
ASSETS = TOP / "src" / "forgetmenot" / "assets" / "data"


def main() -> None:
    """Prints one line for each of the settings: accuracy and loss over the folds."""
    options = parsed()
    folder = options.folder / options.data
    folds = [write_fold(folder, data=options.data, fold=fold, folds=options.folds) for fold in range(options.folds)]
    work = [(settings, fold) for settings in options.settings for fold in range(options.folds)]
    with ThreadPoolExecutor(options.jobs) as pool:
        scores = list(
            pool.map(lambda each: held_out_scores(each[0], folds=folds, fold=each[1], jobs=options.jobs), work)
        )
    print(f"| settings | {options.folds} folds: accuracy, mean ± standard error | loss, nats a token |\n|---|---|---|")
    for index, settings in enumerate(options.settings):
        own = scores[index * options.folds : (index + 1) * options.folds]
        accuracies = [each["accuracy"] for each in own]
        error = stdev(accuracies) / len(own) ** 0.5
        print(f"| {settings} | {mean(accuracies):.3f} ± {error:.3f} | {mean(each['loss'] for each in own):.3f} |")


def parsed() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", help="key=value words of one kind of run, in quotes")
    parser.add_argument(
        "--data", default="sentiment", choices=[each.name for each in ASSETS.iterdir() if each.is_dir()]
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at once, one thread each")
    parser.add_argument("--folder", type=Path, default=TOP / "outputs" / "cross_validation")
    return parser.parse_args()


def write_fold(folder: Path, *, data: str, fold: int, folds: int) -> Path:
    """Returns a folder of two parts: train, and the rows held out, which a run reads as validation and as test."""
    rows = [row for name in ("train", "validation") for row in (ASSETS / data / f"{name}.jsonl").open(encoding="utf-8")]
    order = np.random.default_rng(0).permutation(len(rows))
    place = folder / f"fold_{fold}_of_{folds}"
    held_out = set(order[fold::folds].tolist())
    write_whole(place / "train.jsonl", "".join(row for i, row in enumerate(rows) if i not in held_out))
    for name in ("validation", "test"):
        write_whole(place / f"{name}.jsonl", "".join(rows[i] for i in sorted(held_out)))
    return place


def held_out_scores(settings: str, *, folds: Sequence[Path], fold: int, jobs: int) -> Mapping[str, float]:
    """Returns what a run with these settings scores on the rows of one fold, having trained on all others."""
    name = "".join(letter if letter.isalnum() else "_" for letter in settings)
    run = folds[fold].parent / "runs" / f"{name}_{fold}_of_{len(folds)}"
    if not finished(run):
        shutil.rmtree(run, ignore_errors=True)
        done = subprocess.run(
            [
                sys.executable, str(TOP / "train.py"), "data.retained=[]", "logger=none", "trainer=cpu",
                "data.max_validation=8",  # the run itself looks at these alone
                *shlex.split(settings), f"data.path={folds[fold]}", f"seed={fold}", f"hydra.run.dir={run}",
            ],
            env={**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{settings} failed: {done.stderr[-1000:]}")
    (target,) = RunResult.read(run).targets.values()
    assert target["after"] is not None, "the run has just finished"
    print(f"  {settings}, fold {fold}: accuracy {target['after']['accuracy']:.3f}", file=sys.stderr, flush=True)
    return target["after"]


def finished(run: Path) -> bool:
    """Tells whether a run of an earlier start, perhaps cut off, came to its end."""
    return (run / FILE_NAME).exists() and RunResult.read(run).status == "complete"


if __name__ == "__main__":
    main()
