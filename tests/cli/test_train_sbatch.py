"""The recipe for one large job, run by bash with a stand-in for Slurm: what it gives its ranks."""

import os
import subprocess
from pathlib import Path

import pytest
from slurm_jobs import TOP

RECIPE = TOP / "cluster" / "train.sbatch"


@pytest.mark.parametrize(
    ("given", "threads"),
    [
        ({"SLURM_NTASKS_PER_NODE": "8", "SLURM_CPUS_PER_TASK": "6"}, "6"),
        ({"SLURM_NTASKS_PER_NODE": "8", "SLURM_TASKS_PER_NODE": "8(x2)"}, "4"),
        ({"SLURM_TASKS_PER_NODE": "16(x2),1"}, "2"),
        ({"SLURM_TASKS_PER_NODE": "64"}, "1"),
        ({}, "32"),
        ({"OMP_NUM_THREADS": "3", "SLURM_CPUS_PER_TASK": "6"}, "3"),
    ],
    ids=["cores of a task", "a share of the node", "tasks alone", "more tasks than cores", "one task", "set already"],
)
def test_a_rank_computes_on_its_share_of_the_cores_where_no_number_is_set(
    tmp_path: Path, given: dict[str, str], threads: str
) -> None:
    srun = tmp_path / "srun"
    srun.write_text('#!/usr/bin/env bash\necho "$OMP_NUM_THREADS"\n')
    srun.chmod(0o755)
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS" and "SLURM" not in name}
    job = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "32"}
    done = subprocess.run(
        ["bash", str(RECIPE)], cwd=tmp_path, env={**own, **job, **given}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, threads, "")
