"""Shots: drawn from train by the seed, put before validation and test prompts, kept as text."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_tasks import make_task

from forgetmenot.data.examples import TaskExamples
from forgetmenot.data.shots import draw_shots, put_before, read_shots, write_shots
from forgetmenot.data.types import Example


def split(name: str, number: int) -> tuple[Example, ...]:
    pairs = [(f"{name} {i} ", str(i)) for i in range(number)]
    return tuple(Example(prompt=prompt, completion=text, references=(text,)) for prompt, text in pairs)


DATA = TaskExamples(task=make_task(), train=split("train", 9), validation=split("val", 2), test=split("test", 3))


def test_shots_are_whole_training_examples_and_each_stands_once() -> None:
    *shots, end = draw_shots(DATA, 9, seed=0).split("\n\n")
    assert sorted(shots) == [f"train {i} {i}" for i in range(9)]
    assert end == "", "a blank line stands before the prompt, too"


def test_the_seed_draws_them() -> None:
    drawn = [draw_shots(DATA, 3, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_they_stand_before_validation_and_test_prompts_and_change_nothing_else() -> None:
    shown = put_before(DATA, "shown\n\n")
    for name in ("validation", "test"):
        before, after = getattr(DATA, name), getattr(shown, name)
        assert [example.prompt for example in after] == [f"shown\n\n{example.prompt}" for example in before]
        assert tuple(replace(new, prompt=old.prompt) for new, old in zip(after, before, strict=True)) == before
    assert shown.train == DATA.train


def test_no_shots_leave_everything_as_it_is() -> None:
    assert draw_shots(DATA, 0, seed=0) == ""
    assert put_before(DATA, "") is DATA


def test_more_shots_than_training_examples_are_refused_by_the_name_of_the_setting() -> None:
    with pytest.raises(ValueError, match=r"^method\.num_shots must be .* at most the 9 training examples of quiz, got"):
        draw_shots(DATA, 10, seed=0, key="method.num_shots")


def test_plain_text_has_no_prompts_for_shots() -> None:
    text = replace(DATA, task=make_task(metric="loss"))
    with pytest.raises(ValueError, match=r"^num_shots must be 0 for plain text, which has no prompts, got 2 for quiz$"):
        draw_shots(text, 2, seed=0)


@pytest.mark.parametrize("shots", ["", "Größe?\r\nyes\n\n"])
def test_what_is_written_is_read_for_its_task_alone(tmp_path: Path, shots: str) -> None:
    write_shots(tmp_path / "prompt", shots, task="mood")
    assert read_shots(tmp_path / "prompt", task="mood") == shots
    assert read_shots(tmp_path / "prompt", task="other") == ""
