"""A sweep whose members are jobs, on a real Slurm that tests/with_slurm.sh has started: `make test-slurm`."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from slurm_jobs import TOP, WORDS, give_way, lines, output_of, start_again, wait_until
from tiny_runs import read_lines, read_result

pytestmark = pytest.mark.slurm

MEMBERS = ("0_lora_mood", "1_lora_mood")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep's command, its folder, and the file with what it says."""

    process: subprocess.Popen[bytes]
    folder: Path
    told: Path

    @property
    def job(self) -> str:
        """The id of the array that it submitted."""
        wait_until(lambda: " is queued as job " in self.told.read_text(), of=self.told)
        found = re.search(r"is queued as job (\d+)_", self.told.read_text())
        assert found is not None
        return found[1]

    def end(self) -> int:
        """Returns its exit code, once it has ended."""
        wait_until(lambda: self.process.poll() is not None, of=self.told)
        return self.process.returncode


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Sweep]]:
    """Starts a sweep in the test's folder, as a user would on a login node; ends it where the test did not."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str, told: str = "told.txt") -> Sweep:
        command = [sys.executable, str(TOP / "train.py"), "-m", "hydra/launcher=slurm", *words]
        with (tmp_path / told).open("wb") as stream:
            process = subprocess.Popen(
                command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=stream, stderr=stream,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
        started.append(process)
        return Sweep(process=process, folder=tmp_path / "all", told=tmp_path / told)

    yield start
    for process in started:
        process.kill()
        process.wait()
    subprocess.run(["scancel", "--me"], check=False)


def same_weights(run: Path, other: Path) -> bool:
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (run, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in second)


def test_a_member_that_is_cancelled_is_told_of_while_the_other_finishes_and_resume_finishes_it(
    start: Callable[..., Sweep], tiny_arguments: list[str]
) -> None:
    words = [*tiny_arguments, *WORDS, "method.rank=2,4"]
    sweep = start(*words, "hydra.sweep.dir=all")
    first, second = (sweep.folder / name for name in MEMBERS)
    wait_until(lambda: lines(second) >= 5, of=sweep.told)
    output_of("scancel", f"{sweep.job}_1")
    assert sweep.end() == 1
    told = sweep.told.read_text()
    assert "member 0 is running" in told and "member 0 is complete after" in told
    assert "member 1 is interrupted after" in told
    assert "1 of the members is complete; the same command with resume=all runs the others" in told
    assert [read_result(run)["status"] for run in (first, second)] == ["complete", "interrupted"]
    assert list(second.glob("checkpoints/step-*"))

    sweep = start(*words, "resume=all", told="again.txt")
    assert sweep.end() == 0
    told = sweep.told.read_text()
    assert "member 0 is complete:" in told and "member 0 is queued" not in told
    assert "The run goes on after step" in (second / "terminal.log").read_text()
    assert "best by val.accuracy" in told and read_result(second)["status"] == "complete"


def test_a_member_that_gives_way_to_an_urgent_job_goes_on_to_the_same_weights(
    start: Callable[..., Sweep], tmp_path: Path, tiny_arguments: list[str], uninterrupted: Path
) -> None:
    sweep = start(*tiny_arguments, *WORDS, "seed=0", "hydra.sweep.dir=all")
    run = sweep.folder / MEMBERS[0]
    wait_until(lambda: lines(run) >= 5, of=sweep.told)
    job = f"{sweep.job}_0"
    give_way(tmp_path, job, of=sweep.told)
    wait_until(lambda: "member 0 is queued again" in sweep.told.read_text(), of=sweep.told)
    assert read_result(run)["status"] == "interrupted"
    start_again(job)
    assert sweep.end() == 0
    assert "member 0 is complete after" in sweep.told.read_text()
    assert "The run goes on after step" in (run / "terminal.log").read_text()
    assert same_weights(run, uninterrupted)
    assert read_lines(run / "metrics.jsonl")[:-1] == read_lines(uninterrupted / "metrics.jsonl")[:-1]


def test_ctrl_c_ends_the_jobs_of_members_of_two_ranks_and_they_save(
    start: Callable[..., Sweep], tiny_arguments: list[str]
) -> None:
    ranks = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "hydra.launcher.tasks_per_node=2")
    words = [*tiny_arguments, *WORDS, *ranks, "epochs=100000", "seed=0,1"]
    sweep = start(*words, "hydra.sweep.dir=all")
    first, second = (sweep.folder / name for name in MEMBERS)
    wait_until(lambda: lines(first) >= 5, of=sweep.told)
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.end() == 130
    assert "0 of the members are complete; the same command with resume=all runs the others" in sweep.told.read_text()
    assert [read_result(run)["status"] for run in (first, second)] == ["interrupted"] * 2
    assert read_result(first)["hardware"]["devices"] == 2
    assert list(first.glob("checkpoints/step-*")) and not lines(second), "the cores of the node were taken"
    assert not output_of("squeue", "--me", "--noheader", "--states=RUNNING,PENDING")
