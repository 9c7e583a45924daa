"""The table at the end of a run says what result.json says."""

import io

import pytest
from rich.console import Console

from forgetmenot.report.table import cost_sentence, print_result, result_table
from forgetmenot.result import RunResult


def _result() -> RunResult:
    return RunResult(
        status="complete",
        model={"name": "tiny", "architecture": "causal", "parameters": 4_700_000},
        method={"name": "lora", "lr": 1e-3, "trainable_percent": 0.8, "saved_bytes": 150_000},
        data={"name": "mood"},
        cost={
            "train_seconds": 41.0,
            "loading_seconds": 0.41,
            "train_tokens": 51_200,
            "train_tokens_per_second": 1277.4,
            "peak_memory_bytes": 910_000_000,
            "evaluate_seconds": 12.0,
            "prompt_tokens_per_example": 31.4,
        },
        tasks={
            "mood": {"role": "target", "metric": "accuracy", "before": {"accuracy": 0.41}, "after": {"accuracy": 0.86}},
            "names": {
                "role": "retained", "metric": "accuracy", "counted": True, "reason": None,
                "before": {"accuracy": 0.9}, "after": {"accuracy": 0.59},
            },
            "text": {
                "role": "retained", "metric": "loss", "counted": False, "reason": "loss only",
                "before": {"loss": 2.0}, "after": {"loss": 2.08},
            },
        },
        gain={"mood": 0.45},
        forgetting={"tasks": {"names": 0.31, "text": 0.08}, "mean": 0.31},
    )  # fmt: skip


def _printed(result: RunResult) -> str:
    console = Console(file=io.StringIO(), width=160)
    print_result(result, folder="outputs/runs/a", console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _printed_table(result: RunResult) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(result_table(result))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _row(text: str, name: str) -> list[str]:
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]
    (row,) = [row for row in rows if row[0].split()[0] == name]
    return row


def test_the_target_has_its_gain_and_a_retained_task_its_forgetting() -> None:
    text = _printed(_result())
    assert _row(text, "mood") == ["mood", "accuracy", "0.410", "0.860", "+0.450", "", ""]
    assert _row(text, "names") == ["names", "accuracy", "0.900", "0.590", "", "+0.310", ""]


def test_a_task_that_does_not_count_says_why() -> None:
    row = _row(_printed(_result()), "text,")
    assert (row[0], row[-2:]) == ("text, loss only", ["+0.080", ""])


@pytest.mark.parametrize("reason", ["zero by construction", "base cannot do it"])
def test_a_longer_reason_is_told_below_and_breaks_no_row_of_a_narrow_terminal(reason: str) -> None:
    result = _result()
    assert result.tasks is not None and result.forgetting is not None
    result.tasks["fact_or_opinion"] = {**result.tasks["names"]}
    for name in ("names", "fact_or_opinion"):
        result.tasks[name]["reason"] = reason
        result.forgetting["tasks"][name] = 0.0
    result.forgetting_ci = {"tasks": dict.fromkeys(result.forgetting["tasks"], (-0.05, 0.05)), "mean": (-0.05, 0.05)}
    result.gain_ci = {"mood": (0.4, 0.5)}
    console = Console(file=io.StringIO(), width=80)
    console.print(result_table(result))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert _row(text, "fact_or_opinion")[:2] == ["fact_or_opinion", "accuracy"]
    assert _row(text, "names")[-2:] == ["+0.000", "-0.05–0.05"]
    assert text.splitlines()[-1].strip() == f"{reason}: names, fact_or_opinion"
    assert all(line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│"))


def test_every_difference_has_its_interval_where_the_file_has_it() -> None:
    result = _result()
    result.gain_ci = {"mood": (0.4, 0.5)}
    result.forgetting_ci = {"tasks": {"names": (0.21, 0.414), "text": (-0.01, 0.1)}, "mean": (0.21, 0.414)}
    text = _printed(result)
    shown = [_row(text, name)[-1] for name in ("mood", "names", "text,", "mean")]
    assert shown == ["0.40–0.50", "0.21–0.41", "-0.01–0.10", "0.21–0.41"]


def test_one_model_alone_shows_its_scores_and_their_intervals() -> None:
    result = _result()
    assert result.tasks is not None
    result.method = result.gain = result.forgetting = None
    for task in result.tasks.values():
        task["after"] = None
        task["ci"] = {"before": {task["metric"]: (0.1, 0.6)}, "after": None}
    text = _printed_table(result)
    assert _row(text, "mood") == ["mood", "accuracy", "0.410", "", "", "", "0.10–0.60"]
    assert "tiny on mood" in text and "mean" not in text


def test_the_mean_is_told_over_what_counts() -> None:
    assert _row(_printed(_result()), "mean")[-2] == "+0.310"


def test_a_run_in_which_nothing_counts_says_so_and_not_zero() -> None:
    result = _result()
    result.forgetting = {"tasks": {"names": 0.31, "text": 0.08}, "mean": None}
    assert _row(_printed(result), "mean")[-2] == "none counts"


def test_the_cost_is_one_sentence_with_units() -> None:
    assert cost_sentence(_result()) == (
        "Trained 0.8% of 4.7 M parameters in 41 s (1,277 tokens a second, 1.0% of it waiting for data, "
        "peak memory 0.91 GB), scored in 12 s, saved 0.15 MB."
    )


def test_the_cost_of_a_run_that_trained_nothing_is_its_prompts() -> None:
    result = _result()
    assert result.cost is not None
    result.cost |= {"train_seconds": None, "prompt_tokens_per_example": 139.6}
    assert cost_sentence(result) == "Trained nothing; prompts have 140 tokens in the mean, scored in 12 s."


def test_the_cost_is_told_even_where_speed_and_memory_are_not_known() -> None:
    result = _result()
    assert result.cost is not None
    result.cost |= {"train_tokens_per_second": None, "peak_memory_bytes": None}
    assert "Trained 0.8%" in cost_sentence(result)


def test_the_table_is_titled_by_method_and_data() -> None:
    assert result_table(_result()).title == "lora on mood"


def test_the_folder_is_told_on_one_line_however_long_it_is() -> None:
    console = Console(file=io.StringIO(), width=40)
    folder = "outputs/" + "x" * 100
    print_result(_result(), folder=folder, console=console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[-1] == f"The run lies in {folder}"


def test_a_score_that_is_no_number_after_a_broken_run_still_prints() -> None:
    result = _result()
    assert result.tasks is not None and result.gain is not None
    result.tasks["mood"]["after"]["accuracy"] = None
    result.gain["mood"] = None  # type: ignore[assignment]
    assert "mood" in _printed(result)


def test_a_folder_with_square_brackets_is_printed_as_it_is() -> None:
    console = Console(file=io.StringIO(), width=160)
    print_result(_result(), folder="outputs/a[/b]", console=console)
    assert isinstance(console.file, io.StringIO)
    assert "The run lies in outputs/a[/b]" in console.file.getvalue()
