"""What makes a command line a sweep, wherever it is said, is checked before Hydra writes anything."""

import os
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tiny_runs import finish

from forgetmenot.config.errors import ConfigError
from forgetmenot.config.sweep import asks_for_sweep, check_resumed, command_kept
from forgetmenot.config.words import config_dirs


@pytest.mark.parametrize(
    ("words", "is_one"),
    [
        (["-m", "seed=1"], True),
        (["-mm", "seed=1"], True),
        (["hydra.mode=MULTIRUN"], True),
        (["sweep=rank"], True),
        (["method=lora", "experiment=forgetting"], True),
        (["sweep=rank", "hydra.mode=RUN"], False),
        (["experiment=pretrain_tiny"], False),
        (["sweep=unheard_of"], False),
        (["sweep=null"], False),
        (["method=lora"], False),
    ],
)
def test_a_sweep_is_one_however_it_is_asked_for(words: list[str], is_one: bool) -> None:
    assert asks_for_sweep(words) is is_one


@pytest.mark.parametrize("option", [["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"]])
def test_a_users_own_experiment_may_be_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "all.yaml").write_text("hydra:\n  mode: MULTIRUN\n")
    (folder / "torn.yaml").write_text("hydra: [\n")
    assert config_dirs(option) == [Path("mine")]
    assert asks_for_sweep([*option, "experiment=all"])
    assert not asks_for_sweep([*option, "experiment=torn"]), "Hydra tells what is wrong with it"


def test_a_ready_sweep_does_not_go_on_in_a_runs_folder(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match=r"^resume must be a sweep's folder with -m, got the run "):
        check_resumed(["sweep=rank", f"resume={tmp_path}"])


def test_a_ready_sweep_without_members_is_refused(tmp_path: Path) -> None:
    done = finish(["sweep=rank", "method.rank=range(5,5)"], tmp_path)
    assert (done.code, done.sentence) == (
        1, "error: method.rank must have a value to run with, got none in method.rank=range(5,5)",
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["hydra.mode=RUN", "-m"], ["--multi", "seed=1,2", "hydra.mode=RUN"]])
def test_one_run_that_is_asked_for_as_a_sweep_is_told_to_choose(tmp_path: Path, words: list[str]) -> None:
    done = finish(words, tmp_path)
    assert (done.code, done.sentence) == (
        1, "error: hydra.mode must be left out with -m, got RUN; without -m it is one run",
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "got"),
    [
        (["sweep=rank,kl"], "rank,kl"),
        (["sweep=[rank,kl]"], "sweep=[rank,kl]"),
        (["-m", "sweep=[rank,kl]"], "sweep=[rank,kl]"),
        (["experiment=[forgetting,forgetting_by_rate]", "sweep=[rank]"], "sweep=[rank]"),
    ],
)
def test_two_ready_sweeps_in_one_are_told_to_be_two_commands(tmp_path: Path, words: list[str], got: str) -> None:
    done = finish(words, tmp_path)
    assert (done.code, done.sentence) == (
        1, f"error: sweep must be one at a time, got {got}; give each a command of its own",
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_member_starts_no_sweep_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGETMENOT_PARENT", str(os.getppid()))
    done = finish(["-m", "seed=1,2"], tmp_path)
    assert (done.code, done.sentence) == (
        1, "error: a run that a sweep or a sequence has started must be one run, got a sweep",
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_the_setting_that_goes_on_with_a_sweep_can_be_pasted(tmp_path: Path) -> None:
    done = finish(["-m", "method.rank=0", "logger=none", 'hydra.sweep.dir="a b=c"'], tmp_path)
    assert done.stdout.splitlines()[-1].endswith("""the same command with 'resume="a b=c"' runs the others""")


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """The folder of a sweep that was asked for with four words."""
    (tmp_path / "0_lora").mkdir()
    (tmp_path / "0_lora" / "run.log").write_text("it began")
    words = ["method=lora", "method.rank=1,2", "max_steps=2", "trainer=cpu"]
    (tmp_path / "multirun.yaml").write_text(OmegaConf.to_yaml({"hydra": {"overrides": {"task": words}}}))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["method=lora", "method.rank=1,2", "max_steps=3"], "max_steps must be 2, as in"),
        (["method=lora", "method.rank=1,2"], "max_steps must be 2, as in the sweep that is resumed, got nothing"),
        (["method=full", "method.rank=1,2", "max_steps=2"], "method must be lora, as in"),
        (["method=lora", "method.rank=1,2", "max_steps=2", "epochs=9"], "epochs must be left out, as in"),
        (
            ["method=lora", "method.rank=2,1,4", "max_steps=2"],
            "method.rank must be 1, as .*, got 2 for its member 0",
        ),
        (["method=lora", "method.rank=1,8", "max_steps=2"], "method.rank must be 2, as in .*, got 8 for its member 1"),
        (["method=lora", "method.rank=8", "max_steps=2"], "method.rank must be 1, as in .*, got 8 for its member 0"),
        (["method=lora", "max_steps=2"], "method.rank must be 1, as in .*, got nothing for its member 0"),
    ],
)
def test_a_resumed_sweep_that_all_members_would_be_others_of_is_refused_before_any(
    asked: Path, words: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_resumed(["-m", *words, f"resume={asked}"])


SUBDIR = "hydra.sweep.subdir=z${hydra.job.num}"


@pytest.mark.parametrize(
    ("then", "now", "sentence"),
    [
        ([], [SUBDIR], "must be left out, as in the sweep that is resumed, got z${hydra.job.num}"),
        ([SUBDIR], [], "must be z${hydra.job.num}, as in the sweep that is resumed, got nothing"),
        ([SUBDIR], ['hydra.sweep.subdir="z${hydra.job.num}"'], None),
        ([SUBDIR, "hydra.verbose=true"], [SUBDIR, "hydra/launcher=joblib"], None),
    ],
)
def test_members_of_a_resumed_sweep_have_the_folders_that_they_had(
    asked: Path, then: list[str], now: list[str], sentence: str | None
) -> None:
    task = ["method=lora", "method.lr=${optimizer.eps}"]
    (asked / "multirun.yaml").write_text(OmegaConf.to_yaml({"hydra": {"overrides": {"task": task, "hydra": then}}}))
    words = ["-m", *task, *now, f"resume={asked}"]
    if sentence is None:
        check_resumed(words)
        return
    with pytest.raises(ConfigError) as refused:
        check_resumed(words)
    assert str(refused.value) == f"hydra.sweep.subdir {sentence}"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["batch_size=8,16", "seed=1,2,3"], "batch_size must be 16, as in .*, got 8 for its member 2"),
        (["seed=1,2", "batch_size=8,16"], "(batch_size|seed) must be .* for its member 1"),
        (["batch_size=8,16,32", "seed=1"], "batch_size must be 8, as in .*, got 16 for its member 1"),
        (["batch_size=8,16,32", "seed=1,2"], None),
        (["batch_size='8',16", "seed=range(1,3)", "trainer.devices=1"], None),
        (["batch_size=shuffle(8,16)", "seed=2,1"], None),
        (["batch_size=9,16", "seed=1,2", "hydra/sweeper=optuna"], None),
        (["batch_size=8.0,16", "++seed=1,2"], None),
        (["batch_size=8,16", "seed=1,2", "epochs=2", "hydra/sweeper=optuna"], "epochs must be left out, as in"),
    ],
)
def test_each_member_of_a_resumed_sweep_keeps_its_number(asked: Path, words: list[str], sentence: str | None) -> None:
    then = ["batch_size=8,16", "seed=1,2"]
    (asked / "multirun.yaml").write_text(OmegaConf.to_yaml({"hydra": {"overrides": {"task": then}}}))
    if sentence is None:
        check_resumed(["-m", *words, f"resume={asked}"])
        return
    with pytest.raises(ConfigError, match=sentence):
        check_resumed(["-m", *words, f"resume={asked}"])


