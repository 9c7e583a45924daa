"""A sweep's members as jobs: what Slurm is asked for, and how what becomes of them is answered for. Slurm is a stub."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from tiny_runs import logging_kept

import forgetmenot.config.slurm
import forgetmenot.config.sweep
from forgetmenot.config.app import Story, run_app
from forgetmenot.result import RunResult

STUB = Path(__file__).resolve().parents[1] / "stub_member.py"
WORDS = ["-m", "hydra/launcher=slurm", "logger=none", "trainer=cpu", "hydra.sweep.dir=all"]


@pytest.fixture(autouse=True)
def _alone(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", ""))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(forgetmenot.config.sweep, "PROGRAM", (sys.executable, str(STUB)))
    monkeypatch.setattr(forgetmenot.config.slurm, "_RECORD_SECONDS", 0.1)  # for members that leave none
    with logging_kept():
        yield
    GlobalHydra.instance().clear()


def sweep(*words: str, code: int = 0, **actions: str) -> list[Path]:
    """Runs a sweep whose members end as `actions` say by their seeds; returns the folders of all members."""
    Path("actions.json").write_text(json.dumps({name.removeprefix("seed_"): what for name, what in actions.items()}))
    ended = 0
    try:
        run_app(_load, config_name="train", arguments=[*WORDS, *words], after_sweep=_table)
    except SystemExit as exit_:
        assert isinstance(exit_.code, int)
        ended = exit_.code
    assert ended == code
    return sorted(Path("all").glob("*_*"))


def _load() -> Story:
    raise AssertionError("a member is a job of its own")


def _table(folder: Path) -> None:
    print(f"the table of {folder}")


def statuses(folders: list[Path]) -> list[str]:
    return [RunResult.read(folder).status for folder in folders]


def started() -> list[str]:
    file = Path("started.txt")
    return file.read_text().split() if file.is_file() else []


def calls(place: Path, *, of: str) -> list[list[str]]:
    """The words of each call of one of Slurm's commands."""
    lines = [json.loads(line) for line in (place / "calls.jsonl").read_text().splitlines()]
    return [words for name, *words in lines if name == of]


