"""Sweeps for real: members beside each other and on two ranks, and what each leaves is what it leaves alone."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_runs import read_lines, read_result

pytestmark = pytest.mark.slow

MODULE = (sys.executable, "-m", "forgetmenot.cli.main", "train")
SHIM = (sys.executable, str(Path(__file__).resolve().parents[2] / "train.py"))


def run(*words: str, place: Path, program: Sequence[str] = MODULE) -> subprocess.CompletedProcess[str]:
    """Runs `train` in `place` on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    return subprocess.run(
        [*program, *words], cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def numbers(folder: Path) -> dict[str, object]:
    """Returns what of a result is no time, no memory and no name."""
    result = read_result(folder)
    own = ("name", "overrides", "started", "seconds", "cost", "reused")
    kept = {name: value for name, value in result.items() if name not in own}
    cost = result["cost"]
    assert isinstance(cost, dict)
    return {**kept, "train_tokens": cost["train_tokens"]}


def test_a_member_comes_to_what_the_run_alone_does_and_holds_no_memory_of_others(
    tmp_path: Path, tiny_arguments: list[str]
) -> None:
    done = run("-m", *tiny_arguments, "max_steps=2", "method.rank=2,0,4", "hydra.sweep.dir=all", place=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: method.rank must be at least 1, got 0\n"
    assert "best by val.accuracy (highest): lora method.rank=" in done.stdout
    assert "the page lies in all/runs.html" in done.stdout
    assert "method.rank=4" in (tmp_path / "all" / "runs.html").read_text()
    first, failed, last = sorted((tmp_path / "all").glob("*_*"))
    assert [read_result(folder)["status"] for folder in (first, failed, last)] == ["complete", "failed", "complete"]

    alone = run(*tiny_arguments, "max_steps=2", "method.rank=4", "hydra.run.dir=alone", place=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert numbers(last) == numbers(tmp_path / "alone")
    peaks = [read_result(folder)["cost"]["peak_memory_bytes"] for folder in (first, last)]  # type: ignore[index]
    assert peaks[1] <= 1.05 * peaks[0], "a later member starts anew, and its adapter adds a few kilobytes"


@pytest.mark.parametrize(
    ("program", "strategy"), [(MODULE, "ddp"), (MODULE, "fsdp"), (SHIM, "ddp")], ids=["console", "fsdp", "shim"]
)
def test_a_sweep_over_two_ranks_runs_each_member_once_and_learns_what_one_process_does(
    tmp_path: Path, tiny_arguments: list[str], program: Sequence[str], strategy: str
) -> None:
    seeds = "0,1" if program is MODULE else "0"
    words = [*tiny_arguments, "method.dropout=0", f"seed={seeds}"]
    ranks = (f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.devices=2")
    done = run("-m", *words, *ranks, "hydra.sweep.dir=two", place=tmp_path, program=program)
    assert done.returncode == 0, done.stderr
    folders = sorted((tmp_path / "two").glob("*_*"))
    assert len(folders) == len(seeds.split(","))
    for folder in folders:
        assert read_result(folder)["hardware"]["devices"] == 2  # type: ignore[index]
        assert (folder / "run.log").read_text().count("distributed_backend=gloo") == 1, "started once"

    alone = run(*tiny_arguments, "method.dropout=0", "seed=0", *ranks, "hydra.run.dir=alone", place=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert numbers(folders[0]) == numbers(tmp_path / "alone"), "the same run, as a member and by itself"

    one = run(*tiny_arguments, "method.dropout=0", "seed=0", "hydra.run.dir=one", place=tmp_path)
    assert one.returncode == 0, one.stderr
    losses = [
        [line["train/loss"] for line in read_lines(folder / "metrics.jsonl") if "train/loss" in line]
        for folder in (folders[0], tmp_path / "one")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_members_share_a_group_at_wandb_and_each_is_a_run_of_its_own(tmp_path: Path, tiny_arguments: list[str]) -> None:
    words = [word for word in tiny_arguments if not word.startswith("logger=")]
    done = run("-m", *words, "max_steps=1", "seed=0,1", "hydra.sweep.dir=shared", place=tmp_path)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "shared").glob("*_*/wandb/offline-run-*/*.wandb"))
    assert len({file.name for file in files}) == 2
    assert all(b"\x06shared" in file.read_bytes() for file in files), "a text of 6 bytes, and no part of a path"
