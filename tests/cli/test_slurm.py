"""The recipe for one large job, on a real Slurm that tests/with_slurm.sh has started: `make test-slurm`."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from slurm_jobs import TOP, WORDS, give_way, lines, output_of, start_again, state_of, wait_until
from tiny_runs import read_lines, read_result

pytestmark = pytest.mark.slurm


def submitted(place: Path, *words: str, options: tuple[str, ...] = ()) -> str:
    """Submits the recipe as a user would from a clone, whose runs land in `place`."""
    (place / "train.py").symlink_to(TOP / "train.py")
    return output_of(
        "sbatch", "--parsable", f"--chdir={place}", *options, str(TOP / "cluster" / "train.sbatch"), *words
    )


def test_a_job_that_gives_way_to_an_urgent_one_saves_and_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_arguments: list[str], uninterrupted: Path
) -> None:
    place = tmp_path / "job"
    place.mkdir()
    job = submitted(place, *tiny_arguments, *WORDS)
    run, told = place / f"outputs/runs/slurm_{job}", place / f"slurm_{job}.out"
    wait_until(lambda: lines(run) >= 5, of=told)

    give_way(place, job, of=told)
    assert read_result(run)["status"] == "interrupted"
    start_again(job)
    wait_until(lambda: state_of(job) == "COMPLETED", of=told)

    output = told.read_text()
    assert f"saved; queued again, to go on with outputs/runs/slurm_{job}" in output
    assert "The run goes on after step" in output
    assert read_result(run)["status"] == "complete"
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (run, uninterrupted))
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert read_lines(run / "metrics.jsonl")[:-1] == read_lines(uninterrupted / "metrics.jsonl")[:-1]


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
    job = submitted(tmp_path, *words, options=("--time=10", "--signal=USR1@100"))
    run, told = tmp_path / f"outputs/runs/slurm_{job}", tmp_path / f"slurm_{job}.out"
    wait_until(lambda: lines(run) >= 5, of=told)
    output_of("scontrol", "update", f"JobId={job}", "TimeLimit=2")  # of which 100 s to save
    wait_until(lambda: "queued again" in told.read_text(), of=told)
    wait_until(lambda: state_of(job) == "PENDING", of=told)
    output_of("scancel", job)
    assert list(run.glob("checkpoints/step-*"))
