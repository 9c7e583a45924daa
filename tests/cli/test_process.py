"""`train` as a process of its own: what a terminal sees, Ctrl-C, the default logger. Each starts torch anew."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import read_result

pytestmark = pytest.mark.slow

TRAIN = [sys.executable, "-c", "from forgetmenot.cli.main import main; main()", "train"]


def _environment(**values: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", **values}


def _as_a_terminal_starts_it() -> None:
    """Lets Ctrl-C interrupt, also where these tests run in the background of a shell, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _only_folder(place: Path) -> Path:
    (folder,) = place.glob("outputs/runs/*/*")
    return folder


def test_a_run_tells_the_terminal_of_itself_alone(tmp_path: Path, tiny_arguments: list[str]) -> None:
    done = subprocess.run(
        [*TRAIN, *tiny_arguments], cwd=tmp_path, env=_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "GPU available" not in done.stdout and "Tip" not in done.stdout
    assert "The run lies in" in done.stdout.splitlines()[-1]


def test_a_default_logger_keeps_the_run_offline_and_tells_how_to_upload_it(
    tmp_path: Path, tiny_arguments: list[str]
) -> None:
    arguments = [argument for argument in tiny_arguments if not argument.startswith("logger=")]
    done = subprocess.run(
        [*TRAIN, *arguments, "max_steps=1"],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "wandb sync" in done.stdout
    assert (_only_folder(tmp_path) / "wandb").is_dir()


def test_ctrl_c_in_the_terminal_records_the_run_as_interrupted_and_exits_with_130(
    tmp_path: Path, tiny_arguments: list[str]
) -> None:
    process = subprocess.Popen(
        [*TRAIN, *tiny_arguments, "epochs=100000"], cwd=tmp_path, env=_environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_as_a_terminal_starts_it,
    )  # fmt: skip
    try:
        _wait_until_it_trains(process, tmp_path)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    result = read_result(_only_folder(tmp_path))
    assert (result["status"], result["error"], result["gain"]) == ("interrupted", None, None)
    assert result["tasks"] is not None, "the scores of the base are known"


def test_ctrl_c_that_ends_tee_too_saves_and_records_the_run_as_interrupted(
    tmp_path: Path, tiny_arguments: list[str]
) -> None:
    with (
        subprocess.Popen(["tee", "log"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as tee,
        subprocess.Popen(
            [*TRAIN, *tiny_arguments, "epochs=100000"], cwd=tmp_path, env=_environment(PYTHONUNBUFFERED="1"),
            stdout=tee.stdin, stderr=subprocess.STDOUT, preexec_fn=_as_a_terminal_starts_it,
        ) as process,
    ):  # fmt: skip
        assert tee.stdin is not None
        tee.stdin.close()
        try:
            _wait_until_it_trains(process, tmp_path)
            tee.terminate()
            tee.wait()
            process.send_signal(signal.SIGINT)
            code = process.wait(timeout=60)
        finally:
            process.kill()
    folder = _only_folder(tmp_path)
    assert (code, read_result(folder)["status"]) == (130, "interrupted"), (tmp_path / "log").read_text()
    assert list((folder / "checkpoints").glob("step-*"))


def test_two_runs_that_start_at_once_have_a_folder_each(tmp_path: Path, tiny_arguments: list[str]) -> None:
    command = [*TRAIN, *tiny_arguments, "max_steps=1"]
    both = [subprocess.Popen(command, cwd=tmp_path, env=_environment(), stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=240) for process in both] == [0, 0]
    folders = list(tmp_path.glob("outputs/runs/*/*"))
    assert [read_result(folder)["status"] for folder in folders] == ["complete", "complete"]


def _wait_until_it_trains(process: "subprocess.Popen[str] | subprocess.Popen[bytes]", place: Path) -> None:
    deadline = time.monotonic() + 120
    while not list(place.glob("outputs/runs/*/*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
