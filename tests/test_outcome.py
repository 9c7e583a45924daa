"""What measurements come to: tasks, gain, forgetting, and their names in metrics.jsonl."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_tasks import make_task
from torch import nn

from forgetmenot.data.examples import EncodedRun, ScoringSet, TaskExamples
from forgetmenot.data.mix import Mixing
from forgetmenot.data.rows import EncodedSplit, Rows
from forgetmenot.data.types import Example
from forgetmenot.outcome import (
    cost_section,
    data_section,
    method_section,
    metrics,
    objective,
    record_drift,
    record_scores,
)
from forgetmenot.result import Role, RunResult
from forgetmenot.scores import ExampleScores
from forgetmenot.scoring import Measured

NUM_EXAMPLES = 20


def _set(name: str, *, metric: str = "accuracy", role: Role = "retained") -> ScoringSet:
    """Twenty examples, each with an answer of its own: no constant answers more than one of them."""
    examples = tuple(Example(prompt="?", completion=str(i), references=(str(i),)) for i in range(NUM_EXAMPLES))
    rows = Rows.of([([1] * 3, [2]), ([1] * 5, [2])], is_encoder_decoder=False)
    split = EncodedSplit(rows=rows, example_indices=np.arange(2), truncated=0, dropped=0)
    return ScoringSet(
        task=make_task(name, metric=metric), examples=examples, rows=split, num_bytes=np.ones(2), role=role
    )


def _data() -> SimpleNamespace:
    """What cost needs of a data module."""
    return SimpleNamespace(tests=[_set("mood", role="target")], loading_seconds=0.5)


def _measured(**scores: float) -> dict[str, Measured]:
    """Scores by task: accuracy is right for the share that is given, and the loss is that share for every example."""
    measured = {}
    for name, score in scores.items():
        right = np.arange(NUM_EXAMPLES) < score * NUM_EXAMPLES
        losses = np.full(NUM_EXAMPLES, score)
        names, columns = ("loss",), [losses]
        if name != "text":
            names, columns = ("accuracy", "loss"), [right, losses]
        sums = np.array(columns, dtype=float).T
        answers = () if name == "text" else tuple(str(i) if yes else "wrong" for i, yes in enumerate(right))
        task_scores = ExampleScores(names=names, sums_NS=sums, weights_NS=np.ones_like(sums))
        measured[name] = Measured(scores=task_scores, answers=answers)
    return measured


TESTS = [_set("mood", role="target"), _set("names"), _set("party"), _set("text", metric="loss")]
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


def test_what_is_unchanged_by_construction_says_so_and_counts_where_the_base_can_do_it() -> None:
    result = RunResult()
    after = {name: measured.unchanged() for name, measured in BEFORE.items()}
    record_scores(result, TESTS, before=BEFORE, after=after, unchanged=after.keys())
    record_drift(result, TESTS, after=after, weights=0.0)

    assert result.tasks is not None
    told = {name: (facts.get("counted"), facts.get("reason")) for name, facts in result.tasks.items()}
    assert told == {
        "mood": (None, None),
        "names": (True, "zero by construction"),
        "party": (False, "base cannot do it"),
        "text": (False, "loss only"),
    }
    assert result.tasks["names"]["after"] == result.tasks["names"]["before"]
    assert result.forgetting == {"tasks": {"names": 0.0, "party": 0.0, "text": 0.0}, "mean": 0.0}
    assert result.forgetting_ci == {
        "tasks": {"names": (0.0, 0.0), "party": (0.0, 0.0), "text": (0.0, 0.0)},
        "mean": (0.0, 0.0),
    }
    assert result.drift is not None and result.drift["weights"] == 0.0
    assert result.drift["kl"] == {"names": 0.0, "party": 0.0, "text": 0.0}


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
    assert "gain/mean" not in named, "of one target it is its own"
    assert named["gain/mood"] == 0.5 and named["forgetting/names"] == 0.25 and named["forgetting/mean"] == 0.25
    assert named["cost/train_seconds"] == 2.0 and "cost/train_tokens_per_second" not in named


def test_metrics_have_the_interval_of_every_score_that_the_result_has(result: RunResult) -> None:
    logged = metrics(result)
    assert result.tasks is not None
    for task, section in result.tasks.items():
        for when in ("before", "after"):
            for name, ends in section["ci"][when].items():
                assert tuple(logged[f"{when}/{task}/{name}/{end}"] for end in ("low", "high")) == ends
    assert {"before/mood/loss/low", "after/text/loss/high"} <= logged.keys()


def test_metrics_leave_out_what_is_not_known() -> None:
    assert metrics(RunResult()) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [("val.accuracy", 0.9), ("gain", 0.5), ("forgetting.mean", 0.25), ("after.accuracy", 0.75), ("after.loss", 0.75)],
)
def test_a_sweep_judges_by_the_objective_that_is_named(result: RunResult, name: str, value: float) -> None:
    assert objective(name, result=result, validation={"val/accuracy": 0.9}) == value


def test_of_several_targets_each_has_its_gain_and_the_mean_is_over_those_that_answer() -> None:
    tests = [
        replace(data, role=role) for data, role in zip(TESTS, ["target", "target", "retained", "target"], strict=True)
    ]
    result = RunResult()
    record_scores(result, tests, before=BEFORE, after=AFTER)
    assert result.gain == {"mood": 0.5, "names": -0.25, "text": -0.5}
    assert result.gain_ci is not None and set(result.gain_ci) == set(result.gain)
    assert result.forgetting is not None and set(result.forgetting["tasks"]) == {"party"}
    low, high = result.gain_mean_ci or (1.0, 0.0)
    widest = max(upper - lower for lower, upper in (result.gain_ci["mood"], result.gain_ci["names"]))
    assert low < 0.125 < high and high - low < widest, "of two test sets the mean is surer than of one"
    logged = metrics(result)
    assert [logged[f"gain/mean{end}"] for end in ("", "/low", "/high")] == [0.125, low, high]
    assert (result.gain_mean, result.after_mean) == (0.125, 0.625), "of mood and names: a loss has no mean with them"
    validation = {"val/mean": 0.4, "val/names/accuracy": 0.3}
    named = ["gain", "val.mean", "val.names.accuracy", "after.mean", "after.text.loss"]
    judged = [objective(name, result=result, validation=validation) for name in named]
    assert judged == [0.125, 0.4, 0.3, 0.625, 2.5]


def test_the_data_section_tells_each_targets_share_of_examples_and_of_tokens() -> None:
    rows = Rows.of([([1] * 3, [2])] * 4 + [([1] * 11, [2])] * 2, is_encoder_decoder=False)
    train = EncodedSplit(rows=rows, example_indices=np.arange(6), truncated=1, dropped=2)
    sets = tuple(_set(name, role="target") for name in ("mood", "names"))
    encoded = EncodedRun(train=train, sizes=(4, 2), validation=sets, tests=sets)
    targets = [TaskExamples(task=data.task, train=data.examples, validation=(), test=()) for data in sets]
    section = data_section(
        targets, encoded, mixing=replace(Mixing.of_one("both"), mixing="weighted", weights=(1.0, 1.0))
    )
    assert (section["name"], section["train_examples"]) == ("both", 2 * NUM_EXAMPLES)
    assert (section["truncated"], section["dropped"]) == (1, 2)
    assert section["mixture"] == {
        "mood": {"examples": 0.5, "tokens": 0.25}, "names": {"examples": 0.5, "tokens": 0.75},
    }  # fmt: skip


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


def test_every_score_and_difference_has_an_interval_around_it(result: RunResult) -> None:
    assert result.tasks is not None and result.gain is not None and result.gain_ci is not None
    for task in result.tasks.values():
        for when in ("before", "after"):
            assert set(task["ci"][when]) == set(task[when])
            assert all(low <= task[when][name] <= high for name, (low, high) in task["ci"][when].items())
    low, high = result.gain_ci["mood"]
    assert 0 < low < result.gain["mood"] < high < 1


def test_forgetting_has_an_interval_for_each_task_and_for_the_mean_over_those_that_count(result: RunResult) -> None:
    assert result.forgetting_ci is not None
    assert set(result.forgetting_ci["tasks"]) == {"names", "party", "text"}
    assert result.forgetting_ci["mean"] == result.forgetting_ci["tasks"]["names"]  # the only one that counts
    assert result.forgetting_ci["tasks"]["text"] == (0.5, 0.5)  # every example became as much worse


def test_a_mean_over_nothing_has_no_interval() -> None:
    result = RunResult()
    record_scores(result, TESTS[:1], before=BEFORE, after=AFTER)
    assert result.forgetting_ci == {"tasks": {}, "mean": None}


def test_drift_is_recorded_for_retained_tasks_and_is_no_score() -> None:
    after = dict(AFTER)
    for name in ("names", "party", "text"):
        scores = AFTER[name].scores
        column = np.linspace(0.0, 0.5, NUM_EXAMPLES)[:, None]
        wider = ExampleScores(
            names=(*scores.names, "kl"),
            sums_NS=np.hstack([scores.sums_NS, column]),
            weights_NS=np.hstack([scores.weights_NS, np.ones_like(column)]),
        )
        after[name] = Measured(scores=wider, answers=AFTER[name].answers)
    result = RunResult()

    record_scores(result, TESTS, before=BEFORE, after=after)
    record_drift(result, TESTS, after=after, weights=0.125)

    assert result.drift is not None and result.drift["weights"] == 0.125
    assert result.drift["kl"] == pytest.approx({"names": 0.25, "party": 0.25, "text": 0.25})
    low, high = result.drift["kl_ci"]["names"]
    assert 0.0 < low < 0.25 < high < 0.5
    assert result.tasks is not None
    assert all("kl" not in task["after"] and "kl" not in task["ci"]["after"] for task in result.tasks.values())
    logged = metrics(result)
    assert logged["drift/kl/names"] == pytest.approx(0.25) and logged["drift/weights"] == 0.125
    assert (logged["drift/kl/names/low"], logged["drift/kl/names/high"]) == (low, high)
