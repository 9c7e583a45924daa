"""A task to vary: a question with an answer, or plain text where the metric is the loss."""

from forgetmenot.data.task import Task


def make_task(name: str = "quiz", *, metric: str = "accuracy", **changes: object) -> Task:
    """Returns a task that is scored by short answers, but for what is given."""
    values: dict[str, object] = {
        "name": name,
        "path": "unused",
        "prompt": None if metric == "loss" else "question",
        "prompts": (),
        "completion": "answer",
        "separator": " ",
        "references": None,
        "metric": metric,
        "choices": (),
        "rouge_of_several": "best",
        "max_new_tokens": 4,
        "max_validation": 100,
        "truncate": "left",
    }
    return Task(**(values | changes))  # type: ignore[arg-type]
