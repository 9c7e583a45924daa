"""Runs that are killed, at any moment, on one and two ranks, or whose disk is full, lose nothing.

FORGETMENOT_KILLS=20 kills as many times; three by default.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import finish, read_lines, read_result

pytestmark = pytest.mark.slow

SHIM = Path(__file__).resolve().parents[2] / "train.py"
KILLS = int(os.environ.get("FORGETMENOT_KILLS", "3"))
WORDS = ("method=lora", "method.dropout=0.2", "batch_size=2", "epochs=12", "checkpoint_steps=1")
STEPS = 96
ON_TWO = ("trainer.accelerator=cpu", "trainer.devices=2")
TWO_RANKS = ("trainer=ddp", *ON_TWO)
STRATEGIES = {
    "ddp": (*WORDS, *TWO_RANKS),
    "fsdp": (*WORDS, "trainer=fsdp", *ON_TWO, "epochs=3"),
    "fsdp, the best of all weights": (
        "method=full", "select=best", "batch_size=2", "epochs=3", "checkpoint_steps=1", "trainer=fsdp", *ON_TWO,
    ),
}  # fmt: skip


def started(place: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SHIM), *words], cwd=place, start_new_session=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def kill_after_lines(process: subprocess.Popen[str], metrics: Path, number: int, *, seconds: float) -> None:
    """Kills a run with its ranks some time after so many steps were logged."""
    deadline = time.monotonic() + 240
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= number):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.005)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*/*model.safetensors")
    return load_file(file)


def assert_same(run: Path, whole: Path) -> None:
    assert read_result(run)["status"] == "complete"
    first, second = weights(run), weights(whole)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert read_lines(run / "metrics.jsonl")[:-1] == read_lines(whole / "metrics.jsonl")[:-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_arguments: list[str]) -> Path:
    """The folder of a run that nothing ended."""
    done = finish([*tiny_arguments, *WORDS], tmp_path_factory.mktemp("whole"))
    assert done.code == 0, done.stderr
    return done.folder


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_run_that_was_killed_at_a_random_moment_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_arguments: list[str], whole: Path, kill: int
) -> None:
    draw = random.Random(kill)
    process = started(tmp_path, *tiny_arguments, *WORDS, "hydra.run.dir=run")
    kill_after_lines(
        process, tmp_path / "run" / "metrics.jsonl", draw.randrange(1, STEPS), seconds=draw.uniform(0, 0.1)
    )

    done = finish(["resume=run"], tmp_path)

    assert done.code == 0, done.stderr
    assert_same(tmp_path / "run", whole)


MOMENTS = {
    "as its folder is begun": ("forgetmenot.checkpointing", "begin", 5),
    "as its first file is on the disk": ("forgetmenot.checkpoint", "sync", 17),
    "before it has its name": ("forgetmenot.checkpoint", "sync", 19),
    "before its name is on the disk": ("forgetmenot.checkpoint", "sync", 20),
}
"""Where the fifth checkpoint is killed: a function of ours, and after which call of it."""
KILLING = """
import importlib, os, signal, sys
name, function, number = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
module = importlib.import_module(name)
original, calls = getattr(module, function), []
def killing(*arguments, **named):
    original(*arguments, **named)
    calls.append(function)
    if len(calls) == number:
        os.kill(os.getpid(), signal.SIGKILL)
setattr(module, function, killing)
from forgetmenot.cli.main import main
main()
"""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_was_killed_in_a_checkpoint_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_arguments: list[str], whole: Path, moment: str
) -> None:
    module, function, number = MOMENTS[moment]
    words = [module, function, str(number), "train", *tiny_arguments, *WORDS, "hydra.run.dir=run"]
    killed = subprocess.run([sys.executable, "-c", KILLING, *words], cwd=tmp_path, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    named = moment == "before its name is on the disk"
    assert (tmp_path / "run" / "checkpoints" / "step-00000005").exists() == named
    assert (tmp_path / "run" / "checkpoints" / ".partial-00000005").exists() != named

    done = finish(["resume=run"], tmp_path)

    assert done.code == 0, done.stderr
    assert f"The run goes on after step {5 if named else 4}." in done.stdout
    assert_same(tmp_path / "run", whole)
    assert not (tmp_path / "run" / "checkpoints").exists()


FILLING = """
import sys
from contextlib import suppress
from pathlib import Path
from forgetmenot.cli import fitting
from forgetmenot.cli.main import main
filling, original = Path(sys.argv.pop(1)), fitting.whole_folder
def full(folder):
    with filling.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(4096))
    return original(folder)
