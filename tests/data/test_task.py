"""Tasks: templates turn a record into a prompt, a completion and references."""

import pytest
from tiny_tasks import make_task

from forgetmenot.data.task import Task
from forgetmenot.data.types import Record


def record(**values: object) -> Record:
    return Record(values=values, file="quiz.jsonl", line=7)


def error_of(task: Task, **values: object) -> str:
    with pytest.raises(ValueError) as caught:
        task.render(record(**values))
    assert str(caught.value).startswith("quiz.jsonl line 7: ")
    return str(caught.value)


def test_a_bare_word_is_that_column() -> None:
    example = make_task(separator="").render(record(question="Why?", answer="So."))
    assert (example.prompt, example.completion) == ("Why?", "So.")


def test_a_template_fills_its_columns() -> None:
    task = make_task(prompt="{title}: {question}\n", completion="It is {answer}", separator="")
    example = task.render(record(title="Quiz", question="Why?", answer="so"))
    assert (example.prompt, example.completion) == ("Quiz: Why?\n", "It is so")


def test_of_several_templates_the_first_is_taken_unless_another_is_asked_for() -> None:
    task = make_task(prompt=None, prompts=("{question}", "Say: {question}"), separator="")
    asked = record(question="Why?", answer="So.")
    assert [task.render(asked).prompt, task.render(asked, template=1).prompt] == ["Why?", "Say: Why?"]
    assert task.answers


def test_a_broken_template_of_several_is_named() -> None:
    task = make_task(prompt=None, prompts=("{question}", "{qestion}"))
    with pytest.raises(ValueError, match=r"^quiz\.jsonl line 7: data\.prompts\[1\] names the column 'qestion'"):
        task.render(record(question="?", answer="!"), template=1)


def test_braces_within_a_value_are_not_filled() -> None:
    example = make_task(prompt="{question}", separator="").render(record(question="{answer}", answer="no"))
    assert example.prompt == "{answer}"


def test_the_separator_ends_the_prompt() -> None:
    example = make_task(separator="\n").render(record(question="Why?", answer="So."))
    assert (example.prompt, example.completion) == ("Why?\n", "So.")


def test_a_task_without_prompt_is_plain_text() -> None:
    task = make_task(prompt=None, completion="text", metric="loss")
    assert task.render(record(text="Once.")).prompt == ""
    assert not task.answers


def test_a_number_is_written_as_text() -> None:
    assert make_task().render(record(question="2+2?", answer=4)).completion == "4"


def test_the_default_reference_is_the_completion() -> None:
    assert make_task(completion="a {answer}").render(record(question="?", answer="b")).references == ("a b",)


@pytest.mark.parametrize(("value", "references"), [(["a", "b"], ("a", "b")), ("a", ("a",))])
def test_references_are_a_column_of_texts(value: object, references: tuple[str, ...]) -> None:
    task = make_task(references="all")
    assert task.render(record(question="?", answer="a", all=value)).references == references


@pytest.mark.parametrize("value", [[], [1], None, 3])
def test_references_that_are_no_texts_are_an_error(value: object) -> None:
    assert "data.references" in error_of(make_task(references="all"), question="?", answer="a", all=value)


@pytest.mark.parametrize("prompt", ["question", "{question}"])
def test_a_missing_column_is_named_beside_those_there(prompt: str) -> None:
    message = error_of(make_task(prompt=prompt), answer="a", text="b")
    assert "data.prompt names the column 'question', which is not there; columns: answer, text" in message


@pytest.mark.parametrize("answer", ["", "  \n", None])
def test_an_empty_completion_is_an_error(answer: object) -> None:
    assert "the completion must not be empty" in error_of(make_task(), question="?", answer=answer)


def test_a_value_that_is_no_text_is_an_error() -> None:
    message = error_of(make_task(), question={"a": 1}, answer="b")
    assert "column 'question' (data.prompt) must be text, got {'a': 1}" in message


def test_nothing_within_a_template_is_an_error() -> None:
    message = error_of(make_task(prompt="Q: {question}"), question=None, answer="b")
    assert "must be text, got nothing" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../up"}, "name must be"),
        ({"name": "mean"}, r"name must be another than mean, as which means over tasks are logged .*, got mean"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"max_validation": 0}, "max_validation must be at least 1, got 0"),
        ({"completion": ""}, "completion must be"),
        ({"metric": "choice_accuracy"}, "choices must list the completions where metric is choice_accuracy, got none"),
        ({"choices": ("yes",)}, "choices must be two or more different completions, got yes"),
        ({"choices": ("yes", "yes")}, "choices must be two or more different completions, got yes, yes"),
        (
            {"prompts": ("a", "b")},
            r"prompts must be \[\] where prompt is given, got 2 of them; prompt=null ",
        ),
        ({"prompt": None}, "metric must be loss or bits_per_byte where there is no prompt, got accuracy"),
    ],
)
def test_a_wrong_setting_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**changes)


def test_a_column_may_have_any_name() -> None:
    task = make_task(prompt="{my text}?", completion="my-label", separator="")
    example = task.render(record(**{"my text": "Why", "my-label": "So."}))
    assert (example.prompt, example.completion) == ("Why?", "So.")


@pytest.mark.parametrize("template", ["my-lable", "{my lable}"])
def test_a_template_never_stands_for_itself(template: str) -> None:
    task = make_task(completion=template)
    assert "is not there; columns: my-label, question" in error_of(task, question="Why?", **{"my-label": "So."})
