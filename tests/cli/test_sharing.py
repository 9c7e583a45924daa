"""`trainer=fsdp` as a command: what two ranks with shared-out weights wrote is scored by all strategies alike."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import SCORED, read_lines, read_result

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "forgetmenot.cli.main"]  # Lightning starts the other rank so, too
RANKS = ["trainer.accelerator=cpu", "trainer.devices=2"]


def finished(*arguments: str, place: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_the_best_weights_of_two_sharing_ranks_score_the_same_under_fsdp_and_ddp_and_on_one_device(
    tmp_path: Path, tiny_arguments: list[str], user_conf: Path
) -> None:
    options = ["--config-dir", str(user_conf)]
    chosen = ["method=full", "select=best", "optimizer.lr=0.02", "epochs=2", "data.retained=[kept]"]
    finished("train", *options, *tiny_arguments, *chosen, "trainer=fsdp", *RANKS, place=tmp_path)
    (run,) = tmp_path.glob("outputs/runs/*/*")
    for strategy, ranks in (("fsdp", RANKS), ("ddp", RANKS), ("cpu", ())):
        folder = f"hydra.run.dir={tmp_path / strategy}"
        finished("evaluate", f"run={run}", f"trainer={strategy}", *ranks, folder, place=tmp_path)
    folders = (run, tmp_path / "fsdp", tmp_path / "ddp", tmp_path / "cpu")
    trained, sharing, whole, alone = map(read_result, folders)

    assert trained["hardware"]["devices"] == whole["hardware"]["devices"] == 2
    assert trained["gain"] != {"mood": 0.0} and trained["drift"]["weights"] > 0
    for key in SCORED:
        assert alone[key] == sharing[key] == whole[key] == trained[key], key
    for task in ("mood", "kept"):
        said = [read_lines(folder / "predictions" / f"{task}.jsonl") for folder in folders]
        assert said[0] == said[1] == said[2] == said[3]
