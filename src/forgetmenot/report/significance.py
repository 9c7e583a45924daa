"""Whether one group of runs is better than another beyond chance: of test examples, and of seeds.

Both are resampled together: in each resample a draw of each group's runs, and one draw of test examples for all of them
(a two-level bootstrap; Davison and Hinkley 1997, section 3.8).

Shapes: R runs, N examples, S resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draws:
    """How often each example is drawn in some resamples, and each run of the two groups."""

    examples_SN: np.ndarray
    left_SR: np.ndarray
    right_SR: np.ndarray


def _differences(left_RN: np.ndarray, right_RN: np.ndarray) -> np.ndarray:
    """Returns (resamples,) of the difference of means of two groups' runs over the same examples."""
    examples = left_RN.shape[1]
    kept = _kept_draws if RESAMPLES * examples <= _CELLS else _draws
    parts = []
    for draws in kept(examples, len(left_RN), len(right_RN)):
        left_S, right_S = (
            (runs_SR * (draws.examples_SN @ scores_RN.T)).sum(1) / (len(scores_RN) * examples)
            for runs_SR, scores_RN in ((draws.left_SR, left_RN), (draws.right_SR, right_RN))
        )
        parts.append(left_S - right_S)
    return np.concatenate(parts)


@lru_cache(maxsize=8)  # of 8 MB each; the same for all pairs of groups of as many runs
def _kept_draws(examples: int, left: int, right: int) -> tuple[_Draws, ...]:
    return tuple(_draws(examples, left, right))


def _draws(examples: int, left: int, right: int) -> Iterator[_Draws]:
    """Yields all resamples of so many examples and runs, in parts."""
    generator = np.random.default_rng(0)
    at_once = max(1, _CELLS // examples)
    for start in range(0, RESAMPLES, at_once):
        number = min(at_once, RESAMPLES - start)
        places_SN = generator.integers(examples, size=(number, examples))
        cells = (places_SN + examples * np.arange(number)[:, None]).ravel()
        counts_SN = np.bincount(cells, minlength=number * examples).reshape(number, examples).astype(np.float64)
        mine, others = (generator.multinomial(runs, np.full(runs, 1 / runs), size=number) for runs in (left, right))
        yield _Draws(examples_SN=counts_SN, left_SR=mine, right_SR=others)
