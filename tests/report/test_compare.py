"""Runs side by side: seeds together, settings apart, answers next to each other."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console, RenderableType
from written_runs import write_run

from forgetmenot.report.compare import answers_side_by_side, answers_table, comparison
from forgetmenot.report.figures import spread
from forgetmenot.report.runs import find_runs, group_runs
from forgetmenot.result import RunResult


def _cells(table: RenderableType) -> list[list[str]]:
    """Returns what a table prints, row by row."""
    console = Console(file=io.StringIO(), width=400)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_seeds_of_the_same_settings_are_one_row_with_mean_and_spread(tmp_path: Path) -> None:
    for seed, after in enumerate((0.7, 0.8, 0.9)):
        write_run(tmp_path / str(seed), "method=lora", seed=seed, after=after)

    runs, _ = find_runs([tmp_path])
    (row,) = _cells(comparison(group_runs(runs)))

    assert row[:5] == ["lora", "3", "0.800 ± 0.100", "+0.500 ± 0.100", "+0.500 ± 0.000"]
    assert row[6:] == ["1.2", "12", "1.25"]


def test_settings_that_differ_are_rows_of_their_own_named_by_what_differs(tmp_path: Path) -> None:
    for rank in (2, 4):
        write_run(tmp_path / str(rank), "method=lora", f"method.rank={rank}")
    write_run(tmp_path / "full", "method=full")

    groups = group_runs(find_runs([tmp_path])[0])

    assert [group.label for group in groups] == ["lora method.rank=2", "lora method.rank=4", "full"]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_figure_is_cut_or_broken_in_a_narrow_terminal(tmp_path: Path, width: int) -> None:
    for seed in (0, 1):
        write_run(tmp_path / str(seed), "method=regularized", seed=seed, after=0.7 + seed / 8)
        result = RunResult.read(tmp_path / str(seed))
        assert result.forgetting is not None
        result.forgetting["tasks"] = dict.fromkeys(("names", "party", "fact_or_opinion", "text"), 0.5 + seed / 8)
        result.write(tmp_path / str(seed))
    groups = group_runs(find_runs([tmp_path])[0])
    console = Console(file=io.StringIO(), width=width)
    console.print(comparison(groups))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    rows = [line for line in text.splitlines() if line.startswith("│")]
    assert "…" not in text and all(row.split("│")[1].strip() == "regularized" for row in rows)
    cells = [cell.strip() for row in rows for cell in row.strip("│").split("│")[1:]]
    assert cells == [cell for cell in _cells(comparison(groups))[0][1:] if cell]
    assert cells.count("+0.562 ± 0.088") == 4 and "fact_or_opinion" in text
    assert max(map(len, text.splitlines())) <= width


def test_other_settings_under_the_same_command_line_are_not_seeds(tmp_path: Path) -> None:
    for rank in ("2", "4"):
        write_run(tmp_path / rank, "method=lora")
        with (tmp_path / rank / "config.yaml").open("a") as config:
            config.write(f"rank: {rank}\n")

    assert [group.label for group in group_runs(find_runs([tmp_path])[0])] == ["lora rank=2", "lora rank=4"]


def test_a_run_made_again_with_the_same_seed_counts_once_and_is_the_last(tmp_path: Path) -> None:
    for name, after in (("first", 0.5), ("again", 0.9)):
        write_run(tmp_path / name, "method=lora", after=after)
        result = RunResult.read(tmp_path / name)
        result.started = f"2026-01-01T00:00:0{int(after * 10)}"
        result.write(tmp_path / name)

    (row,) = _cells(comparison(group_runs(find_runs([tmp_path])[0])))

    assert row[1:3] == ["1", "0.900"]


def test_how_a_machine_cuts_steps_does_not_set_seeds_apart(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / str(seed), "method=lora", f"micro_batch_tokens={1024 * (seed + 1)}", seed=seed)

    assert [len(group.runs) for group in group_runs(find_runs([tmp_path])[0])] == [2]


def test_text_in_square_brackets_is_shown_as_it_is(tmp_path: Path) -> None:
    for targets in ("[q]", "[/v]"):
        write_run(tmp_path / targets.strip("[/]"), "method=lora", f"method.targets={targets}")

    rows = _cells(comparison(group_runs(find_runs([tmp_path])[0])))

    assert [row[0] for row in rows] == ["lora method.targets=[q]", "lora method.targets=[/v]"]


def test_runs_that_are_not_complete_are_told_apart_and_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora")
    write_run(tmp_path / "b", "method=lora", seed=1, status="failed")
    write_run(tmp_path / "c", "method=lora", seed=2, status="interrupted")
    write_run(tmp_path / "d", "method=lora", seed=3)
    (tmp_path / "d" / "result.json").unlink()
    write_run(tmp_path / "e", "method=lora", seed=4)
    (tmp_path / "e" / "result.json").write_text('{"schema_version"')

    runs, others = find_runs([tmp_path, tmp_path / "a"])

    assert [run.folder.name for run in runs] == ["a"]
    why = {other.folder.name: other.why for other in others}
    assert (why["b"], why["c"]) == ("failed", "interrupted")
    assert why["d"].startswith("half-written")
    assert "must be JSON" in why["e"]


@pytest.mark.parametrize("lacks", ["model", "data", "tasks", "started"])
def test_a_complete_result_without_what_it_needs_is_left_out(tmp_path: Path, lacks: str) -> None:
    for name in ("good", "damaged"):
        write_run(tmp_path / name, "method=lora")
    file = tmp_path / "damaged" / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), lacks: None}))

    complete, others = find_runs([tmp_path])

    assert [run.folder.name for run in complete] == ["good"]
    assert [run.why for run in others] == [f"result.json must have {lacks} where it is complete"]


@pytest.mark.parametrize(
    ("config", "read"), [(b"day: 2020-01-01", True), (b"day: 2020-13-45", False), (b"\xff", False)]
)
def test_a_config_that_cannot_be_read_is_told_of_by_its_run(tmp_path: Path, config: bytes, read: bool) -> None:
    for name in ("good", "other"):
        write_run(tmp_path / name, "method=lora")
    (tmp_path / "other" / "config.yaml").write_bytes(config)
    complete, others = find_runs([tmp_path])
    assert (len(complete), len(others)) == ((2, 0) if read else (1, 1))
    assert all(run.why.startswith("config.yaml must be YAML") for run in others)


def test_a_folder_that_is_called_wandb_may_hold_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "wandb" / "a", "method=lora")
    (tmp_path / "wandb" / "a" / "wandb").mkdir()
    (tmp_path / "wandb" / "a" / "wandb" / "config.yaml").write_text("its: own")
    complete, others = find_runs([tmp_path / "wandb"])
    assert (len(complete), len(others)) == (1, 0)


def test_results_from_before_there_were_intervals_still_load(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora")
    (run,), _ = find_runs([tmp_path])
    assert (run.result.gain_ci, run.result.forgetting_ci, run.result.drift) == (None, None, None)


def test_answers_stand_beside_the_reference_and_the_base(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora")
    write_run(tmp_path / "b", "method=full")

    (answers,) = answers_side_by_side(group_runs(find_runs([tmp_path])[0]), per_task=3)
    first, *_ = _cells(answers_table(answers))

    assert first == ["I am Ada.", "Ada", "Ada", "lora says positive", "full says positive"]


def test_runs_of_another_base_answer_in_a_table_of_their_own(tmp_path: Path) -> None:
    for method in ("lora", "full"):
        write_run(tmp_path / method, f"method={method}")
    file = tmp_path / "full" / "predictions" / "names.jsonl"
    file.write_text(file.read_text().replace('"before": "Ada"', '"before": "Bob"'))

    tables = answers_side_by_side(group_runs(find_runs([tmp_path])[0]), per_task=3)

    assert {tuple(table.rows[0][2:]) for table in tables} == {
        ("Ada", "lora says positive"),
        ("Bob", "full says positive"),
    }


@pytest.mark.parametrize(("values", "text"), [([], ""), ([0.25], "+0.250"), ([0.25, 0.25], "+0.250 ± 0.000")])
def test_one_value_has_no_spread_and_none_no_number(values: list[float], text: str) -> None:
    assert spread(values, sign="+") == text


def test_a_folder_without_complete_runs_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora", status="interrupted")
    with pytest.raises(
        ValueError, match=r"^PATH must be a folder with complete runs, got 1 runs, none of them complete$"
    ):
        find_runs([tmp_path])


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^PATH must be an existing folder, got .*nowhere$"):
        find_runs([tmp_path / "nowhere"])