@pytest.mark.parametrize(
    ("then", "now", "sentence"),
    [
        ("regularizer=[l2_sp],[kl]", "regularizer=['l2_sp']", None),
        ('regularizer=["l2_sp"]', "regularizer=[l2_sp],[kl]", None),
        ("data.weights={x: 1, y: null}", "data.weights={y: null, x: 1}", None),
        (
            "regularizer=[l2_sp],[kl]",
            "regularizer=[ewc]",
            "regularizer must be [l2_sp], as in the sweep that is resumed",
        ),
        ("direction=null", "direction=min", "direction must be null, as in the sweep that is resumed, got min"),
    ],
)
def test_words_are_the_same_however_they_are_written(asked: Path, then: str, now: str, sentence: str | None) -> None:
    (asked / "multirun.yaml").write_text(OmegaConf.to_yaml({"hydra": {"overrides": {"task": [then]}}}))
    if sentence is None:
        check_resumed(["-m", now, f"resume={asked}"])
        return
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check_resumed(["-m", now, f"resume={asked}"])


@pytest.mark.parametrize(
    "more", [[], ["trainer=ddp", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "logger=none"]]
)
@pytest.mark.parametrize("ranks", ["1,2", "1,2,4", "range(1,4)", "1"])
def test_a_resumed_sweep_may_have_more_members_and_run_elsewhere(asked: Path, more: list[str], ranks: str) -> None:
    check_resumed(["-m", "max_steps=2", "method=lora", f"method.rank={ranks}", *more, f"resume={asked}"])


def test_what_a_sweep_was_asked_for_is_still_known_after_another_command_was_refused_in_it(asked: Path) -> None:
    record = asked / "multirun.yaml"
    before = record.read_text()
    with pytest.raises(ConfigError), command_kept(["-m", f"resume={asked}"]):
        record.write_text("method=lora,prompt")
        raise ConfigError("resume must be the sweep that this command started")
    assert record.read_text() == before


@pytest.mark.parametrize("torn", ["hydra:\n  overrides:\n    task: [", "hydra:\n  overr", "", "\xff"])
def test_a_sweep_whose_record_was_torn_goes_on(asked: Path, torn: str) -> None:
    record = asked / "multirun.yaml"
    record.write_bytes(torn.encode("latin-1"))
    check_resumed(["-m", "max_steps=3", f"resume={asked}"])
    with command_kept(["-m", f"resume={asked}"]):
        record.write_text("of the command that goes on")
    assert record.read_text() == "of the command that goes on"
