"""A command under Hydra: a sentence and an exit code for a mistake, 130 for Ctrl-C, a traceback for our bugs."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from tiny_runs import logging_kept

from forgetmenot.config.app import Story, run_app
from forgetmenot.config.paths import conf_folder, register_resolvers


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", ""))
    with logging_kept():
        yield
    GlobalHydra.instance().clear()


def _raising(error: BaseException) -> Story:
    def story(config: DictConfig) -> float | None:
        raise error

    return story


def _run(story: Story, *arguments: str) -> None:
    run_app(lambda: story, config_name="train", arguments=["logger=none", *arguments])


@pytest.mark.parametrize("error", [ValueError("rank must be\n  1"), OSError("rank must be 1")])
def test_a_users_error_is_one_sentence_and_exit_code_1(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    with pytest.raises(SystemExit) as exit_:
        _run(_raising(error))
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "error: rank must be 1\n"


def test_a_config_that_is_no_yaml_is_told_of_by_its_file_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own").mkdir()
    (Path("own") / "mine.yaml").write_text("defaults: [train]\nseed: {0\nepochs: 1\n")
    with pytest.raises(SystemExit) as exit_:
        _run(_raising(AssertionError()), "--config-dir", "own", "--config-name", "mine")
    assert exit_.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "own/mine.yaml must be YAML, got line 3, where " in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_command_that_is_asked_to_end_while_it_imports_is_interrupted(
    capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    if before is signal.SIG_IGN:
        pytest.skip("this process was started to ignore the signal")

    def asked() -> Story:
        os.kill(os.getpid(), number)
        return _raising(AssertionError())

    with pytest.raises(SystemExit) as exit_:
        run_app(asked, config_name="train", arguments=["logger=none"])
    assert (exit_.value.code, capsys.readouterr().err) == (128 + number, "interrupted\n")
    assert signal.getsignal(number) is before


def test_ctrl_c_is_told_in_a_sentence_and_exits_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        _run(_raising(KeyboardInterrupt()))
    assert exit_.value.code == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("interrupted")


def test_our_own_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        _run(_raising(ZeroDivisionError()))


def test_a_story_that_ends_well_exits_with_nothing_and_gets_its_settings() -> None:
    seen: list[int] = []

    def story(config: DictConfig) -> float | None:
        seen.append(config.method.rank)
        return 1.0

    _run(story, "method.rank=3")
    assert seen == [3]


def test_the_command_line_is_what_it_was_in_the_story_and_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["forgetmenot", "train", "seed=1"]
    monkeypatch.setattr(sys, "argv", list(argv))
    seen: list[list[str]] = []

    def story(config: DictConfig) -> float | None:
        seen.append(list(sys.argv))
        return None

    run_app(lambda: story, config_name="train", arguments=["logger=none", "seed=1"])
    assert seen == [argv] and sys.argv == argv, "Lightning starts its other ranks with it"


def test_a_run_has_one_folder_however_often_it_is_asked_for(tmp_path: Path) -> None:
    seen: list[str] = []

    def story(config: DictConfig) -> float | None:
        from hydra.core.hydra_config import HydraConfig

        seen.extend([HydraConfig.get().runtime.output_dir, str(Path(HydraConfig.get().run.dir).resolve())])
        return None

    _run(story)
    assert len(set(seen)) == 1
    assert [str(folder) for folder in (tmp_path / "outputs" / "runs").glob("*/*")] == [seen[0]]


@pytest.mark.parametrize(
    ("name", "folder"), [("mood", "mood"), ("a/b", "a-b"), ("../../x", "-..-x"), ("a b*", "a-b-"), ("größe", "größe")]
)
def test_a_name_never_leaves_its_folder(name: str, folder: str) -> None:
    register_resolvers()
    assert OmegaConf.create({"name": name, "folder": "${folder_name:${name}}"}).folder == folder


def test_two_runs_have_different_ids_and_one_run_has_one() -> None:
    register_resolvers()
    first, second = (OmegaConf.create({"a": "${short_id:run}", "b": "${short_id:run}"}) for _ in range(2))
    assert first.a == first.b and len(first.a) == 6
    assert first.a != second.a


def test_the_folder_of_the_yaml_files_is_found() -> None:
    assert (conf_folder() / "train.yaml").is_file()
