"""Members beside each other by Hydra's joblib launcher: shares of the machine, and signals. Members are a stub."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forgetmenot.config.share import cores
from forgetmenot.result import RunResult

pytestmark = pytest.mark.slow
pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra sweep")

STUB = Path(__file__).resolve().parents[1] / "stub_member.py"
CODE = f"""
import sys, forgetmenot.config.sweep as sweep
sweep.PROGRAM = (sys.executable, {str(STUB)!r})
from forgetmenot.cli.main import run_command
try:
    run_command("train", arguments=sys.argv[1:])
finally:
    assert not {{"torch", "transformers", "lightning"}} & set(sys.modules)
"""
WORDS = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=1,2,3", "logger=none", "trainer=cpu"]


def start(place: Path, *words: str) -> subprocess.Popen[str]:
    """Starts a sweep of three members, two at once, as a terminal does."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *WORDS, "hydra.sweep.dir=all", *words], cwd=place, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def started(place: Path) -> list[str]:
    """Returns the seeds of the members that were started."""
    file = place / "started.txt"
    return sorted(file.read_text().split()) if file.is_file() else []


def test_members_go_on_where_nobody_reads_what_the_sweep_says(tmp_path: Path) -> None:
    process = start(tmp_path)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.wait(timeout=300)
    assert started(tmp_path) == ["1", "2", "3"]
    assert {RunResult.read(folder).status for folder in (tmp_path / "all").glob("*_*")} == {"complete"}


def test_members_share_the_cores_and_the_sweep_holds_no_torch(tmp_path: Path) -> None:
    process = start(tmp_path)
    _, errors = process.communicate(timeout=300)
    assert "Traceback" not in errors, errors
    folders = sorted((tmp_path / "all").glob("*_*"))
    assert [RunResult.read(folder).status for folder in folders] == ["complete"] * 3
    assert started(tmp_path) == ["1", "2", "3"]
    threads = {json.loads((folder / "environment.json").read_text())["OMP_NUM_THREADS"] for folder in folders}
    assert threads == {str(max(1, cores() // 2))}


def test_fewer_members_than_were_allowed_at_once_share_the_machine_among_themselves(tmp_path: Path) -> None:
    process = start(tmp_path, "hydra.launcher.n_jobs=64", "seed=1")
    _, errors = process.communicate(timeout=300)
    assert "Traceback" not in errors, errors
    (folder,) = (tmp_path / "all").glob("*_*")
    assert json.loads((folder / "environment.json").read_text())["OMP_NUM_THREADS"] is None, "one has all of it"


@pytest.mark.parametrize("whole_group", [False, True], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_reaches_both_members_once_and_no_other_is_started(tmp_path: Path, whole_group: bool) -> None:
    (tmp_path / "actions.json").write_text(json.dumps({"1": "wait", "2": "wait"}))
    process = start(tmp_path)
    while started(tmp_path) != ["1", "2"] and process.poll() is None:
        time.sleep(0.1)
    time.sleep(1)
    if whole_group:
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does, to joblib's processes too
    else:
        process.terminate()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + (signal.SIGINT if whole_group else signal.SIGTERM), errors
    assert "Traceback" not in errors, errors
    folders = sorted((tmp_path / "all").glob("*_*"))
    assert [RunResult.read(folder).status for folder in folders[:2]] == ["interrupted"] * 2
    assert started(tmp_path) == ["1", "2"]


def test_members_of_a_sweep_that_was_killed_are_interrupted_and_it_can_be_resumed(tmp_path: Path) -> None:
    actions = tmp_path / "actions.json"
    actions.write_text(json.dumps({"1": "wait", "3": "wait"}))
    process = start(tmp_path)
    while started(tmp_path) != ["1", "2", "3"] and process.poll() is None:
        time.sleep(0.1)
    time.sleep(1)
    process.kill()
    process.wait()
    first, complete, last = sorted((tmp_path / "all").glob("*_*"))
    deadline = time.monotonic() + 60
    while not all((folder / "result.json").is_file() for folder in (first, last)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [RunResult.read(folder).status for folder in (first, complete, last)] == [
        "interrupted", "complete", "interrupted",
    ]  # fmt: skip
    process.communicate(timeout=60)  # joblib's processes, which have its streams, end too

    actions.unlink()
    again = start(tmp_path, "resume=all")
    _, errors = again.communicate(timeout=300)
    assert "Traceback" not in errors, errors
    assert [RunResult.read(folder).status for folder in (first, complete, last)] == ["complete"] * 3
    assert started(tmp_path) == ["1", "1", "2", "3", "3"], "the complete one did not run again"
