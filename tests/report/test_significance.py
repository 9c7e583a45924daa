"""Whether one group answers better than another: beyond the chance of examples and of seeds."""

import json
from pathlib import Path

import pytest
import yaml
from written_runs import write_run

from forgetmenot.report.runs import Group, find_runs, group_runs
from forgetmenot.report.significance import difference


def answered(folder: Path, method: str, right: list[int], *, seed: int = 0, examples: int = 100) -> None:
    """Writes a run that answered the examples in `right` correctly."""
    write_run(folder, f"method={method}", seed=seed)
    lines = [
        {"prompt": f"{i}?", "references": [str(i)], "before": "", "after": str(i) if i in right else "wrong"}
        for i in range(examples)
    ]
    (folder / "predictions" / "mood.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def groups(place: Path) -> dict[str, Group]:
    return {group.label: group for group in group_runs(find_runs([place])[0])}


def test_the_difference_lies_in_its_interval_and_swaps_with_the_groups(tmp_path: Path) -> None:
    answered(tmp_path / "a", "lora", list(range(80)))
    answered(tmp_path / "b", "full", list(range(60)))
    found = groups(tmp_path)

    low, high = difference(found["lora"], found["full"], task="mood")  # type: ignore[misc]

    assert 0 < low < 0.2 < high < 0.35
    assert difference(found["full"], found["lora"], task="mood") == pytest.approx((-high, -low))


def test_a_few_examples_more_are_no_difference_beyond_chance(tmp_path: Path) -> None:
    answered(tmp_path / "a", "lora", list(range(0, 52)))
    answered(tmp_path / "b", "full", list(range(50, 100)))
    found = groups(tmp_path)
    low, high = difference(found["lora"], found["full"], task="mood")  # type: ignore[misc]
    assert low < 0 < high


def test_the_same_examples_are_paired_so_that_few_are_enough_where_one_is_right_wherever_the_other_is(
    tmp_path: Path,
) -> None:
    answered(tmp_path / "a", "lora", list(range(58)))
    answered(tmp_path / "b", "full", list(range(50)))
    found = groups(tmp_path)
    low, _ = difference(found["lora"], found["full"], task="mood")  # type: ignore[misc]
    assert low > 0


def test_texts_with_other_separators_of_lines_are_read_whole(tmp_path: Path) -> None:
    for method, right in (("lora", 80), ("full", 60)):
        answered(tmp_path / method, method, list(range(right)))
        file = tmp_path / method / "predictions" / "mood.jsonl"
        file.write_text(file.read_text().replace("0?", "0\u2028?\x85"), encoding="utf-8")
    found = groups(tmp_path)
    assert difference(found["lora"], found["full"], task="mood") is not None


def test_seeds_that_differ_widen_the_interval(tmp_path: Path) -> None:
    for name, counts in (("steady", (70, 70, 70)), ("shaky", (50, 70, 90))):
        for seed, count in enumerate(counts):
            answered(tmp_path / name / str(seed), name, list(range(count)), seed=seed)
    answered(tmp_path / "other", "other", list(range(40)))
    found = groups(tmp_path)
    steady, shaky = (difference(found[name], found["other"], task="mood") for name in ("steady", "shaky"))
    assert steady is not None and shaky is not None
    assert shaky[1] - shaky[0] > 1.3 * (steady[1] - steady[0])


BEST, AVERAGE = ({"rouge_of_several": each} for each in ("best", "average"))


@pytest.mark.parametrize(
    ("data", "task", "expected"),
    [
        ({**AVERAGE, "name": "mood", "retained": [{"name": "names", **BEST}]}, "mood", 0.5),
        ({**AVERAGE, "name": "mood", "retained": [{"name": "names", **BEST}]}, "names", 1.0),
        ({**BEST, "name": "mood", "retained": [{"name": "names", **AVERAGE}]}, "names", 0.5),
        ({"name": "both", "tasks": [{"name": "mood", **AVERAGE}], "retained": []}, "mood", 0.5),
    ],
)
def test_each_task_is_scored_over_several_references_as_it_says_itself(
    tmp_path: Path, data: dict[str, object], task: str, expected: float
) -> None:
    for method, said in (("lora", "Ada"), ("full", "nobody")):
        folder = tmp_path / method
        write_run(folder, f"method={method}")
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump({**settings, "data": data}))
        result = json.loads((folder / "result.json").read_text())
        result["tasks"][task]["metric"] = "rouge1_fmeasure"
        (folder / "result.json").write_text(json.dumps(result))
        line = {"prompt": "?", "references": ["Ada", "Eve"], "before": "", "after": said}
        (folder / "predictions" / f"{task}.jsonl").write_text(f"{json.dumps(line)}\n" * 3)
    found = groups(tmp_path)

    assert difference(found["lora"], found["full"], task=task) == (expected, expected)


def test_nothing_is_said_of_runs_that_were_asked_other_prompts_or_left_no_answers(tmp_path: Path) -> None:
    answered(tmp_path / "a", "lora", [1])
    answered(tmp_path / "b", "full", [1], examples=99)
    write_run(tmp_path / "c", "method=prompt")
    found = groups(tmp_path)
    assert difference(found["lora"], found["full"], task="mood") is None
    assert difference(found["lora"], found["prompt"], task="mood") is None
    assert difference(found["lora"], found["full"], task="nothing") is None
