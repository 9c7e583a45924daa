"""A sweep: a process for each member, and an honest record of each. Members are a stub."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from stub_sweeps import STUB, no_story, started, statuses, sweep

from forgetmenot.config.app import run_app
from forgetmenot.result import RunResult

pytestmark = pytest.mark.usefixtures("stub_members")


def test_every_member_is_a_command_with_its_own_settings_and_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    folders = sweep("--config-dir", "own", "seed=1,2", "data.prompt='{text} of a, b'", "hydra.sweep.dir=sw eep")
    assert folders == [] and started() == ["1", "2"]
    for number, folder in enumerate(sorted(tmp_path.glob("sw eep/*_*"))):
        words = json.loads((folder / "argv.json").read_text())
        assert words == [
            "train", "--config-dir", "own", "logger=none", f"seed={number + 1}", "data.prompt='{text} of a, b'",
            "hydra.mode=RUN", f"hydra.job.num={number}", f'hydra.run.dir="{folder}"',
        ]  # fmt: skip
    assert folder.name == "1_lora_sentiment"


@pytest.mark.parametrize("option", ["-m", "--multirun", "--multi", "-mm"])
def test_a_member_is_no_sweep_however_the_sweep_was_asked_for(option: str) -> None:
    run_app(no_story, config_name="train", arguments=["logger=none", option, "hydra.sweep.dir=all"])
    words = json.loads(Path("all/0_lora_sentiment/argv.json").read_text())
    assert words[:2] == ["train", "logger=none"]


@pytest.mark.slow
def test_an_experiment_that_is_a_sweep_starts_its_members_too(tmp_path: Path) -> None:
    run_app(no_story, config_name="train", arguments=["experiment=forgetting_by_rate", "method=full"])
    words = json.loads((next(tmp_path.glob("outputs/sweeps/*/*/3_*")) / "argv.json").read_text())
    assert {"experiment=forgetting_by_rate", "method=full", "model.lr_scale=14", "hydra.mode=RUN"} <= set(words)


def test_a_member_that_fails_or_is_killed_is_recorded_and_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    folders = sweep("seed=1,2,3", code=1, seed_1="die", seed_2="fail")
    assert statuses(folders) == ["failed", "failed", "complete"]
    killed = RunResult.read(folders[0])
    assert (killed.error, killed.overrides) == ("ended by signal 9", ["logger=none", "seed=1"])
    assert killed.seconds is not None and killed.started
    told = capsys.readouterr()
    assert told.err == "error: member 0 failed: ended by signal 9\n", "the other one tells by itself"
    assert told.out.splitlines()[-1] == (
        f"1 of the members is complete; the same command with resume={folders[0].parent} runs the others"
    )


def test_a_sweep_of_evaluations_is_not_told_of_resuming_which_they_lack(capsys: pytest.CaptureFixture[str]) -> None:
    Path("actions.json").write_text('{"1": "die"}')
    with pytest.raises(SystemExit):
        run_app(no_story, config_name="evaluate", arguments=["-m", "run=mine", "seed=1"])
    assert capsys.readouterr().out.splitlines()[-1] == "0 of the members are complete"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_sweep_interrupts_its_member_and_starts_no_other(number: int) -> None:
    def send() -> None:
        while "1" not in started():
            time.sleep(0.05)
        time.sleep(0.2)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    folders = sweep("seed=1,2", code=128 + number, seed_1="wait")
    sender.join()
    assert started() == ["1"] and statuses(folders[:1]) == ["interrupted"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_members_are_no_ranks_of_what_started_them_and_share_a_group_at_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "MASTER_PORT", "WANDB_RUN_ID"):
        monkeypatch.setenv(name, "1")
    before = dict(os.environ)
    (folder,) = sweep("seed=1", "trainer=ddp")
    told = json.loads((folder / "environment.json").read_text())
    assert (told["LOCAL_RANK"], told["MASTER_PORT"], told["WANDB_RUN_ID"]) == (None, None, None)
    assert told["WANDB_RUN_GROUP"] == folder.parent.name
    assert {**os.environ, "HYDRA_FULL_ERROR": "", "WANDB_SILENT": ""} == {
        **before, "HYDRA_FULL_ERROR": "", "WANDB_SILENT": "",
    }  # fmt: skip


@pytest.mark.parametrize("asking", ["-m", "experiment=forgetting"])
def test_a_rank_of_torchrun_starts_no_sweep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asking: str
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as exit_:
        run_app(no_story, config_name="train", arguments=["logger=none", "seed=1", asking])
    assert exit_.value.code == 1 and started() == []
    assert capsys.readouterr().err == (
        "error: a sweep must be started without torchrun, which starts it once a rank, got one with it; "
        "trainer.devices gives each member its ranks\n"
    )


def test_a_sweep_that_was_killed_interrupts_its_member(tmp_path: Path) -> None:
    Path("actions.json").write_text(json.dumps({"1": "wait"}))
    code = f"import sys, forgetmenot.config.sweep as s; s.PROGRAM = (sys.executable, {str(STUB)!r})\n" + (
        "from forgetmenot.cli.main import run_command\nrun_command('train', arguments=sys.argv[1:])"
    )
    words = ["-m", "seed=1,2", "logger=none", "hydra.sweep.dir=all"]
    process = subprocess.Popen([sys.executable, "-c", code, *words], start_new_session=True)
    deadline = time.monotonic() + 60
    while started() != ["1"] and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    (folder,) = Path("all").glob("*_*")
    while not (folder / "result.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert statuses([folder]) == ["interrupted"] and started() == ["1"]


@pytest.mark.parametrize("asking", ["-m", "--multi", "hydra.mode=MULTIRUN"])
def test_a_command_that_leaves_no_record_is_no_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asking: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run_app(no_story, config_name="ask", arguments=["run=a,b", "prompt=hello", asking])
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "error: ask must be asked for one at a time, got a sweep\n"
    assert list(tmp_path.iterdir()) == [], "a question leaves nothing behind"


def test_a_member_that_was_itself_asked_to_end_is_interrupted_though_it_has_no_record() -> None:
    folders = sweep("seed=1,2", code=1, seed_1="leave")
    assert statuses(folders) == ["interrupted", "complete"]


def test_optuna_is_told_what_members_came_to() -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra optuna")
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1", "seed=range(0,50)"]
    sweep(*words, "hydra.sweeper.direction=maximize", "hydra.sweeper.sampler.seed=0", "hydra.sweep.dir=found")
    best = (Path("found") / "optimization_results.yaml").read_text()
    assert f"best_value: {max(map(float, started()))}" in best