@pytest.fixture
def handed_back(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the launcher hands back to the sweeper."""
    launcher = Plugins.instance().class_name_to_class["hydra_plugins.forgetmenot_slurm.SlurmLauncher"]
    launch, found = launcher.launch, list[object]()

    def noted(self: Launcher, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        returned = launch(self, job_overrides, initial_job_idx)
        found.extend(each.return_value for each in returned)
        return returned

    monkeypatch.setattr(launcher, "launch", noted)
    return found


def test_members_run_as_one_array_and_the_sweep_ends_with_its_table(
    cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = sweep("seed=5,6", "method.rank=2")
    assert statuses(folders) == ["complete", "complete"] and started() == ["5", "6"]
    told = capfd.readouterr().out
    assert told.splitlines()[0] == "member 0 is queued as job 7_0: logger=none trainer=cpu seed=5 method.rank=2"
    assert "member 1 is complete after" in told and told.endswith("the table of all\n")
    (words,) = calls(cluster, of="sbatch")
    assert "--array=0,1" in words and "--requeue" in words and "--ntasks-per-node=1" in words


def test_a_member_learns_its_words_its_group_and_its_share_of_cores() -> None:
    folder, _ = sweep("seed=5,6", "data.prompt='it is {text}'", "data=local", "data.path=x", "data.completion=y")
    environment = json.loads((folder / "environment.json").read_text())
    assert (environment["WANDB_RUN_GROUP"], environment["OMP_NUM_THREADS"]) == ("all", "2")
    words = json.loads((folder / "argv.json").read_text())
    assert "data.prompt='it is {text}'" in words and "hydra.mode=RUN" in words
    assert not [word for word in words if "launcher" in word or word.startswith("resume")]


def test_settings_become_options_of_sbatch(cluster: Path) -> None:
    settings = {
        "partition": "gpu", "account": "us", "timeout_min": 90, "signal_delay_s": 60, "gpus_per_node": 1,
        "cpus_per_task": 3, "mem_gb": 1.5, "array_parallelism": 4,
    }  # fmt: skip
    sweep(
        "seed=5", *(f"hydra.launcher.{name}={value}" for name, value in settings.items()),
        "+hydra.launcher.additional_parameters.constraint=a100", "+hydra.launcher.additional_parameters.exclusive=true",
    )  # fmt: skip
    (words,) = calls(cluster, of="sbatch")
    assert {
        "--array=0%4", "--partition=gpu", "--account=us", "--time=90", "--signal=USR1@60", "--gpus-per-node=1",
        "--cpus-per-task=3", "--mem=1536M", "--constraint=a100", "--exclusive",
    } <= set(words)  # fmt: skip
    assert not [word for word in words if word.startswith("--qos")]


def test_a_member_that_fails_stops_nothing_and_a_resumed_sweep_submits_it_alone(
    cluster: Path, capfd: pytest.CaptureFixture[str], handed_back: list[object]
) -> None:
    folders = sweep("seed=5,6,7", code=1, seed_6="fail")
    assert statuses(folders) == ["complete", "failed", "complete"]
    assert handed_back == [5.0, None, 7.0], "what a sweeper is told"
    told = capfd.readouterr()
    assert "error: member 1 failed: seed must be another" in told.err
    assert "2 of the members are complete; the same command with resume=all runs the others" in told.out

    (cluster / "states.json").unlink()
    assert statuses(sweep("seed=5,6,7", "resume=all")) == ["complete"] * 3
    assert started() == ["5", "6", "7", "6"] and handed_back[3:] == [5.0, 6.0, 7.0]
    assert "--array=1" in calls(cluster, of="sbatch")[1]


@pytest.mark.parametrize(
    ("state", "status", "error"),
    [
        ("OUT_OF_MEMORY", "failed", "ended as OUT_OF_MEMORY; "),
        ("NODE_FAIL", "failed", "ended as NODE_FAIL; "),
        ("forgotten", "failed", "ended without a record"),
        ("CANCELLED", "interrupted", None),
    ],
)
def test_a_member_that_left_no_record_gets_one_from_what_slurm_knows(
    cluster: Path, state: str, status: str, error: str | None
) -> None:
    (cluster / "states.json").write_text(json.dumps({"0": state}))
    first, second = sweep("seed=5,6", code=1, seed_5="die")
    result = RunResult.read(first)
    assert (result.status, statuses([second])) == (status, ["complete"])
    assert result.error is None if error is None else str(result.error).startswith(error)


def test_what_becomes_of_members_is_told_as_it_changes(cluster: Path, capfd: pytest.CaptureFixture[str]) -> None:
    states = ["PENDING PartitionTimeLimit", "RUNNING", "silent", "PENDING BeginTime", "COMPLETED"]
    (cluster / "states.json").write_text(json.dumps({"0": states}))
    sweep("seed=5")
    told = [line for line in capfd.readouterr().out.splitlines() if line.startswith(("member", "Slurm"))]
    assert [line.partition(":")[0].partition(" after")[0] for line in told] == [
        "member 0 is queued as job 7_0", "member 0 is queued, and waits for PartitionTimeLimit", "member 0 is running",
        "Slurm does not answer; its jobs are waited for",
        "Slurm answers again", "member 0 is queued again", "member 0 is complete",
    ]  # fmt: skip


@pytest.mark.parametrize(("state", "status"), [("OUT_OF_MEMORY", "failed"), ("CANCELLED", "interrupted")])
def test_what_a_member_recorded_before_it_was_queued_again_is_not_its_end(
    cluster: Path, state: str, status: str
) -> None:
    (cluster / "states.json").write_text(json.dumps({"0": ["RUNNING", "PENDING", "RUNNING", state]}))
    (folder,) = sweep("seed=5", code=1, seed_5="save")
    result = RunResult.read(folder)
    assert (result.status, result.objective is not None) == (status, status == "interrupted")


def test_a_member_that_cannot_be_answered_for_stops_no_other(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RunResult, folder: Path) -> None:
        raise OSError("no room")

    monkeypatch.setattr(RunResult, "write", full)  # here alone: members are processes of their own
    folders = sweep("seed=5,6", code=1, seed_5="die")
    assert statuses(folders[1:]) == ["complete"]
    assert "error: member 0 ended as FAILED: no room" in capfd.readouterr().err


def test_what_slurm_refuses_is_told_in_its_words_and_leaves_no_member(
    cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (cluster / "refused").write_text("sbatch: error: invalid partition specified: gpu")
    assert sweep("seed=5,6", code=1) == []
    assert capfd.readouterr().err == (
        "error: hydra.launcher must be what this cluster takes, got: sbatch: error: invalid partition specified: gpu\n"
    )


def test_a_sweep_whose_jobs_are_left_from_before_is_not_submitted_twice(
    cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (cluster / "left").write_text(f"12 {Path('all').resolve()}\n13 {Path('other').resolve()}\n")
    sweep("seed=5", code=1)
    assert f"got {Path('all').resolve()} with job 12; scancel 12 ends it" in capfd.readouterr().err
    assert not calls(cluster, of="sbatch")


def test_where_nobody_can_tell_what_is_left_from_before_nothing_is_submitted(
    cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (cluster / "left").write_text("silent")
    assert sweep("seed=5", code=1) == []
    assert "hydra/launcher must be basic or joblib where Slurm does not answer, got slurm" in capfd.readouterr().err


def test_one_run_is_not_started_on_the_machine_that_sweeps_are_started_from(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run_app(_load, config_name="train", arguments=[*WORDS[1:4], "hydra.run.dir=one"])
    assert capfd.readouterr().err.startswith("error: hydra/launcher must be basic for one run, got slurm; -m makes it")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trainer.devices=1,2"], "tasks_per_node must be 2, since a task is a rank and trainer.devices asks for 2"),
        (["hydra.launcher.partitoin=gpu"], "partitoin must be a key of hydra.launcher (partition,"),
    ],
)
def test_a_sweep_with_such_a_job_is_refused_before_anything_is_submitted(
    cluster: Path, capfd: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert sweep("seed=5", *words, code=1) == []
    assert capfd.readouterr().err.startswith(f"error: hydra.launcher.{sentence}")
    assert not (cluster / "calls.jsonl").exists()


def test_ranks_that_have_a_task_each_are_submitted(cluster: Path) -> None:
    nodes = ["trainer.num_nodes=2", "hydra.launcher.nodes=2"]
    sweep("seed=5", "trainer=ddp", "trainer.devices=2", "hydra.launcher.tasks_per_node=2", *nodes)
    assert {"--ntasks-per-node=2", "--nodes=2"} <= set(calls(cluster, of="sbatch")[0])


def test_members_of_evaluate_which_cannot_go_on_are_not_queued_again(cluster: Path) -> None:
    words = [*(word for word in WORDS[:3] if "logger" not in word), "hydra.sweep.dir=all", "run=mine", "num_shots=0,1"]
    run_app(_load, config_name="evaluate", arguments=words)
    (asked,) = calls(cluster, of="sbatch")
    assert "--no-requeue" in asked and statuses(sorted(Path("all").glob("*_*"))) == ["complete"] * 2


def test_without_slurm_the_launcher_is_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    sweep("seed=5", code=1)
    assert capfd.readouterr().err.startswith(
        "error: hydra/launcher must be basic or joblib where Slurm's sbatch is not"
    )


def test_a_job_that_was_queued_again_goes_on_in_its_folder(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,) = sweep("seed=5")
    (folder / "config.yaml").touch()
    assert "resume" not in (folder / "argv.json").read_text()
    again = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0", "SLURM_CPUS_PER_TASK": "1"}
    for name, value in {**again, "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    subprocess.run(["bash", str(cluster / "script")], check=True)
    assert f'resume="{folder.resolve()}"' in json.loads((folder / "argv.json").read_text())


def test_ctrl_c_cancels_the_jobs_and_the_sweep_can_be_resumed(cluster: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (cluster / "states.json").write_text(json.dumps({"0": ["RUNNING", "RUNNING", "CANCELLED"], "1": "CANCELLED"}))
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
    threading.Timer(0, _once_submitted, args=[cluster]).start()
    try:
        folders = sweep("seed=5,6", code=130, seed_5="die", seed_6="die")
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    assert calls(cluster, of="scancel") == [["7"]]
    assert statuses(folders) == ["interrupted"] * 2
    assert "0 of the members are complete; the same command with resume=all runs the others" in capfd.readouterr().out


def _once_submitted(cluster: Path) -> None:
    while not (cluster / "calls.jsonl").is_file() or len(calls(cluster, of="squeue")) < 2:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)
