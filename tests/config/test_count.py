"""How many members a sweeper hands to its launcher at a time."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from forgetmenot.config.count import members_at_a_time

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
