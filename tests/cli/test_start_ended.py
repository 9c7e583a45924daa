"""Ctrl-C while the ranks of a run are still being started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import read_result

pytestmark = pytest.mark.slow

SHIM = Path(__file__).resolve().parents[2] / "train.py"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_ctrl_c_while_the_first_rank_waits_for_the_others_interrupts_the_run(
    tmp_path: Path, tiny_arguments: list[str], strategy: str
) -> None:
    ranks = (f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.devices=2")
    process = subprocess.Popen(
        [sys.executable, str(SHIM), *tiny_arguments, *ranks, "method=lora", "hydra.run.dir=run"],
        cwd=tmp_path, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    log, deadline = tmp_path / "run" / "run.log", time.monotonic() + 240
    while not (log.exists() and "GLOBAL_RANK: 0" in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert read_result(tmp_path / "run")["status"] == "interrupted"
    assert output.splitlines().count("interrupted") == 1 and "error" not in output, output
