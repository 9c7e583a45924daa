"""What a run's measurements come to: the sections of result.json that scores, method, data and cost fill."""

import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar, cast

import numpy as np
from transformers import PreTrainedModel

from forgetmenot.answers import best_constant
from forgetmenot.cost import Cost
from forgetmenot.data.examples import EncodedRun, ScoringSet, TaskExamples
from forgetmenot.data.mix import Mixing
from forgetmenot.datamodule import AdaptationData
from forgetmenot.forgetting import (
    BY_CONSTRUCTION,
    LOSS_ONLY,
    Value,
    counts,
    improvement,
    mean_forgetting,
    mean_over_targets,
    reason_not_counted,
)
from forgetmenot.metric import CHOICE_NAME, DIVERGENCE
from forgetmenot.result import (
    CostSection,
    DataSection,
    Interval,
    MethodSection,
    MixtureShare,
    RunResult,
    Scores,
    TaskSection,
)
from forgetmenot.scores import interval, resampled
from forgetmenot.scoring import Measured

V = TypeVar("V")


def record_scores(
    result: RunResult,
    tests: Sequence[ScoringSet],
    *,
    before: Mapping[str, Measured],
    after: Mapping[str, Measured] | None,
    unchanged: Collection[str] = (),
) -> None:
    """Fills tasks, gain and forgetting with their intervals.

    `after` is None while it is not known, or where there is one model alone; `unchanged` names the tasks that answer as
    before by construction.
    """
    targets, retained = ([data.task.name for data in tests if data.role == role] for role in ("target", "retained"))
    models = [before] if after is None else [before, after]
    scores = {data.task.name: [model[data.task.name].scores for model in models] for data in tests}
    points = {name: [each.totals for each in both] for name, both in scores.items()}
    draws = {name: resampled(both, seed=_seed(name)) for name, both in scores.items()}
    result.tasks = {data.task.name: _task_section(data, points, draws) for data in tests}
    reasons = {data.task.name: _reason(data, before[data.task.name]) for data in tests if data.role == "retained"}
    reasons |= {name: BY_CONSTRUCTION for name in reasons if reasons[name] is None and name in unchanged}
    for name, reason in reasons.items():
        result.tasks[name] |= {"counted": counts(reason), "reason": reason}
    if after is None:
        return
    better, better_R = _improvements(tests, points), _improvements(tests, draws)
    lost = {name: 0.0 - better[name] for name in retained}  # 0.0 - 0.0 is 0.0, and -0.0 reads oddly
    lost_R = {name: 0.0 - better_R[name] for name in retained}
    mean_R = mean_forgetting(lost_R, reasons)
    _record_gain(result, {name: better[name] for name in targets}, {name: better_R[name] for name in targets})
    result.forgetting = {"tasks": lost, "mean": mean_forgetting(lost, reasons)}
    result.forgetting_ci = {
        "tasks": {name: interval(values_R) for name, values_R in lost_R.items()},
        "mean": None if mean_R is None else interval(mean_R),
    }


def _record_gain(result: RunResult, gain: Scores, gain_R: Mapping[str, np.ndarray]) -> None:
    """Fills what each target gained, and the mean over them: test sets of several are resampled each by itself."""
    metrics = {name: task["metric"] for name, task in result.targets.items()}
    result.gain, result.gain_mean = gain, mean_over_targets(gain, metrics)
    result.gain_ci = {name: interval(values_R) for name, values_R in gain_R.items()}
    result.gain_mean_ci = interval(mean_over_targets(gain_R, metrics))


def record_drift(
    result: RunResult, tests: Sequence[ScoringSet], *, after: Mapping[str, Measured], weights: float
) -> None:
    """Fills drift: how far the adapted model is from its base on every retained task, and in its weights."""
    scores = {data.task.name: after[data.task.name].scores for data in tests if data.role == "retained"}
    draws = {name: resampled([of_task], seed=_seed(name))[0] for name, of_task in scores.items()}
    result.drift = {
        "kl": {name: of_task.totals[DIVERGENCE] for name, of_task in scores.items()},
        "kl_ci": {name: interval(draw[DIVERGENCE]) for name, draw in draws.items()},
        "weights": weights,
    }


