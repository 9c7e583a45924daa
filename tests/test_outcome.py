"""What measurements come to: tasks, gain, forgetting, and their names in metrics.jsonl."""

from types import SimpleNamespace

import numpy as np
import pytest
from tiny_tasks import make_task
from torch import nn

from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.rows import EncodedSplit, Rows
from forgetmenot.data.types import Example
from forgetmenot.outcome import Measured, cost_section, method_section, metrics, objective, record_scores
from forgetmenot.result import RunResult

NUM_EXAMPLES = 20


def _set(name: str, *, metric: str = "accuracy") -> ScoringSet:
    """Twenty examples, each with an answer of its own: no constant answers more than one of them."""
    examples = tuple(Example(prompt="?", completion=str(i), references=(str(i),)) for i in range(NUM_EXAMPLES))
    rows = Rows.of([([1] * 3, [2]), ([1] * 5, [2])], is_encoder_decoder=False)
    split = EncodedSplit(rows=rows, example_indices=np.arange(2), truncated=0, dropped=0)
    return ScoringSet(task=make_task(name, metric=metric), examples=examples, rows=split)


def _data() -> SimpleNamespace:
    """What cost needs of a data module."""
    return SimpleNamespace(tests=[_set("mood")], loading_seconds=0.5)


def _measured(**scores: float) -> Measured:
    """Scores by task; the answers are right for the share that the score tells."""
    answers = {
        name: [str(i) if i < score * NUM_EXAMPLES else "wrong" for i in range(NUM_EXAMPLES)]
        for name, score in scores.items()
    }
    return Measured(
        scores={name: {"accuracy": score, "loss": score} for name, score in scores.items()},
        answers={**answers, "text": []},
        seconds=1.0,
    )


TESTS = [_set("mood"), _set("names"), _set("party"), _set("text", metric="loss")]
BEFORE = _measured(mood=0.25, names=0.75, party=0.0, text=2.0)
AFTER = _measured(mood=0.75, names=0.5, party=0.0, text=2.5)


@pytest.fixture
def result() -> RunResult:
    """A result with scores before and after."""
    recorded = RunResult()
    record_scores(recorded, TESTS, before=BEFORE, after=AFTER)
    return recorded


def test_gain_is_what_the_target_became_better(result: RunResult) -> None:
    assert result.gain == {"mood": 0.5}


def test_forgetting_is_positive_where_a_task_became_worse_in_scores_and_in_losses(result: RunResult) -> None:
    assert result.forgetting is not None
    assert result.forgetting["tasks"] == {"names": 0.25, "party": 0.0, "text": 0.5}


def test_the_mean_covers_what_counts_alone(result: RunResult) -> None:
    assert result.forgetting is not None and result.forgetting["mean"] == 0.25


def test_what_does_not_count_tells_its_reason(result: RunResult) -> None:
    assert result.tasks is not None
    told = {name: (facts.get("counted"), facts.get("reason")) for name, facts in result.tasks.items()}
    assert told == {
        "mood": (None, None),
        "names": (True, None),
        "party": (False, "base cannot do it"),
        "text": (False, "loss only"),
    }


def test_a_mean_over_nothing_is_none_and_not_zero() -> None:
    result = RunResult()
    record_scores(result, TESTS[:1], before=BEFORE, after=AFTER)
    assert result.forgetting == {"tasks": {}, "mean": None}


def test_a_task_that_stayed_as_it_was_has_forgotten_zero_and_not_minus_zero(result: RunResult) -> None:
    assert result.forgetting is not None
    assert str(result.forgetting["tasks"]["party"]) == "0.0"


def test_while_after_is_not_known_gain_and_forgetting_are_not_either() -> None:
    result = RunResult()
    record_scores(result, TESTS, before=BEFORE, after=None)
    assert (result.gain, result.forgetting) == (None, None)
    assert result.tasks is not None
    assert result.tasks["mood"]["before"] == {"accuracy": 0.25, "loss": 0.25} and result.tasks["mood"]["after"] is None


def test_metrics_have_the_names_of_the_design(result: RunResult) -> None:
    result.cost = {"train_seconds": 2.0, "train_tokens": 10, "train_tokens_per_second": None}
    named = metrics(result)
    assert named["before/mood/accuracy"] == 0.25 and named["after/mood/accuracy"] == 0.75
    assert named["gain/mood"] == 0.5 and named["forgetting/names"] == 0.25 and named["forgetting/mean"] == 0.25
    assert named["cost/train_seconds"] == 2.0 and "cost/train_tokens_per_second" not in named


def test_metrics_leave_out_what_is_not_known() -> None:
    assert metrics(RunResult()) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [("val.accuracy", 0.9), ("gain", 0.5), ("forgetting.mean", 0.25), ("after.accuracy", 0.75), ("after.loss", 0.75)],
)
def test_a_sweep_judges_by_the_objective_that_is_named(result: RunResult, name: str, value: float) -> None:
    assert objective(name, result=result, validation={"val/accuracy": 0.9}) == value


def test_method_facts_count_what_is_trained_against_the_base() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    facts = method_section("lora", model, lr=0.1, parameters=24)  # type: ignore[arg-type]
    assert facts == {
        "name": "lora", "lr": 0.1, "trainable_parameters": 6, "trainable_percent": 25.0, "saved_bytes": None,
    }  # fmt: skip


def test_cost_counts_virtual_tokens_into_the_prompts_length() -> None:
    cost = SimpleNamespace(train_seconds=2.0, train_tokens=10, peak_memory_bytes=7)
    facts = cost_section(cost, data=_data(), evaluate_seconds=3.0, virtual_tokens=20)  # type: ignore[arg-type]
    assert facts == {
        "train_seconds": 2.0, "loading_seconds": 0.5, "train_tokens": 10, "train_tokens_per_second": 5.0,
        "peak_memory_bytes": 7, "evaluate_seconds": 3.0, "prompt_tokens_per_example": 24.0,
    }  # fmt: skip


def test_cost_of_a_training_that_took_no_time_has_no_speed() -> None:
    cost = SimpleNamespace(train_seconds=0.0, train_tokens=0, peak_memory_bytes=None)
    facts = cost_section(cost, data=_data(), evaluate_seconds=0.0, virtual_tokens=0)  # type: ignore[arg-type]
    assert facts["train_tokens_per_second"] is None


def test_what_a_callback_measured_is_taken_over() -> None:
    scoring = SimpleNamespace(scores={"a": {"loss": 1.0}}, answers={"a": ["x"]}, test_seconds=2.0)
    measured = Measured.of(scoring)  # type: ignore[arg-type]
    scoring.scores.clear()
    assert (measured.scores, measured.answers, measured.seconds) == ({"a": {"loss": 1.0}}, {"a": ["x"]}, 2.0)
