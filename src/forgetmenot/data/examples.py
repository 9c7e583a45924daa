"""A task's examples, read and rendered, and what a model reads of them, encoded once for training and for scoring."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from forgetmenot.data.encode import Encoder
from forgetmenot.data.read import read
from forgetmenot.data.rows import EncodedSplit
from forgetmenot.data.task import Task
from forgetmenot.data.types import Example, Record
from forgetmenot.result import Role


@dataclass(frozen=True, kw_only=True)
class TaskExamples:
    """A task with the examples of its splits, in file order."""

    task: Task
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]


class ReadExamples(Protocol):
    """What gives a task its examples."""

    def __call__(self, task: Task, *, seed: int) -> TaskExamples:
        """Returns them; what is drawn is drawn by `seed`."""


@dataclass(frozen=True, kw_only=True)
class ScoringSet:
    """The examples that a score is taken over, and their rows; a task that answers has a row for each.

    `choices` has the same prompts with each of the completions that they can have.
    """

    task: Task
    examples: tuple[Example, ...]
    rows: EncodedSplit
    num_bytes: np.ndarray
    """(rows,) of the text that each row's supervised tokens stand for."""
    choices: tuple[EncodedSplit, ...] = ()
    role: Role = "target"

    @property
    def references(self) -> list[tuple[str, ...]]:
        """The references of every example."""
        return [example.references for example in self.examples]


def read_examples(task: Task, *, seed: int) -> TaskExamples:
    """Returns all examples of `task`, those to train on by templates that are drawn by `seed`.

    Raises ValueError naming file and line of the first that is broken.
    """
    records = read(task.path, seed=seed)
    columns = {column for split in records.values() for record in split for column in record.values}
    if task.references is not None and task.references not in columns:
        there = ", ".join(sorted(columns))
        raise ValueError(f"data.references must name a column of {task.path} ({there}), got {task.references}")
    drawn = np.random.default_rng(seed).integers(len(task.templates) or 1, size=len(records["train"]))
    splits = {
        name: _render(task, split, templates=drawn if name == "train" else np.zeros(len(split), dtype=int))
        for name, split in records.items()
    }
    if not splits["test"]:
        raise ValueError(f"{task.path} must hold a test split, or a train split to take it from, got neither")
    return TaskExamples(task=task, train=splits["train"], validation=splits["validation"], test=splits["test"])


def no_examples(task: Task, *, seed: int) -> TaskExamples:
    """Returns `task` without examples, for who has a prompt of another kind; no file is read."""
    return TaskExamples(task=task, train=(), validation=(), test=())


def _render(task: Task, records: Sequence[Record], *, templates: np.ndarray) -> tuple[Example, ...]:
    """Returns the examples of one split; where no record of it has references, completions are the references."""
    if not any(task.references in record.values for record in records):
        task = replace(task, references=None)
    pairs = zip(records, templates.tolist(), strict=True)
    return tuple(task.render(record, template=template) for record, template in pairs)


@dataclass(frozen=True, kw_only=True)
class EncodedRun:
    """All that a run reads: training rows, the targets' bounded validation sets, and test sets, the targets' first.

    Training rows stand in the order of the test sets, a retained task's where it is replayed; `sizes` says how many of
    them each task has.
    """

    train: EncodedSplit
    sizes: tuple[int, ...]
    validation: tuple[ScoringSet, ...]
    tests: tuple[ScoringSet, ...]


def encode_run(
    targets: Sequence[TaskExamples],
    retained: Sequence[TaskExamples],
    *,
    encoder: Encoder,
    embedding_rows: int,
    seed: int,
) -> EncodedRun:
    """Returns everything encoded, once; of too many validation examples `max_validation`, drawn by `seed`.

    Raises ValueError where no training example fits, or a token has none of the model's `embedding_rows`.
    """
    parts = [_training_rows(data, encoder=encoder) for data in (*targets, *retained)]
    own = parts[: len(targets)]  # what did not fit is told of the targets, not of what is replayed
    train = replace(
        EncodedSplit.joined(parts),
        truncated=sum(part.truncated for part in own),
        dropped=sum(part.dropped for part in own),
    )
    validation = tuple(scoring_set(data.task, _bounded(data, seed=seed), encoder=encoder) for data in targets)
    tests = (
        *(scoring_set(data.task, data.test, encoder=encoder) for data in targets),
        *(replace(scoring_set(data.task, data.test, encoder=encoder), role="retained") for data in retained),
    )
    highest = max(split.highest_id for split in (train, *(data.rows for data in (*validation, *tests))))
    if highest >= embedding_rows:
        raise ValueError(
            f"model.path must hold a tokenizer whose tokens all have one of the model's {embedding_rows} embeddings, "
            f"got {encoder.tokenizer.convert_ids_to_tokens(highest)!r} as token {highest}"
        )
    return EncodedRun(train=train, sizes=tuple(len(part.rows) for part in parts), validation=validation, tests=tests)


def _bounded(data: TaskExamples, *, seed: int) -> list[Example]:
    """Returns the validation examples, or of too many as many as are wanted, drawn over all of them."""
    order = np.random.default_rng(seed).permutation(len(data.validation))
    return [data.validation[i] for i in sorted(order[: data.task.max_validation])]


def _training_rows(data: TaskExamples, *, encoder: Encoder) -> EncodedSplit:
    """Returns a task's training examples encoded; raises ValueError where none of them fits."""
    split = replace(encoder, truncate=data.task.truncate).training_rows(data.train)
    if data.train and not split.rows:
        raise ValueError(
            f"max_length must hold a training example, got {encoder.max_length} tokens, which none of "
            f"{data.task.name} fits"
        )
    return split


def scoring_set(task: Task, examples: Sequence[Example], *, encoder: Encoder) -> ScoringSet:
    """Returns `examples` encoded to be scored."""
    encoder = replace(encoder, truncate=task.truncate)
    reserve = task.max_new_tokens if task.answers else 0
    rows = encoder.scoring_rows(examples, max_new_tokens=reserve)
    choices = tuple(
        encoder.scoring_rows([replace(example, completion=choice) for example in examples], max_new_tokens=reserve)
        for choice in task.choices
    )
    return ScoringSet(
        task=task, examples=tuple(examples), rows=rows, num_bytes=_num_bytes(rows, encoder), choices=choices
    )


def _num_bytes(split: EncodedSplit, encoder: Encoder) -> np.ndarray:
    """Returns (rows,): the bytes of what was kept of each completion, without EOS."""
    completions = [split.rows.completion(i).tolist() for i in range(len(split.rows))]
    texts = encoder.tokenizer.batch_decode(completions, skip_special_tokens=True)
    return np.array([len(text.encode()) for text in texts], dtype=np.int64)