def _seed(task: str) -> tuple[int, int]:
    """Returns what draws a task's test examples, the same for every score of every run."""
    return 0, zlib.crc32(task.encode())


def _task_section(
    data: ScoringSet,
    points: Mapping[str, Sequence[Mapping[str, float]]],
    draws: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
) -> TaskSection:
    """Returns the section of one task: its scores, and the interval of each."""
    before, *after = points[data.task.name]
    before_ci, *after_ci = (
        {name: interval(values_R) for name, values_R in draw.items()} for draw in draws[data.task.name]
    )
    return {
        "role": data.role,
        "metric": data.task.metric,
        "examples": len(data.examples),
        "before": dict(before),
        "after": _but_divergence(after[0]) if after else None,
        "ci": {"before": before_ci, "after": _but_divergence(after_ci[0]) if after_ci else None},
    }


def _but_divergence(values: Mapping[str, V]) -> dict[str, V]:
    """Returns the scores alone."""
    return {name: value for name, value in values.items() if name != DIVERGENCE}


def _improvements(tests: Sequence[ScoringSet], scores: Mapping[str, Sequence[Mapping[str, Value]]]) -> dict[str, Value]:
    """Returns how much better every task became by its own metric."""
    found = {}
    for task in (data.task for data in tests):
        before, after = scores[task.name]
        found[task.name] = improvement(task.metric, before=before[task.metric], after=after[task.metric])
    return found


def _reason(data: ScoringSet, before: Measured) -> str | None:
    if not data.task.answers:
        return LOSS_ONLY
    metric = data.task.metric
    of_answers = "exact_match" if metric == CHOICE_NAME else metric
    constant = best_constant(of_answers, data.references, accumulate=data.task.rouge_of_several)[1]
    return reason_not_counted(before.scores.of(metric), constant)


def data_section(targets: Sequence[TaskExamples], encoded: EncodedRun, *, mixing: Mixing) -> DataSection:
    """Returns the data section: how many examples, how many did not fit as they are, and of several targets the mix."""
    sets = (*encoded.validation, *(data for data in encoded.tests if data.role == "target"))
    splits = (encoded.train, *(data.rows for data in sets))
    section: DataSection = {
        "name": mixing.name,
        "train_examples": sum(len(data.train) for data in targets),
        "validation_examples": sum(len(data.validation) for data in targets),
        "test_examples": sum(len(data.test) for data in targets),
        "truncated": sum(split.truncated for split in splits),
        "dropped": sum(split.dropped for split in splits),
    }
    if len(targets) > 1 and len(encoded.train.rows):
        section["mixture"] = _mixture([data.task.name for data in targets], encoded, mixing=mixing)
    return section


def _mixture(names: Sequence[str], encoded: EncodedRun, *, mixing: Mixing) -> dict[str, MixtureShare]:
    """Returns the targets' shares of an epoch, in examples and in tokens."""
    sizes = encoded.sizes[: len(names)]
    counts = np.array(mixing.counts(sizes))
    ends = np.cumsum(sizes)
    lengths = np.array([rows.mean() for rows in np.split(encoded.train.lengths[: ends[-1]], ends[:-1])])
    shares = zip(names, counts / counts.sum(), counts * lengths / (counts @ lengths), strict=True)
    return {name: {"examples": float(examples), "tokens": float(tokens)} for name, examples, tokens in shares}


def method_section(name: str, model: PreTrainedModel, *, lr: float | None, parameters: int) -> MethodSection:
    """Returns the method section; the saved size is known later."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "name": name,
        "lr": lr,
        "trainable_parameters": trained,
        "trainable_percent": 100 * trained / parameters,
        "saved_bytes": None,
    }


def cost_section(cost: Cost, *, data: AdaptationData, evaluate_seconds: float, virtual_tokens: int) -> CostSection:
    """Returns the cost section; the targets' test sets tell how long the prompts are."""
    return {
        "train_seconds": cost.train_seconds,
        "loading_seconds": data.loading_seconds,
        "train_tokens": cost.train_tokens,
        "train_tokens_per_second": cost.train_tokens / cost.train_seconds if cost.train_seconds else None,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "evaluate_seconds": evaluate_seconds,
        "prompt_tokens_per_example": _prompt_tokens(data.tests, virtual_tokens),
    }


