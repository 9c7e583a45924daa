"""What `make` says where it cannot do what it is asked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_tests_on_a_gpu_say_that_none_ran_where_there_is_no_gpu() -> None:
    own = f"BIN={Path(sys.executable).parent}"
    done = subprocess.run(
        ["make", "--no-print-directory", "--old-file=install", "--old-file=.venv/installed", "test-gpu", own],
        cwd=TOP, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        "error: make test-gpu must have a CUDA device, got none that torch finds; no test ran"
    )
    assert done.stdout == ""
