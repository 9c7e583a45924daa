"""Runs side by side: seeds together, settings apart, answers next to each other."""

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from rich.table import Table

from forgetmenot.report.compare import answers, comparison, find_runs, group_runs, spread
from forgetmenot.result import RunResult


def _write(folder: Path, *settings: str, seed: int = 0, after: float = 0.8, status: str = "complete") -> None:
    """Writes a run that took half of `names` along and answered "positive" to its one prompt."""
    method = next((word.partition("=")[2] for word in settings if word.startswith("method=")), "lora")
    RunResult(
        status=status,  # type: ignore[arg-type]
        name=folder.name,
        overrides=["data=mood", *settings, f"seed={seed}"],
        seed=seed,
        model={"name": "tiny", "architecture": "causal", "parameters": 1000},
        data={
            "name": "mood", "train_examples": 4, "validation_examples": 4, "test_examples": 4,
            "truncated": 0, "dropped": 0,
        },
        method={
            "name": method, "lr": 0.1, "trainable_parameters": 10, "trainable_percent": 1.25, "saved_bytes": 5,
        },
        cost={
            "train_seconds": 12.0, "train_tokens": 9, "train_tokens_per_second": 3.0,
            "peak_memory_bytes": 1_250_000_000, "evaluate_seconds": 1.0, "prompt_tokens_per_example": 4.0,
        },
        tasks={
            "mood": {
                "role": "target", "metric": "accuracy", "examples": 4,
                "before": {"accuracy": 0.3}, "after": {"accuracy": after},
            },
            "names": {
                "role": "retained", "metric": "accuracy", "examples": 1, "counted": True, "reason": None,
                "before": {"accuracy": 1.0}, "after": {"accuracy": 0.5},
            },
        },
        gain={"mood": after - 0.3},
        forgetting={"tasks": {"names": 0.5}, "mean": 0.5},
    ).write(folder)  # fmt: skip
    keys = dict(word.split("=") for word in settings)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "hydra": {"dir": str(folder)}, **keys}))
    (folder / "predictions").mkdir()
    line = {"prompt": "I am Ada.\nWho?", "references": ["Ada"], "before": "Ada", "after": f"{method} says positive"}
    (folder / "predictions" / "names.jsonl").write_text(json.dumps(line) + "\n")


def _cells(table: Table) -> list[list[str]]:
    """Returns what a table prints, row by row."""
    console = Console(file=io.StringIO(), width=400)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_seeds_of_the_same_settings_are_one_row_with_mean_and_spread(tmp_path: Path) -> None:
    for seed, after in enumerate((0.7, 0.8, 0.9)):
        _write(tmp_path / str(seed), "method=lora", seed=seed, after=after)

    runs, _ = find_runs([tmp_path])
    (row,) = _cells(comparison(group_runs(runs)))

    assert row[:5] == ["lora", "3", "0.800 ± 0.100", "+0.500 ± 0.100", "+0.500 ± 0.000"]
    assert row[6:] == ["1.2", "12", "1.25"]


def test_settings_that_differ_are_rows_of_their_own_named_by_what_differs(tmp_path: Path) -> None:
    for rank in (2, 4):
        _write(tmp_path / str(rank), "method=lora", f"method.rank={rank}")
    _write(tmp_path / "full", "method=full")

    groups = group_runs(find_runs([tmp_path])[0])

    assert [group.label for group in groups] == ["lora method.rank=2", "lora method.rank=4", "full"]


def test_other_settings_under_the_same_command_line_are_not_seeds(tmp_path: Path) -> None:
    for rank in ("2", "4"):
        _write(tmp_path / rank, "method=lora")
        with (tmp_path / rank / "config.yaml").open("a") as config:
            config.write(f"rank: {rank}\n")

    assert [group.label for group in group_runs(find_runs([tmp_path])[0])] == ["lora rank=2", "lora rank=4"]


def test_a_run_made_again_with_the_same_seed_counts_once_and_is_the_last(tmp_path: Path) -> None:
    for name, after in (("first", 0.5), ("again", 0.9)):
        _write(tmp_path / name, "method=lora", after=after)
        result = RunResult.read(tmp_path / name)
        result.started = f"2026-01-01T00:00:0{int(after * 10)}"
        result.write(tmp_path / name)

    (row,) = _cells(comparison(group_runs(find_runs([tmp_path])[0])))

    assert row[1:3] == ["1", "0.900"]


def test_how_a_machine_cuts_steps_does_not_set_seeds_apart(tmp_path: Path) -> None:
    for seed in (0, 1):
        _write(tmp_path / str(seed), "method=lora", f"micro_batch_tokens={1024 * (seed + 1)}", seed=seed)

    assert [len(group.runs) for group in group_runs(find_runs([tmp_path])[0])] == [2]


def test_text_in_square_brackets_is_shown_as_it_is(tmp_path: Path) -> None:
    for targets in ("[q]", "[/v]"):
        _write(tmp_path / targets.strip("[/]"), "method=lora", f"method.targets={targets}")

    rows = _cells(comparison(group_runs(find_runs([tmp_path])[0])))

    assert [row[0] for row in rows] == ["lora method.targets=[q]", "lora method.targets=[/v]"]


def test_runs_that_are_not_complete_are_counted_and_left_out(tmp_path: Path) -> None:
    _write(tmp_path / "a", "method=lora")
    _write(tmp_path / "b", "method=lora", seed=1, status="failed")

    runs, left_out = find_runs([tmp_path, tmp_path / "a"])

    assert ([run.folder.name for run in runs], left_out) == (["a"], 1)


def test_answers_stand_beside_the_reference_and_the_base(tmp_path: Path) -> None:
    _write(tmp_path / "a", "method=lora")
    _write(tmp_path / "b", "method=full")

    (table,) = answers(group_runs(find_runs([tmp_path])[0]), per_task=3)
    first, *_ = _cells(table)

    assert first == ["I am Ada.", "Ada", "Ada", "lora says positive", "full says positive"]


def test_runs_of_another_base_answer_in_a_table_of_their_own(tmp_path: Path) -> None:
    for method in ("lora", "full"):
        _write(tmp_path / method, f"method={method}")
    file = tmp_path / "full" / "predictions" / "names.jsonl"
    file.write_text(file.read_text().replace('"before": "Ada"', '"before": "Bob"'))

    tables = answers(group_runs(find_runs([tmp_path])[0]), per_task=3)

    assert {tuple(_cells(table)[0][2:]) for table in tables} == {
        ("Ada", "lora says positive"),
        ("Bob", "full says positive"),
    }


@pytest.mark.parametrize(("values", "text"), [([], ""), ([0.25], "+0.250"), ([0.25, 0.25], "+0.250 ± 0.000")])
def test_one_value_has_no_spread_and_none_no_number(values: list[float], text: str) -> None:
    assert spread(values, sign="+") == text


def test_a_folder_without_complete_runs_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path / "a", "method=lora", status="interrupted")
    with pytest.raises(
        ValueError, match=r"^PATH must be a folder with complete runs, got 1 runs, none of them complete$"
    ):
        find_runs([tmp_path])


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^PATH must be an existing folder, got .*nowhere$"):
        find_runs([tmp_path / "nowhere"])
