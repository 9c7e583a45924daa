"""How many members a sweeper hands to its launcher at a time."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from forgetmenot.config.count import check_swept, members_at_a_time
from forgetmenot.config.errors import ConfigError

BASIC = {"params": None, "max_batch_size": None}


@pytest.mark.parametrize(
    ("sweeper", "words", "count"),
    [
        (BASIC, ["seed=1", "~schedule"], 1),
        (BASIC, ["seed=1,2,3", "method=lora,prompt", "data.retained=[names,party]"], 6),
        (BASIC, ["seed=1,2,3", "seed=range(0,8)", "data.prompt='a, b'"], 8),
        ({**BASIC, "params": {"method.rank": "2,4,8", "seed": 0}}, ["method.rank=2,4"], 2),
        ({**BASIC, "max_batch_size": 2}, ["seed=1,2,3"], 2),
        ({**BASIC, "max_batch_size": 4}, ["seed=1,2,3"], 3),
        (BASIC, ["seed=1,2", "method=glob(l*)"], None),
        ({"n_jobs": 3, "params": {"method.lr": "interval(0, 1)"}}, [], 3),
    ],
)
def test_the_words_of_a_sweep_tell_how_many_members_it_has(
    tmp_path: Path, sweeper: dict[str, object], words: list[str], count: int | None
) -> None:
    OmegaConf.save(OmegaConf.create({"hydra": {"overrides": {"task": words}}}), tmp_path / "multirun.yaml")
    assert members_at_a_time(OmegaConf.create({"sweeper": sweeper}), sweep=tmp_path) == count


def test_words_that_nobody_kept_tell_nothing(tmp_path: Path) -> None:
    assert members_at_a_time(OmegaConf.create({"sweeper": BASIC}), sweep=tmp_path) is None


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("method.rank=range(2,2)", "method.rank must have a value to run with, got none in method.rank=range(2,2)"),
        (
            "hydra.launcher.n_jobs=0",
            "hydra.launcher.n_jobs must be above 0, or below it to count from the cores (-1: as many), got 0",
        ),
        (
            "hydra.run.dir=all",
            "hydra.run.dir must be left out of a sweep, got all; hydra.sweep.dir=FOLDER holds its runs",
        ),
        (
            "hydra.sweep.subdir=a/${hydra.job.num}",
            "hydra.sweep.subdir must be a name without /, so that the sweep is found again, got a/${hydra.job.num}",
        ),
        (
            "hydra.sweep.subdir=same",
            "hydra.sweep.subdir must hold ${hydra.job.num}, so that each member has a folder of its own, got same",
        ),
        ("sweep=rank,l2_sp", "sweep must be one at a time, got sweep=rank,l2_sp; give each a command of its own"),
        ("hydra.mode=RUN", "hydra.mode must be left out with -m, got RUN; without -m it is one run"),
        ("sweep=[rank,kl]", "sweep must be one at a time, got sweep=[rank,kl]; give each a command of its own"),
    ],
)
def test_words_that_no_sweep_can_be_made_of_are_refused(word: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_swept(["seed=1,2", word])
    assert str(refused.value) == sentence


def test_words_of_one_sweep_are_taken() -> None:
    check_swept(["hydra.sweep.subdir=z${hydra.job.num}", "hydra.sweep.subdir='${hydra:job.num}_$'"])
    check_swept(["hydra.mode=MULTIRUN", "hydra.mode=null"])
    check_swept(["sweep=rank", "seed=1,2", "method=glob(l*)", "~schedule", "method.rank=range(2,4)"])
