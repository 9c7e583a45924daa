"""Runs on several targets in tables and charts: each target by itself, and their mean where one figure is shown."""

import io
import json
import re
from pathlib import Path

import yaml
from rich.console import Console, RenderableType
from written_runs import write_run

from forgetmenot.report.charts import curves, pareto
from forgetmenot.report.compare import comparison
from forgetmenot.report.page import write_page
from forgetmenot.report.runs import Group, find_runs, gain, group_runs, mixed_targets
from forgetmenot.report.table import result_table
from forgetmenot.result import RunResult, TaskSection


def _both(folder: Path, *, seed: int = 0) -> Path:
    """Writes a run with a second target, which became 0.1 better, and a third that is scored by its loss alone."""
    write_run(folder, "method=lora", seed=seed, after=0.8)
    result = RunResult.read(folder)
    assert result.tasks is not None and result.gain is not None
    party: TaskSection = {
        "role": "target", "metric": "accuracy", "examples": 4, "before": {"accuracy": 0.5}, "after": {"accuracy": 0.6},
    }  # fmt: skip
    story: TaskSection = {
        "role": "target", "metric": "loss", "examples": 4, "before": {"loss": 3.0}, "after": {"loss": 1.0},
    }  # fmt: skip
    result.tasks |= {"party": party, "story": story}
    result.gain |= {"party": 0.1, "story": 2.0}
    result.gain_mean = 0.3  # of 0.5 and 0.1
    result.write(folder)
    lines = [{"step": step, "val/mean": 0.1 * step, "val/mood/accuracy": 1.0} for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _before_the_mean_was_written(folder: Path) -> Path:
    """Turns a run's result into an older one, which has no mean gain."""
    values = json.loads((folder / "result.json").read_text())
    older = {key: value for key, value in values.items() if not key.startswith("gain_mean")}
    (folder / "result.json").write_text(json.dumps(older))
    return folder


def _groups(folder: Path) -> list[Group]:
    return group_runs(find_runs([folder])[0])


def _printed(table: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, width=240).print(table)
    return stream.getvalue()


def test_one_figure_for_all_is_the_mean_over_those_that_answer(tmp_path: Path) -> None:
    (group,) = _groups(_before_the_mean_was_written(_both(tmp_path / "a")))
    assert [round(value, 6) for value in group.values(gain)] == [0.3], "of 0.5 and 0.1: a loss has no mean with them"
    chart = pareto([group])
    assert chart is not None
    assert round(chart.figure["data"][-1]["y"][0], 6) == 0.3  # type: ignore[index]


def test_a_comparison_shows_each_target_beside_the_mean(tmp_path: Path) -> None:
    groups = _groups(_both(tmp_path / "a"))
    assert mixed_targets(groups) == ["mood", "party", "story"]
    text = _printed(comparison(groups))
    assert all(word in text for word in ("gain mood", "gain party", "+0.500", "+0.100", "+2.000", "+0.300"))


def test_runs_on_one_target_have_no_column_more(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora", seed=0, after=0.8)
    assert "gain mood" not in _printed(comparison(_groups(tmp_path)))


def test_the_table_of_a_run_ends_with_the_mean_gain(tmp_path: Path) -> None:
    result = RunResult.read(_both(tmp_path / "a"))
    result.gain_mean_ci = (0.21, 0.4)
    (row,) = (line for line in _printed(result_table(result)).splitlines() if "mean gain" in line)
    assert "+0.300" in row and "0.21–0.40" in row


def test_learning_curves_follow_the_mean_over_the_targets(tmp_path: Path) -> None:
    chart = curves(_groups(_both(tmp_path / "a")))
    assert chart is not None
    assert chart.figure["data"][0]["y"] == [0.1, 0.2, 0.3]  # type: ignore[index]


def test_the_page_shows_each_target(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", _groups(_both(tmp_path / "a")), [])
    page = (tmp_path / "page.html").read_text()
    assert all(f"<button>gain {name}</button>" in page for name in ("mood", "party", "story"))


def _mixture(folder: Path, *names: str, prompt: str = "text") -> None:
    """Writes a run that trained on data sets of those names."""
    write_run(folder, "method=lora")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["data"] = {"tasks": [{"name": name, "path": f"/a/long/way/to/{name}", "prompt": prompt} for name in names]}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))


def test_mixtures_are_told_apart_by_the_names_of_their_tasks(tmp_path: Path) -> None:
    _mixture(tmp_path / "a", "party", "names")
    _mixture(tmp_path / "b", "party", "names", "mood")
    labels = [group.label for group in _groups(tmp_path)]
    assert labels == ['lora data.tasks=["party", "names"]', 'lora data.tasks=["party", "names", "mood"]']


def test_mixtures_of_the_same_tasks_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    _mixture(tmp_path / "a", "party")
    _mixture(tmp_path / "b", "party", prompt="question")
    labels = [group.label for group in _groups(tmp_path)]
    assert labels == ["lora data.tasks.party.prompt=text", "lora data.tasks.party.prompt=question"]


def test_a_task_that_one_learned_and_another_kept_is_marked_for_each_by_itself(tmp_path: Path) -> None:
    for name, gained in (("a", 0.1), ("b", 0.3)):
        folder = _both(tmp_path / name, seed=0)
        result = RunResult.read(folder)
        assert result.gain is not None
        result.gain |= {"party": gained}
        result.gain_mean = (0.5 + gained) / 2
        result.write(folder)
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump({**settings, "batch_size": gained}))
    for name, lost in (("c", 0.5), ("d", 0.2)):
        write_run(tmp_path / name, "method=lora", f"batch_size={lost}")
        result = RunResult.read(tmp_path / name)
        assert result.tasks is not None and result.forgetting is not None
        result.tasks["party"] = {**result.tasks["names"]}
        result.forgetting["tasks"]["party"] = lost
        result.write(tmp_path / name)

    write_page(tmp_path / "page.html", _groups(tmp_path), [])

    rows = re.findall(r"<tr>(.*?)</tr>", (tmp_path / "page.html").read_text(), re.S)
    marked = {cell for row in rows for cell in re.findall(r'<td[^>]*class="[^"]*best[^"]*"[^>]*>([^<]*)', row)}
    assert {"+0.300", "+0.200"} <= marked and "+0.100" not in marked
