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
from forgetmenot.datamodule import AdaptationData
from forgetmenot.forgetting import (
    BY_CONSTRUCTION,
    LOSS_ONLY,
    Value,
    counts,
    improvement,
    mean_forgetting,
    reason_not_counted,
)
from forgetmenot.metric import CHOICE_NAME, DIVERGENCE
from forgetmenot.result import CostSection, DataSection, Interval, MethodSection, RunResult, TaskSection
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
    """Fills tasks, gain and forgetting with their intervals; the first test set is the target.

    `after` is None while it is not known, or where there is one model alone; `unchanged` names the tasks that answer as
    before by construction.
    """
    target, *retained = (data.task.name for data in tests)
    models = [before] if after is None else [before, after]
    scores = {data.task.name: [model[data.task.name].scores for model in models] for data in tests}
    points = {name: [each.totals for each in both] for name, both in scores.items()}
    draws = {name: resampled(both, seed=(0, zlib.crc32(name.encode()))) for name, both in scores.items()}
    result.tasks = {data.task.name: _task_section(data, points, draws) for data in tests}
    reasons = {data.task.name: _reason(data, before[data.task.name]) for data in tests[1:]}
    reasons |= {name: BY_CONSTRUCTION for name in reasons if reasons[name] is None and name in unchanged}
    for name, reason in reasons.items():
        result.tasks[name] |= {"role": "retained", "counted": counts(reason), "reason": reason}
    if after is None:
        return
    better, better_R = _improvements(tests, points), _improvements(tests, draws)
    lost = {name: 0.0 - better[name] for name in retained}  # 0.0 - 0.0 is 0.0, and -0.0 reads oddly
    lost_R = {name: 0.0 - better_R[name] for name in retained}
    mean_R = mean_forgetting(lost_R, reasons)
    result.gain, result.gain_ci = {target: better[target]}, {target: interval(better_R[target])}
    result.forgetting = {"tasks": lost, "mean": mean_forgetting(lost, reasons)}
    result.forgetting_ci = {
        "tasks": {name: interval(values_R) for name, values_R in lost_R.items()},
        "mean": None if mean_R is None else interval(mean_R),
    }


def record_drift(
    result: RunResult, tests: Sequence[ScoringSet], *, after: Mapping[str, Measured], weights: float
) -> None:
    """Fills drift: how far the adapted model is from its base on every retained task, and in its weights."""
    totals = {data.task.name: after[data.task.name].scores.totals for data in tests[1:]}
    result.drift = {"kl": {name: scores[DIVERGENCE] for name, scores in totals.items()}, "weights": weights}


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
        "role": "target",
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


def data_section(target: TaskExamples, encoded: EncodedRun) -> DataSection:
    """Returns the data section: how many examples, and how many did not fit as they are."""
    splits = (encoded.train, encoded.validation.rows, encoded.tests[0].rows)
    return {
        "name": target.task.name,
        "train_examples": len(target.train),
        "validation_examples": len(target.validation),
        "test_examples": len(target.test),
        "truncated": sum(split.truncated for split in splits),
        "dropped": sum(split.dropped for split in splits),
    }


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
    """Returns the cost section; the first test set tells how long the prompts are."""
    return {
        "train_seconds": cost.train_seconds,
        "loading_seconds": data.loading_seconds,
        "train_tokens": cost.train_tokens,
        "train_tokens_per_second": cost.train_tokens / cost.train_seconds if cost.train_seconds else None,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "evaluate_seconds": evaluate_seconds,
        "prompt_tokens_per_example": _prompt_tokens(data.tests[0], virtual_tokens),
    }


def evaluation_cost(target: ScoringSet, *, seconds: float, virtual_tokens: int) -> CostSection:
    """Returns the cost section of an evaluation, in which nothing was trained."""
    return {
        "train_seconds": None,
        "loading_seconds": None,
        "train_tokens": None,
        "train_tokens_per_second": None,
        "peak_memory_bytes": None,
        "evaluate_seconds": seconds,
        "prompt_tokens_per_example": _prompt_tokens(target, virtual_tokens),
    }


def _prompt_tokens(target: ScoringSet, virtual_tokens: int) -> float | None:
    return float(target.rows.rows.prompt_lengths.mean()) + virtual_tokens if target.task.answers else None


def objective(name: str, *, result: RunResult, validation: Mapping[str, float]) -> float | None:
    """Returns what a sweep judges by: `val.<metric>`, `gain`, `forgetting.mean` or `after.<metric>` of the target."""
    assert result.tasks is not None and result.gain is not None and result.forgetting is not None
    where, _, metric = name.partition(".")
    if where == "val":
        return float(validation[f"val/{metric}"])
    if where == "after":
        assert result.target is not None and result.target["after"] is not None
        return result.target["after"][metric]
    return result.forgetting["mean"] if where == "forgetting" else next(iter(result.gain.values()))


def metrics(result: RunResult) -> dict[str, float]:
    """Returns the outcome under the names that W&B and metrics.jsonl use."""
    named: dict[str, float | None] = {}
    for task, facts in (result.tasks or {}).items():
        for when in ("before", "after"):
            named |= {f"{when}/{task}/{name}": value for name, value in (facts[when] or {}).items()}
    named |= {f"gain/{task}": value for task, value in (result.gain or {}).items()}
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


def _intervals(result: RunResult) -> dict[str, Interval]:
    """Returns the ends of every interval of gain and forgetting, by the name of its figure."""
    ends = {f"gain/{task}": interval for task, interval in (result.gain_ci or {}).items()}
    forgotten = result.forgetting_ci or {"tasks": {}, "mean": None}
    ends |= {f"forgetting/{task}": interval for task, interval in forgotten["tasks"].items()}
    return ends if forgotten["mean"] is None else {**ends, "forgetting/mean": forgotten["mean"]}
