"""The head's memory, measured in a process of its own; what it computes is tested beside the loss."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forgetmenot.model.head import BYTES_PER_LOGIT, LOGITS_AT_ONCE

PROGRAM = Path(__file__).with_name("head_memory.py")
ALL_LOGITS = 152_000 * 400 * 8
REST = 1.2  # the other layers' activations, and what the allocator keeps


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak of resident memory")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_head_of_152000_entries_stays_within_its_budget_for_summaries_of_400_tokens(dtype: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), dtype],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parents[1])},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    budget = LOGITS_AT_ONCE * BYTES_PER_LOGIT

    assert int(done.stdout) <= REST * budget
    assert 10 * budget < ALL_LOGITS * BYTES_PER_LOGIT, "without a budget it would be ten times as much"
