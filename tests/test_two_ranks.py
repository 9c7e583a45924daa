"""Two processes that train one model: the loss and the weights of one, also after memory ran out on one of them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_models import collator_of
from tiny_training import plain_loop
from two_ranks import (
    BATCH,
    CASES,
    CUT,
    PENALIZED,
    SHORT,
    STEPS,
    WHOLE,
    Case,
    adapted,
    base,
    examples,
    plan,
    trained,
)

from forgetmenot.data.types import Step

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("two_ranks.py")
PYTHONPATH = os.pathsep.join(filter(None, (str(PROGRAM.parent), os.environ.get("PYTHONPATH"))))


@dataclass(frozen=True, kw_only=True)
class OnTwo:
    """What each case came to on two ranks, and what they told."""

    came_to: dict[Case, dict[str, object]]
    told: str


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> OnTwo:
    file = tmp_path_factory.mktemp("ranks") / "two.pt"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(file)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return OnTwo(came_to=dict(zip(CASES, torch.load(file, weights_only=True), strict=True)), told=done.stderr)


@pytest.fixture(scope="module")
def held_alone() -> dict[str, object]:
    """What one process comes to under penalties."""
    return trained(PENALIZED[0], ranks=1)


def whole_steps() -> list[Step]:
    """Returns the plan's steps, each in one padded batch."""
    rows, collator, chosen = examples(), collator_of(base()), plan(1000)
    members = [[rows[i] for i in chosen.examples(number)] for number in range(STEPS)]
    return [
        Step(
            number=number,
            examples=(),
            micro_batches=(collator.rows(step),),
            weights=(1.0,),
            supervised_tokens=sum(row.num_supervised for row in step),
            num_tokens=0,
        )
        for number, step in enumerate(members)
    ]


@pytest.mark.parametrize("case", [WHOLE, CUT], ids=["whole", "cut"])
def test_two_ranks_learn_what_a_plain_loop_learns_from_whole_steps(on_two: OnTwo, case: Case) -> None:
    ours = on_two.came_to[case]
    plain = adapted(base(), dropout=0.0)
    losses = plain_loop(plain, whole_steps())

    assert len(plan(1000).examples(STEPS - 1)) < BATCH, "the last step is a smaller one"
    assert ours["losses"] == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(ours["weights"], dict(plain.named_parameters()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", SHORT, ids=["first step", "fourth step"])
def test_a_step_that_runs_out_of_memory_on_one_rank_is_repeated_by_all_as_if_it_had_been_cut_so(
    on_two: OnTwo, case: Case
) -> None:
    short, reference = on_two.came_to[case], on_two.came_to[SHORT[case]]

    assert short["micro_batch_tokens"] == SHORT[case].micro_batch_tokens < case.micro_batch_tokens
    assert f"out of memory at step {case.short_at}: micro_batch_tokens goes from 60 to " in on_two.told
    assert len(short["losses"]) == STEPS
    exact = {"rtol": 0, "atol": 0} if case.short_at == 0 else {"rtol": 1e-5, "atol": 1e-6}  # from step 0, cut alike
    torch.testing.assert_close(short["weights"], reference["weights"], **exact)


@pytest.mark.parametrize("case", PENALIZED, ids=["whole", "cut", "out of memory"])
def test_two_ranks_learn_under_penalties_what_one_does(
    on_two: OnTwo, held_alone: dict[str, object], case: Case
) -> None:
    ours, alone = on_two.came_to[case], held_alone

    assert ours["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert alone["penalties"][-1].keys() == {f"train/penalty/{name}" for name in ("l2_sp", "ewc", "kl")}
    for both, one in zip(ours["penalties"], alone["penalties"], strict=True):
        assert both == pytest.approx(one, rel=1e-4, abs=1e-6)
    assert all(value > 1e-4 for value in alone["penalties"][-1].values())
    torch.testing.assert_close(ours["weights"], alone["weights"], rtol=1e-5, atol=1e-6)


def test_two_ranks_with_unequal_counts_of_examples_score_as_one_process(tmp_path: Path) -> None:
    came_to: dict[int, list[dict[str, object]]] = {}
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, str(PROGRAM.with_name("scoring_ranks.py")), str(folder), str(ranks)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH},
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        came_to[ranks] = [json.loads(file.read_text()) for file in sorted(folder.iterdir())]
    (alone,), both = came_to[1], came_to[2]

    assert len(both) == 2
    assert sorted(rank["seen"] for rank in both) == [5, 7]
    for rank in both:
        assert rank["val"] == pytest.approx(alone["val"], rel=1e-6)
        for scores in ("test", "answers", "each"):
            assert rank[scores] == alone[scores], "to the last digit: batches are the same"


def test_two_ranks_log_of_each_task_what_one_process_logs(tmp_path: Path) -> None:
    logged: dict[int, list[dict[str, float]]] = {}
    for ranks in (1, 2):
        file = tmp_path / f"{ranks}.json"
        done = subprocess.run(
            [sys.executable, str(PROGRAM.with_name("mixed_ranks.py")), str(file), str(ranks)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parent)},
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        logged[ranks] = json.loads(file.read_text())

    assert len(logged[1]) == len(logged[2]) == 6, "11 rows of the targets, 4 a step, two epochs"
    for alone, both in zip(logged[1], logged[2], strict=True):
        assert {"train/mood/loss", "train/names/loss", "train/kept/loss", "train/replayed_tokens"} <= alone.keys()
        assert both == pytest.approx(alone, rel=1e-5, nan_ok=True)
