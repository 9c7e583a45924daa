"""What tests ask of a real Slurm, and what they wait for."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
WORDS = ("method=lora", "method.dropout=0.2", "batch_size=2", "epochs=50")  # 400 steps


def output_of(*command: str) -> str:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}  # which Slurm hands to the job
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def state_of(job: str) -> str:
    words = dict(word.split("=", 1) for word in output_of("scontrol", "show", "job", "-o", job).split() if "=" in word)
    return words["JobState"]


def wait_until(true: Callable[[], bool], *, of: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, of.read_text() if of.exists() else f"{of} was never written"
        time.sleep(0.2)


def give_way(place: Path, job: str, *, of: Path) -> None:
    """Has an urgent job take the place of a running one, which is waited for until it is queued again, and started."""
    output_of("sbatch", "--parsable", "--partition=urgent", "--exclusive", f"--chdir={place}", "--wrap", "true")
    wait_until(lambda: state_of(job) == "PENDING", of=of)


def start_again(job: str) -> None:
    """Has Slurm start a job that it queued again, which it would let wait for two minutes.

    Within the second in which the node ended it, the node would refuse it: "Job credential revoked".
    """
    output_of("scontrol", "update", f"JobId={job}", "StartTime=now+3")


def lines(run: Path) -> int:
    """Returns how many steps a run has recorded."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0
