"""Average accuracy and backward transfer, on a matrix worked out by hand."""

import json
from pathlib import Path

import pytest

from forgetmenot.report.sequence import Transfer
from forgetmenot.result import RunResult


def stage(target: str, metric: str = "accuracy", **scores: tuple[float, float]) -> RunResult:
    """Returns a run on `target` with each task's score before and after, the target's first."""
    tasks = {
        name: {
            "role": "target" if name == target else "retained", "metric": metric, "examples": 4,
            "before": {metric: before}, "after": {metric: after},
        }
        for name, (before, after) in scores.items()
    }  # fmt: skip
    return RunResult(status="complete", tasks=tasks, gain={target: 0.0})  # type: ignore[arg-type]


STAGES = [
    stage("a", a=(0.1, 0.9)),
    stage("b", b=(0.2, 0.8), a=(0.9, 0.6)),
    stage("c", c=(0.3, 0.7), b=(0.8, 0.9), a=(0.6, 0.5)),
]


def test_the_matrix_has_every_task_after_every_stage_and_none_where_it_was_not_measured() -> None:
    assert Transfer.of(STAGES).scores == (
        (0.1, None, None),
        (0.9, 0.2, None),
        (0.6, 0.8, 0.3),
        (0.5, 0.9, 0.7),
    )


def test_average_and_backward_transfer_are_those_of_lopez_paz_and_ranzato() -> None:
    transfer = Transfer.of(STAGES)
    assert transfer.average == pytest.approx((0.5 + 0.9 + 0.7) / 3)
    assert transfer.backward == pytest.approx(((0.5 - 0.9) + (0.9 - 0.8)) / 2)
    assert transfer.sentence() == "Average accuracy 0.700, backward transfer -0.150 (below 0: forgotten)."


def test_one_task_alone_has_no_backward_transfer() -> None:
    assert Transfer.of(STAGES[:1]).backward is None
    assert Transfer.of(STAGES[:1]).average == 0.9


def test_losses_have_no_average_accuracy_and_a_lower_one_is_better() -> None:
    transfer = Transfer.of([stage("a", "loss", a=(3.0, 2.0)), stage("b", "loss", b=(3.0, 1.0), a=(2.0, 2.5))])
    assert (transfer.average, transfer.backward) == (None, -0.5)
    assert transfer.sentence() == "Backward transfer -0.500 (below 0: forgotten)."


def test_it_is_written_as_json_with_null_for_what_is_not_known(tmp_path: Path) -> None:
    Transfer.of(STAGES).write(tmp_path)
    written = json.loads((tmp_path / "sequence.json").read_text())
    assert (written["schema_version"], written["tasks"], written["scores"][0]) == (
        1,
        ["a", "b", "c"],
        [0.1, None, None],
    )
