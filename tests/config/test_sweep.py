"""A sweep: a process for each member, an honest record of each, and it goes on where it ended. Members are a stub."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from tiny_runs import logging_kept

import forgetmenot.config.sweep
from forgetmenot.config.app import Story, run_app
from forgetmenot.folder_lock import only_writer
from forgetmenot.report.runs import find_runs
from forgetmenot.result import RunResult, Status

STUB = Path(__file__).resolve().parents[1] / "stub_member.py"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", ""))
    monkeypatch.setattr(forgetmenot.config.sweep, "PROGRAM", (sys.executable, str(STUB)))
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
    with logging_kept():
        yield
    signal.signal(signal.SIGINT, ctrl_c)
    GlobalHydra.instance().clear()


def _load() -> Story:
    raise AssertionError("a member is a process of its own")


def sweep(*words: str, code: int = 0, **actions: str) -> list[Path]:
    """Runs a sweep whose members end as `actions` say by their seeds; returns the folders of all members."""
    Path("actions.json").write_text(json.dumps({name.removeprefix("seed_"): what for name, what in actions.items()}))
    try:
        run_app(_load, config_name="train", arguments=["-m", "logger=none", *words])
        ended = 0
    except SystemExit as exit_:
        assert isinstance(exit_.code, int)
        ended = exit_.code
    assert ended == code
    return sorted(Path("outputs/sweeps").glob("*/*/*_*"))


def started() -> list[str]:
    """Returns the seeds of the members that were started, in that order."""
    file = Path("started.txt")
    return file.read_text().split() if file.is_file() else []


def statuses(folders: list[Path]) -> list[str]:
    """Returns how members ended."""
    return [RunResult.read(folder).status for folder in folders]


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
    run_app(_load, config_name="train", arguments=["logger=none", option, "hydra.sweep.dir=all"])
    words = json.loads(Path("all/0_lora_sentiment/argv.json").read_text())
    assert words[:2] == ["train", "logger=none"]


@pytest.mark.slow
def test_an_experiment_that_is_a_sweep_starts_its_members_too(tmp_path: Path) -> None:
    run_app(_load, config_name="train", arguments=["experiment=forgetting_by_rate", "method=full"])
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
        run_app(_load, config_name="evaluate", arguments=["-m", "run=mine", "seed=1"])
    assert capsys.readouterr().out.splitlines()[-1] == "0 of the members are complete"


def test_a_resumed_sweep_runs_only_what_is_not_complete(capsys: pytest.CaptureFixture[str]) -> None:
    first = sweep("seed=1,2,3", code=1, seed_1="die", seed_2="fail")
    place, untouched = first[0].parent, (first[2] / "result.json").stat().st_mtime_ns
    assert sweep("seed=1,2,3,4", f"resume={place}") == [*first, place / "3_lora_sentiment"]
    assert started() == ["1", "2", "3", "1", "2", "4"]
    assert statuses(sorted(place.glob("*_*"))) == ["complete"] * 4
    assert (first[2] / "result.json").stat().st_mtime_ns == untouched
    assert "member 2 is complete: logger=none seed=3" in capsys.readouterr().out
    assert not any(word.startswith("resume=") for word in json.loads((first[0] / "argv.json").read_text()))
    assert RunResult.read(first[1] / "earlier_attempts" / "0").error == "seed must be another"


@pytest.mark.slow
def test_what_was_kept_aside_is_no_run_for_compare(tmp_path: Path) -> None:
    folders = sweep("seed=1,2", code=1, seed_1="fail")
    sweep("seed=1,2", f"resume={folders[0].parent}", code=1, seed_1="fail")
    assert len(list(tmp_path.rglob("result.json"))) == 3
    with pytest.raises(ValueError, match="got 2 runs, none of them complete"):  # a stub's record lacks model and data
        find_runs([tmp_path])


@pytest.mark.slow
def test_a_member_that_another_process_still_writes_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    folders = sweep("seed=1,2", code=1, seed_1="fail", seed_2="fail")
    with only_writer(folders[0]):
        sweep("seed=1,2", f"resume={folders[0].parent}", code=1)
    assert started() == ["1", "2", "2"]
    error = capsys.readouterr().err
    assert error.startswith("error: hydra.run.dir must be a folder that no other process writes, got ")
    assert error.count("\n") == 1


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
        run_app(_load, config_name="train", arguments=["logger=none", "seed=1", asking])
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


@pytest.mark.slow
def test_a_second_sweep_in_the_same_folder_is_told_of_resuming(capsys: pytest.CaptureFixture[str]) -> None:
    sweep("seed=1", "hydra.sweep.dir=mine")
    sweep("seed=1", "hydra.sweep.dir=mine", code=1)
    assert started() == ["1"] and "resume=FOLDER runs what that one is missing" in capsys.readouterr().err


@pytest.mark.parametrize("asking", ["-m", "--multi", "hydra.mode=MULTIRUN"])
def test_a_command_that_leaves_no_record_is_no_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asking: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run_app(_load, config_name="ask", arguments=["run=a,b", "prompt=hello", asking])
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "error: ask must be asked for one at a time, got a sweep\n"
    assert list(tmp_path.iterdir()) == [], "a question leaves nothing behind"


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_member_goes_on_from_its_checkpoint_and_without_one_begins_anew(status: Status) -> None:
    goes_on, anew = sweep("seed=1,2")
    (goes_on / "checkpoints" / "step-00000003").mkdir(parents=True)
    for folder in (goes_on, anew):
        RunResult(status=status, name=folder.name).write(folder)
    sweep("seed=1,2", f"resume={goes_on.parent}")
    words = [json.loads((folder / "argv.json").read_text()) for folder in (goes_on, anew)]
    assert words[0][-1] == f'resume="{goes_on.absolute()}"' and not words[1][-1].startswith("resume=")
    assert [(folder / "earlier_attempts").is_dir() for folder in (goes_on, anew)] == [False, True]


def test_a_member_that_dies_as_it_goes_on_is_told_of_by_what_ended_it_now(capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = sweep("seed=1")
    (folder / "checkpoints" / "step-00000003").mkdir(parents=True)
    RunResult(status="interrupted", name=folder.name).write(folder)
    sweep("seed=1", f"resume={folder.parent}", code=1, seed_1="die")
    assert RunResult.read(folder).status == "failed"
    assert "ended by signal 9" in capsys.readouterr().err


def test_another_commands_sweep_is_not_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = sweep("method=lora,prompt", "seed=1")
    sweep("method=full,lora", "seed=1", f"resume={first.parent}", code=1)
    assert started() == ["1", "1"], "no other member runs with settings that one was refused for"
    assert "must be the sweep that this command started, got 0_full_sentiment for" in capsys.readouterr().err


def test_a_sweep_can_still_be_resumed_after_another_command_was_refused_in_its_folder() -> None:
    folders = sweep("seed=1,2,3", code=1, seed_1="fail")
    place = folders[0].parent
    sweep("seed=1,2,3", "method=full", f"resume={place}", code=1)
    assert sorted(place.glob("*_*")) == folders, "nothing is left of what was refused"
    sweep("seed=1,2,3", f"resume={place}")
    assert started() == ["1", "2", "3", "1"] and statuses(folders) == ["complete"] * 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["-m", "seed=1,2", "resume=nowhere"],
            "resume must be the folder of a run or of a sweep, got nowhere, where",
        ),
        (["-m", "resume=run"], "resume must be a sweep's folder with -m, got the run run; a run goes on without"),
        (["resume=sweep"], "resume must be a run's folder, got the sweep sweep, which goes on with its whole command"),
        (["-m", "hydra/launcher=submitit", "seed=1"], "hydra/launcher must be one of basic"),
    ],
)
def test_what_cannot_be_resumed_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    RunResult().write(tmp_path / "run")
    (tmp_path / "run" / "run.log").touch()
    (tmp_path / "sweep" / "0_lora").mkdir(parents=True)
    (tmp_path / "sweep" / "0_lora" / "run.log").touch()
    with pytest.raises(SystemExit) as exit_:
        run_app(_load, config_name="train", arguments=["logger=none", *words])
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {sentence}")
    assert not Path("nowhere").exists()


def test_optuna_is_told_what_members_came_to() -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra optuna")
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1", "seed=range(0,50)"]
    sweep(*words, "hydra.sweeper.direction=maximize", "hydra.sweeper.sampler.seed=0", "hydra.sweep.dir=found")
    best = (Path("found") / "optimization_results.yaml").read_text()
    assert f"best_value: {max(map(float, started()))}" in best
