"""What a run's measurements come to: the sections of result.json that scores, method, data and cost fill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, cast

from transformers import PreTrainedModel

from forgetmenot.callbacks import Cost, Scoring
from forgetmenot.data.examples import EncodedRun, ScoringSet, TaskExamples
from forgetmenot.datamodule import AdaptationData
from forgetmenot.forgetting import LOSS_ONLY, improvement, mean_forgetting, reason_not_counted
from forgetmenot.metric import best_constant, per_answer
from forgetmenot.result import CostSection, DataSection, MethodSection, RunResult, TaskSection


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Scores and answers of every test set, the target's first, and how long they took."""

    scores: Mapping[str, Mapping[str, float]]
    answers: Mapping[str, Sequence[str]]
    seconds: float

    @classmethod
    def of(cls, scoring: Scoring) -> Self:
        """Takes what a test left in its callback."""
        return cls(scores=dict(scoring.scores), answers=dict(scoring.answers), seconds=scoring.test_seconds)


def record_scores(result: RunResult, tests: Sequence[ScoringSet], *, before: Measured, after: Measured | None) -> None:
    """Fills tasks, gain and forgetting; the first test set is the target. `after` is None while it is not known."""
    target, *retained = (data.task for data in tests)
    reasons = {data.task.name: _reason(data, before) for data in tests[1:]}
    result.tasks = {}
    for data in tests:
        name = data.task.name
        section: TaskSection = {
            "role": "target" if data.task is target else "retained",
            "metric": data.task.metric,
            "examples": len(data.examples),
            "before": dict(before.scores[name]),
            "after": None if after is None else dict(after.scores[name]),
        }
        if data.task is not target:
            section["counted"], section["reason"] = reasons[name] is None, reasons[name]
        result.tasks[name] = section
    if after is None:
        return
    better = {
        data.task.name: improvement(
            data.task.metric, before=before.scores[data.task.name], after=after.scores[data.task.name]
        )
        for data in tests
    }
    result.gain = {target.name: better[target.name]}
    lost = {task.name: 0.0 - better[task.name] for task in retained}  # 0.0 - 0.0 is 0.0, and -0.0 reads oddly
    result.forgetting = {"tasks": lost, "mean": mean_forgetting(lost, reasons)}


def _reason(data: ScoringSet, before: Measured) -> str | None:
    if not data.task.answers:
        return LOSS_ONLY
    references = [example.references for example in data.examples]
    _, constant = best_constant(data.task.metric, references)
    return reason_not_counted(per_answer(data.task.metric, before.answers[data.task.name], references), constant)


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


def method_section(name: str, model: PreTrainedModel, *, lr: float, parameters: int) -> MethodSection:
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
    target = data.tests[0]
    lengths = target.rows.rows.prompt_lengths
    return {
        "train_seconds": cost.train_seconds,
        "loading_seconds": data.loading_seconds,
        "train_tokens": cost.train_tokens,
        "train_tokens_per_second": cost.train_tokens / cost.train_seconds if cost.train_seconds else None,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "evaluate_seconds": evaluate_seconds,
        "prompt_tokens_per_example": float(lengths.mean()) + virtual_tokens if target.task.answers else None,
    }


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
    cost = cast(Mapping[str, float | None], result.cost or {})
    named |= {f"cost/{name}": value for name, value in cost.items()}
    return {name: value for name, value in named.items() if value is not None}
