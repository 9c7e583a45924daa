"""Which runs of a sweep are best, by what they say they are judged by."""

from pathlib import Path
from typing import Literal

from written_runs import write_run

from forgetmenot.report.best import best_sentences
from forgetmenot.report.runs import find_runs, group_runs
from forgetmenot.result import RunResult


def _write(
    folder: Path, *settings: str, value: float | None, name: str = "val.accuracy", seed: int = 0, best: str = "max"
) -> None:
    direction: Literal["max", "min"] = "max" if best == "max" else "min"
    write_run(folder, *settings, seed=seed)
    result = RunResult.read(folder)
    result.objective = {"name": name, "value": value, "direction": direction}
    result.write(folder)


def _said(place: Path) -> list[str]:
    return best_sentences(group_runs(find_runs([place])[0]))


def test_the_highest_mean_over_seeds_is_best(tmp_path: Path) -> None:
    for seed, (two, four) in enumerate([(0.9, 0.7), (0.3, 0.8)]):
        _write(tmp_path / f"2_{seed}", "method.rank=2", value=two, seed=seed)
        _write(tmp_path / f"4_{seed}", "method.rank=4", value=four, seed=seed)
    assert _said(tmp_path) == ["best by val.accuracy (highest): lora method.rank=4, 0.750 in the mean over seeds"]


def test_groups_that_are_equally_good_are_all_told(tmp_path: Path) -> None:
    for rank, value in ((2, 0.5), (4, 0.7), (8, 0.7)):
        _write(tmp_path / str(rank), f"method.rank={rank}", value=value)
    assert _said(tmp_path) == ["best by val.accuracy (highest): lora method.rank=4 and lora method.rank=8, 0.700"]


def test_an_objective_that_falls_and_reads_the_test_split_says_so(tmp_path: Path) -> None:
    for rank, value in ((2, 0.1), (4, 0.2), (8, None)):
        _write(tmp_path / str(rank), f"method.rank={rank}", value=value, name="forgetting.mean", best="min")
    assert _said(tmp_path) == [
        "best by forgetting.mean (lowest): lora method.rank=2, 0.100; forgetting.mean reads the test split, so its "
        "scores are no longer unseen"
    ]


def test_one_group_or_unlike_objectives_have_no_best(tmp_path: Path) -> None:
    _write(tmp_path / "a", "method.rank=2", value=0.5)
    assert _said(tmp_path) == []
    _write(tmp_path / "b", "method.rank=4", value=0.5, name="gain")
    assert _said(tmp_path) == []


def test_runs_from_before_there_were_objectives_have_no_best(tmp_path: Path) -> None:
    for rank in (2, 4):
        write_run(tmp_path / str(rank), f"method.rank={rank}")
    assert _said(tmp_path) == []
