"""A sweep goes on where it ended, with the command that it was started with. Members are a stub."""

import json
from pathlib import Path

import pytest
from stub_sweeps import no_story, started, statuses, sweep

from forgetmenot.config.app import run_app
from forgetmenot.folder_lock import only_writer
from forgetmenot.report.runs import find_runs
from forgetmenot.result import RunResult, Status

pytestmark = pytest.mark.usefixtures("stub_members")


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


@pytest.mark.slow
def test_a_second_sweep_in_the_same_folder_is_told_of_resuming(capsys: pytest.CaptureFixture[str]) -> None:
    sweep("seed=1", "hydra.sweep.dir=mine")
    sweep("seed=1", "hydra.sweep.dir=mine", code=1)
    assert started() == ["1"] and "resume=FOLDER runs what that one is missing" in capsys.readouterr().err


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
    (first.parent / "multirun.yaml").unlink()  # which would tell before any member
    sweep("method=full", "seed=1", f"resume={first.parent}", code=1)
    assert started() == ["1", "1"], "no other member runs with settings that one was refused for"
    assert "must be the sweep that this command started, got 0_full_sentiment for" in capsys.readouterr().err


def test_another_value_for_a_later_member_is_refused_before_the_first_one(capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = sweep("seed=1,2", code=1, seed_1="fail", seed_2="fail")
    sweep("seed=1,5", f"resume={first.parent}", code=1)
    assert started() == ["1", "2"] and not (first / "earlier_attempts").exists()
    assert "error: seed must be 2, as in the sweep that is resumed, got 5 for its member 1\n" in capsys.readouterr().err


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
        run_app(no_story, config_name="train", arguments=["logger=none", *words])
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {sentence}")
    assert not Path("nowhere").exists()
