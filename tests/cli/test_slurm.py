"""The recipe for one large job, on a real Slurm that tests/start_slurm.sh has started: `make test-slurm`."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import finish, read_lines, read_result

pytestmark = pytest.mark.slurm

TOP = Path(__file__).resolve().parents[2]
WORDS = ("method=lora", "method.dropout=0.2", "batch_size=2", "epochs=100")  # 800 steps


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


def submitted(place: Path, *words: str, options: tuple[str, ...] = ()) -> str:
    """Submits the recipe as a user would from a clone, whose runs land in `place`."""
    (place / "train.py").symlink_to(TOP / "train.py")
    return output_of(
        "sbatch", "--parsable", f"--chdir={place}", *options, str(TOP / "cluster" / "train.sbatch"), *words
    )


def lines(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.fixture
def whole(tmp_path: Path, tiny_arguments: list[str]) -> Path:
    """The folder of the same run without a cluster."""
    place = tmp_path / "whole"
    place.mkdir()
    done = finish([*tiny_arguments, *WORDS], place)
    assert done.code == 0, done.stderr
    return done.folder


def test_a_job_that_gives_way_to_an_urgent_one_saves_and_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_arguments: list[str], whole: Path
) -> None:
    place = tmp_path / "job"
    place.mkdir()
    job = submitted(place, *tiny_arguments, *WORDS)
    run, told = place / f"outputs/runs/slurm_{job}", place / f"slurm_{job}.out"
    wait_until(lambda: lines(run) >= 5, of=told)

    output_of("sbatch", "--parsable", "--partition=urgent", "--exclusive", f"--chdir={place}", "--wrap", "sleep 1")
    wait_until(lambda: state_of(job) == "PENDING", of=told)
    assert read_result(run)["status"] == "interrupted"
    output_of("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm lets a job that it queues again wait
    wait_until(lambda: state_of(job) == "COMPLETED", of=told)

    output = told.read_text()
    assert f"saved; queued again, to go on with outputs/runs/slurm_{job}" in output
    assert "The run goes on after step" in output
    assert read_result(run)["status"] == "complete"
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (run, whole))
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert read_lines(run / "metrics.jsonl")[:-1] == read_lines(whole / "metrics.jsonl")[:-1]


def test_a_job_that_is_cancelled_saves_and_is_not_queued_again(tmp_path: Path, tiny_arguments: list[str]) -> None:
    job = submitted(tmp_path, *tiny_arguments, *WORDS, "epochs=100000")
    run, told = tmp_path / f"outputs/runs/slurm_{job}", tmp_path / f"slurm_{job}.out"
    wait_until(lambda: lines(run) >= 5, of=told)
    output_of("scancel", job)
    wait_until(lambda: (run / "result.json").exists(), of=told)
    assert read_result(run)["status"] == "interrupted"
    assert list(run.glob("checkpoints/step-*"))
    wait_until(lambda: state_of(job) == "CANCELLED", of=told)


def test_a_job_whose_time_is_nearly_up_is_queued_again(tmp_path: Path, tiny_arguments: list[str]) -> None:
    words = [*tiny_arguments, *WORDS, "epochs=100000"]
    job = submitted(tmp_path, *words, options=("--time=2", "--signal=USR1@60"))
    told = tmp_path / f"slurm_{job}.out"
    wait_until(lambda: told.exists() and "queued again" in told.read_text(), of=told)
    wait_until(lambda: state_of(job) == "PENDING", of=told)
    output_of("scancel", job)
    assert list((tmp_path / f"outputs/runs/slurm_{job}").glob("checkpoints/step-*"))
