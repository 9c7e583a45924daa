"""What a data set asks of a model: how a record becomes a prompt and a completion, and which score counts."""

import re
from dataclasses import dataclass
from typing import Literal

from forgetmenot.data.types import Example, Record
from forgetmenot.forgetting import LOSSES

Metric = Literal[
    "accuracy",
    "exact_match",
    "token_f1",
    "choice_accuracy",
    "rouge1_precision",
    "rouge1_recall",
    "rouge1_fmeasure",
    "rouge2_precision",
    "rouge2_recall",
    "rouge2_fmeasure",
    "rougeL_precision",
    "rougeL_recall",
    "rougeL_fmeasure",
    "rougeLsum_precision",
    "rougeLsum_recall",
    "rougeLsum_fmeasure",
    "loss",
    "bits_per_byte",
]

_COLUMN = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One data set and its templates, filled from a YAML file of conf/data."""

    name: str
    path: str
    prompt: str | None
    prompts: tuple[str, ...]
    """Several templates, of which each training example takes one and scoring the first; none beside `prompt`."""
    completion: str
    separator: str
    references: str | None
    metric: Metric
    choices: tuple[str, ...]
    """All completions that there can be, where they are few; the likeliest of them is then scored, too."""
    rouge_of_several: Literal["best", "average"]
    max_new_tokens: int
    max_validation: int
    truncate: Literal["left", "right"]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]{1,60}", self.name) or self.name.startswith("."):
            raise ValueError(
                f"name must be at most 60 letters, digits, '_', '-' or '.' (it names a file), got {self.name!r}"
            )
        if self.name == "mean":
            raise ValueError(
                "name must be another than mean, as which means over tasks are logged (gain/mean, forgetting/mean), "
                "got mean"
            )
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.max_validation < 1:
            raise ValueError(f"max_validation must be at least 1, got {self.max_validation}")
        if not self.completion:
            raise ValueError("completion must be a template or a column's name, got ''")
        if self.prompt is not None and self.prompts:
            raise ValueError(
                f"prompts must be [] where prompt is given, got {len(self.prompts)} of them; prompt=null takes them"
            )
        if not self.templates and self.answers:
            raise ValueError(f"metric must be loss or bits_per_byte where there is no prompt, got {self.metric}")
        if self.metric == "choice_accuracy" and not self.choices:
            raise ValueError("choices must list the completions where metric is choice_accuracy, got none")
        if len(self.choices) == 1 or len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices must be two or more different completions, got {', '.join(self.choices)}")

    @property
    def answers(self) -> bool:
        """Whether the task is scored by generated text; plain text has its loss alone."""
        return self.metric not in LOSSES

    @property
    def templates(self) -> tuple[str, ...]:
        """All templates of the prompt, the one that scoring takes first; plain text has none."""
        return self.prompts if self.prompt is None else (self.prompt,)

    def render(self, record: Record, *, template: int = 0) -> Example:
        """Returns the record's prompt by one of the templates, its completion and its references.

        Raises ValueError with file and line.
        """
        key = f"data.prompts[{template}]" if self.prompts else "data.prompt"
        prompt = _fill(self.templates[template], record=record, key=key) if self.templates else ""
        completion = _fill(self.completion, record=record, key="data.completion")
        if self.answers and not prompt:
            raise ValueError(f"{record.place}: the prompt must not be empty where data.metric is {self.metric}")
        if not completion.strip():
            raise ValueError(f"{record.place}: the completion must not be empty (data.completion={self.completion!r})")
        if self.choices and completion not in self.choices:
            raise ValueError(
                f"{record.place}: the completion must be one of data.choices ({', '.join(self.choices)}), "
                f"got {completion!r}"
            )
        references: tuple[str, ...] = (completion,)
        if self.references is not None:
            references = _texts(self.references, record=record)
        return Example(
            prompt=prompt + self.separator if prompt else "",
            completion=completion,
            references=references,
        )


def _fill(template: str, *, record: Record, key: str) -> str:
    if not _COLUMN.search(template):  # the name of a column, whatever letters it has
        return _text(template, record=record, key=key, empty_allowed=True)
    return _COLUMN.sub(lambda match: _text(match[1], record=record, key=key), template)


def _text(column: str, *, record: Record, key: str, empty_allowed: bool = False) -> str:
    value = _value(column, record=record, key=key)
    if value is None and empty_allowed:
        return ""
    if not isinstance(value, str | int | float):
        raise ValueError(f"{record.place}: column {column!r} ({key}) must be text, got {_shown(value)}")
    return str(value)


def _texts(column: str, *, record: Record) -> tuple[str, ...]:
    value = _value(column, record=record, key="data.references")
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError(
        f"{record.place}: column {column!r} (data.references) must be text or a list of texts, got {_shown(value)}"
    )


def _value(column: str, *, record: Record, key: str) -> object:
    if column not in record.values:
        there = ", ".join(sorted(record.values)) or "none"
        raise ValueError(f"{record.place}: {key} names the column {column!r}, which is not there; columns: {there}")
    return record.values[column]


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)[:60]