def evaluation_cost(tests: Sequence[ScoringSet], *, seconds: float, virtual_tokens: int) -> CostSection:
    """Returns the cost section of an evaluation, in which nothing was trained."""
    return {
        "train_seconds": None,
        "loading_seconds": None,
        "train_tokens": None,
        "train_tokens_per_second": None,
        "peak_memory_bytes": None,
        "evaluate_seconds": seconds,
        "prompt_tokens_per_example": _prompt_tokens(tests, virtual_tokens),
    }


def _prompt_tokens(tests: Sequence[ScoringSet], virtual_tokens: int) -> float | None:
    """Returns the mean over all prompts of the targets that answer."""
    asked = [data.rows.rows.prompt_lengths for data in tests if data.role == "target" and data.task.answers]
    return float(np.concatenate(asked).mean()) + virtual_tokens if asked else None


def objective(name: str, *, result: RunResult, validation: Mapping[str, float]) -> float | None:
    """Returns what a sweep judges by: `val.<score>`, `gain`, `forgetting.mean` or `after.<score>`.

    A score is a metric of the one target; of several `<task>.<metric>`, or `mean` over them, as gain is.
    """
    assert result.gain is not None and result.forgetting is not None
    where, _, score = name.partition(".")
    task, _, metric = score.rpartition(".")
    if where == "val":
        return float(validation[f"val/{task}/{metric}" if task else f"val/{metric}"])
    if where == "after":
        return result.after_mean if score == "mean" else _after(result, task)[metric]
    return result.forgetting["mean"] if where == "forgetting" else result.gain_mean


def _after(result: RunResult, task: str) -> Scores:
    """Returns what a target scored after, or the one that there is."""
    section = result.targets[task] if task else next(iter(result.targets.values()))
    assert section["after"] is not None
    return section["after"]


def metrics(result: RunResult) -> dict[str, float]:
    """Returns the outcome under the names that W&B and metrics.jsonl use."""
    named: dict[str, float | None] = {}
    for task, facts in (result.tasks or {}).items():
        for when in ("before", "after"):
            named |= {f"{when}/{task}/{name}": value for name, value in (facts[when] or {}).items()}
    named |= {f"gain/{task}": value for task, value in (result.gain or {}).items()}
    named["gain/mean"] = result.gain_mean if _has_several(result) else None
    forgetting = result.forgetting or {"tasks": {}, "mean": None}
    named |= {f"forgetting/{task}": value for task, value in forgetting["tasks"].items()}
    named["forgetting/mean"] = forgetting["mean"]
    for key, ends in _intervals(result).items():
        named |= {f"{key}/low": ends[0], f"{key}/high": ends[1]}
    if result.drift is not None:
        named |= {f"drift/kl/{task}": value for task, value in result.drift["kl"].items()}
        named["drift/weights"] = result.drift["weights"]
    cost = cast(Mapping[str, float | None], result.cost or {})
    named |= {f"cost/{name}": value for name, value in cost.items()}
    return {name: value for name, value in named.items() if value is not None and math.isfinite(value)}


def _has_several(result: RunResult) -> bool:
    """Tells whether there are several targets, whose mean is a figure of its own."""
    return len(result.gain or {}) > 1


def _intervals(result: RunResult) -> dict[str, Interval]:
    """Returns the ends of the intervals of gain, forgetting, drift and all scores, by the name of the figure."""
    ends = {f"gain/{task}": interval for task, interval in (result.gain_ci or {}).items()}
    if result.gain_mean_ci is not None and _has_several(result):
        ends["gain/mean"] = result.gain_mean_ci
    forgotten = result.forgetting_ci or {"tasks": {}, "mean": None}
    ends |= {f"forgetting/{task}": interval for task, interval in forgotten["tasks"].items()}
    diverged = result.drift.get("kl_ci", {}) if result.drift is not None else {}
    ends |= {f"drift/kl/{task}": interval for task, interval in diverged.items()}
    if forgotten["mean"] is not None:
        ends["forgetting/mean"] = forgotten["mean"]
    for task, section in (result.tasks or {}).items():
        ci = section.get("ci") or {"before": {}, "after": None}
        for when, scores in (("before", ci["before"]), ("after", ci["after"] or {})):
            ends |= {f"{when}/{task}/{name}": interval for name, interval in scores.items()}
    return ends
