"""Whether one group of runs is better than another beyond chance: of test examples, and of seeds.

Both are resampled together: in each resample a draw of each group's runs, and one draw of test examples for all of them
(a two-level bootstrap; Davison and Hinkley 1997, section 3.8).

Shapes: R runs, N examples.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from forgetmenot.answers import ANSWER_NAMES, per_answer
from forgetmenot.report.lines import read_predictions
from forgetmenot.report.runs import Group, Run
from forgetmenot.result import Interval
from forgetmenot.scores import RESAMPLES, interval

_CELLS = 2**20  # of drawn examples that stand in memory at once


def difference(group: Group, other: Group, *, task: str) -> Interval | None:
    """Returns the 95% interval of how much better `group` answers a task than `other`; None where that is not known.

    It is known where both answered the same prompts, and the task is scored by its answers.
    """
    ours, theirs = ([_answered(run, task) for run in each.runs] for each in (group, other))
    known = [answered for answered in (*ours, *theirs) if answered is not None and answered.prompts]
    if len(known) < len(ours) + len(theirs) or len({answered.prompts for answered in known}) != 1:
        return None
    left, right = (np.array([each.scores_N for each in part]) for part in (known[: len(ours)], known[len(ours) :]))
    return interval(_differences(left, right))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Answered:
    """What a run answered: the prompts, and the score of each answer."""

    prompts: tuple[str, ...]
    scores_N: np.ndarray


def _answered(run: Run, task: str) -> _Answered | None:
    """Returns what a run answered to a task, in file order; None where its answers are not what scores it."""
    section, file = (run.result.tasks or {}).get(task), run.folder / "predictions" / f"{task}.jsonl"
    if section is None or section["metric"] not in ANSWER_NAMES or not file.is_file():
        return None
    return _scored(file, section["metric"], _averages(run, task))


def _averages(run: Run, task: str) -> bool:
    """Tells whether a run scores a task, one of several targets, a retained or its one, by the mean over references."""
    settings = dict(run.settings)
    keys = (f"data.{place}rouge_of_several" for place in (f"tasks.{task}.", f"retained.{task}.", ""))
    return next((settings[key] for key in keys if key in settings), None) == "average"


@cache
def _scored(file: Path, metric: str, average: bool) -> _Answered:
    lines = list(read_predictions(file))
    said = [line["after"] if line["after"] is not None else line["before"] for line in lines]
    references = [line["references"] for line in lines]
    scores = per_answer(metric, said, references, accumulate="average" if average else "best")
    return _Answered(prompts=tuple(line["prompt"] for line in lines), scores_N=np.array(scores))


def _differences(left_RN: np.ndarray, right_RN: np.ndarray) -> np.ndarray:
    """Returns (resamples,) of the difference of means of two groups' runs over the same examples."""
    generator = np.random.default_rng(0)
    examples = left_RN.shape[1]
    at_once = max(1, _CELLS // examples)
    parts = []
    for start in range(0, RESAMPLES, at_once):
        number = min(at_once, RESAMPLES - start)
        places = generator.integers(examples, size=(number, examples))
        mine, others = (_mean_of_drawn_runs(each, number, generator) for each in (left_RN, right_RN))
        parts.append(np.take_along_axis(mine - others, places, axis=1).mean(1))
    return np.concatenate(parts)


def _mean_of_drawn_runs(scores_RN: np.ndarray, number: int, generator: np.random.Generator) -> np.ndarray:
    """Returns (number, N): each example's mean score over runs, as many as there are, drawn anew for each."""
    runs = len(scores_RN)
    counts = generator.multinomial(runs, np.full(runs, 1 / runs), size=number)
    mean: np.ndarray = counts @ scores_RN / runs
    return mean
