"""Shots: training examples that stand before prompts as text, drawn by a seed and never from test."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from forgetmenot.data.examples import TaskExamples
from forgetmenot.data.types import Example
from forgetmenot.durable import write_whole


def draw_shots(data: TaskExamples, num_shots: int, *, seed: int, key: str = "num_shots") -> str:
    """Returns the text of `num_shots` of the task's training examples, drawn by `seed`, none of them twice.

    Raises ValueError, naming the setting's `key`, where there are not as many, or no prompts to stand before.
    """
    if not num_shots:
        return ""
    if data.task.prompt is None:
        raise ValueError(f"{key} must be 0 for plain text, which has no prompts, got {num_shots} for {data.task.name}")
    if not 0 < num_shots <= len(data.train):
        raise ValueError(
            f"{key} must be at least 0 and at most the {len(data.train)} training examples of {data.task.name}, "
            f"got {num_shots}"
        )
    drawn = np.random.default_rng(seed).choice(len(data.train), num_shots, replace=False)
    return "".join(f"{data.train[i].prompt}{data.train[i].completion}\n\n" for i in drawn)


def put_before(data: TaskExamples, shots: str) -> TaskExamples:
    """Returns `data` with the same text before each validation and each test prompt; the rest stays as it is."""

    def shown(examples: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(replace(example, prompt=shots + example.prompt) for example in examples)

    return replace(data, validation=shown(data.validation), test=shown(data.test)) if shots else data


def write_shots(folder: Path, shots: str, *, task: str) -> None:
    """Writes what stands before each prompt of `task`, whole or not at all; no shots are an empty text."""
    write_whole(folder / f"{task}.txt", shots)


def read_shots(folder: Path, *, task: str) -> str:
    """Returns what a run put before each prompt of `task`; nothing where it was not that run's target."""
    file = folder / f"{task}.txt"
    return file.read_bytes().decode() if file.is_file() else ""
