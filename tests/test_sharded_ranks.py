"""Two processes that share a model's weights out: what one process learns, says and writes."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from sharded_ranks import FAMILIES, METHODS, answered, trained
from torch import Tensor

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("sharded_ranks.py")
PYTHONPATH = os.pathsep.join(filter(None, (str(PROGRAM.parent), os.environ.get("PYTHONPATH"))))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, object]]]:
    """What each rank came to."""
    file = tmp_path_factory.mktemp("sharded") / "ranks"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(file)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [torch.load(f"{file}.{rank}", weights_only=True) for rank in range(2)]


def flat(weights: Mapping[str, Tensor]) -> Tensor:
    """Returns all weights together."""
    return torch.cat([weight.flatten() for weight in weights.values()])


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_with_shared_out_weights_learn_what_one_process_learns(
    both: list[dict[str, dict[str, object]]], method: str
) -> None:
    alone = trained(method, ranks=1)

    assert alone.losses[-1] < alone.losses[0] - 0.1
    for rank in both:
        assert rank[method]["losses"] == pytest.approx(alone.losses, rel=1e-4)
        for ours, theirs in zip(rank[method]["penalties"], alone.penalties, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6)
        weights, expected = flat(rank[method]["weights"]), flat(alone.weights)
        assert (weights - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_ranks_whose_answers_end_early_wait_for_the_others(
    both: list[dict[str, dict[str, object]]], family: str
) -> None:
    first, second = (rank["said"][family] for rank in both)

    assert [*first, *second] == answered(family, ranks=1)
    lengths = [max(len(answer.split()) for answer in answers) for answers in (first, second)]
    assert lengths[0] != lengths[1], "one rank is done before the other"