fitting.whole_folder = full
main()
"""


def test_a_disk_that_is_full_as_what_was_learned_is_saved_leaves_no_half_of_it(
    small_disk: Path, tmp_path: Path, tiny_arguments: list[str], whole: Path
) -> None:
    run, filling = small_disk / "run", small_disk / "filling"
    command = [sys.executable, "-c", FILLING, str(filling), "train", *tiny_arguments, *WORDS, f"hydra.run.dir={run}"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: the disk must have room"), ended.stderr
    assert not list(run.glob("*adapter*")) and not list(run.glob(".*adapter*"))

    filling.unlink()
    done = finish([f"resume={run}"], tmp_path)

    assert done.code == 0, done.stderr
    assert_same(run, whole)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_ranks_that_were_killed_go_on_to_the_weights_of_two_that_were_not(
    tmp_path: Path, tiny_arguments: list[str], strategy: str
) -> None:
    words = [*tiny_arguments, *STRATEGIES[strategy], "micro_batch_tokens=64"]
    process = started(tmp_path, *words, "hydra.run.dir=whole")
    assert process.wait(timeout=300) == 0, process.communicate()[0]
    process = started(tmp_path, *words, "hydra.run.dir=run")
    kill_after_lines(process, tmp_path / "run" / "metrics.jsonl", 12, seconds=0)

    process = started(tmp_path, "resume=run")
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 0, output
    assert "The run goes on after step" in output
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_two_ranks_of_which_one_is_asked_to_end_save_together(tmp_path: Path, tiny_arguments: list[str]) -> None:
    words = [*tiny_arguments, *WORDS, *TWO_RANKS, "checkpoint_steps=null", "epochs=100000", "hydra.run.dir=run"]
    process = started(tmp_path, *words)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 5) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGUSR1, output
    assert "Traceback" not in output
    assert output.splitlines().count("interrupted") == 1, output
    assert read_result(tmp_path / "run")["status"] == "interrupted"
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert f'"step": {int(checkpoint.name[5:]) - 1},' in metrics.read_text().splitlines()[-1]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_of_which_one_rank_was_killed_ends_with_a_sentence(
    tmp_path: Path, tiny_arguments: list[str], rank: int
) -> None:
    words = [*tiny_arguments, *WORDS, *TWO_RANKS, "checkpoint_steps=2", "epochs=100000", "hydra.run.dir=run"]
    process = started(tmp_path, *words)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 5) and time.monotonic() < deadline:
        time.sleep(0.05)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid if rank == 0 else int(child), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)  # until both have ended
    told = "another rank has ended, on which" if rank == 0 else "rank 1 was ended by signal 9 (Killed); resume="
    assert f"error: {told}" in output and "goes on from step " in output, output
    assert "Traceback" not in output
    if rank == 1:
        assert process.returncode == 1 and read_result(tmp_path / "run")["status"] == "failed"


def test_a_run_of_which_one_rank_was_killed_while_the_base_was_scored_ends_with_a_sentence(
    tmp_path: Path, tiny_arguments: list[str], tiny_data: Path
) -> None:
    many = shutil.copytree(tiny_data, tmp_path / "many")
    (many / "test.jsonl").write_text("".join(f'{{"text": "film {i}", "label": "good"}}\n' for i in range(20000)))
    process = started(tmp_path, *tiny_arguments, *TWO_RANKS, f"data.path={many}", "hydra.run.dir=run")
    assert process.stdout is not None
    assert any("scoring the base" in line for line in process.stdout)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    told = f"rank 1 was ended by signal 9 (Killed); resume={tmp_path / 'run'} begins anew, since no checkpoint was kept"
    assert f"error: {told}" in output and "Traceback" not in output, output
    assert process.returncode == 1 and read_result(tmp_path / "run")["error"] == told


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_of_which_one_cannot_write_end_both_with_a_sentence(
    tmp_path: Path, tiny_arguments: list[str], strategy: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("where rank 0 needs a folder")
    words = ("method=lora", "max_steps=4", "checkpoint_steps=2", f"trainer={strategy}", *ON_TWO, "hydra.run.dir=run")
    process = started(tmp_path, *tiny_arguments, *words)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 1 and "Traceback" not in output, output
    assert "Not a directory: " in output and "at step 2 in " in output
    assert "Not a directory: " in str(read_result(tmp_path / "run")["error"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A folder on a file system of one megabyte, where this machine lets us make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False)
    if made.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_a_run_with_a_sentence_and_its_checkpoints_whole(
    small_disk: Path, tmp_path: Path, tiny_arguments: list[str], whole: Path
) -> None:
    run = small_disk / "run"
    process = started(tmp_path, *tiny_arguments, *WORDS, f"hydra.run.dir={run}")
    deadline = time.monotonic() + 240
    while not list(run.glob("checkpoints/step-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    filling = small_disk / "filling"
    with filling.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in output
    assert "error: the disk must have room" in output, output

    filling.unlink()
    done = finish([f"resume={run}"], tmp_path)

    assert done.code == 0, done.stderr
    assert "The run goes on after step" in done.stdout
    assert_same(run, whole)
