"""A run's examples: read by its tasks, encoded once."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_tasks import make_task
from transformers import PreTrainedTokenizerFast

from forgetmenot.data.encode import Encoder
from forgetmenot.data.examples import TaskExamples, encode_run, read_examples, scoring_set
from forgetmenot.data.task import Task
from forgetmenot.data.types import Example

ROWS = 1000  # more embeddings than the tokenizer has tokens


def write(folder: Path, **splits: list[dict[str, object]]) -> str:
    for name, rows in splits.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(folder)


def quiz(number: int, **more: object) -> dict[str, object]:
    return {"question": f"{number}?", "answer": f"{number}!", **more}


def examples(*pairs: tuple[str, str]) -> tuple[Example, ...]:
    return tuple(Example(prompt=prompt, completion=text, references=(text,)) for prompt, text in pairs)


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    """Returns an encoder of short rows."""
    return Encoder(tokenizer=tokenizer, max_length=16, truncate="left", is_encoder_decoder=False)


def target(task: Task) -> TaskExamples:
    return TaskExamples(
        task=task,
        train=examples(("a", "b"), ("c", "d")),
        validation=examples(("e", "f"), ("g", "h"), ("i", "j")),
        test=examples(("k", "l")),
    )


def test_examples_are_rendered_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path, train=[quiz(1), quiz(2)], validation=[quiz(3)], test=[quiz(5), quiz(4)])
    data = read_examples(make_task(path=path), seed=0)
    assert [example.prompt for example in data.train] == ["1? ", "2? "]
    assert [example.completion for example in data.validation + data.test] == ["3!", "5!", "4!"]


def test_each_training_example_draws_its_template_by_the_seed_and_scoring_takes_the_first(tmp_path: Path) -> None:
    rows = [quiz(number) for number in range(40)]
    path = write(tmp_path, train=rows, validation=rows[:9], test=rows[:9])
    task = make_task(path=path, prompt=None, prompts=("A {question}", "B {question}", "C {question}"))
    drawn = ["".join(e.prompt[0] for e in read_examples(task, seed=seed).train) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) == set("ABC")
    scored = read_examples(task, seed=0)
    assert {example.prompt[0] for example in scored.validation + scored.test} == {"A"}


def test_a_broken_record_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, train=[quiz(1), quiz(2), {"question": "?"}], validation=[quiz(3)], test=[quiz(4)])
    with pytest.raises(ValueError, match=r"train\.jsonl line 3: data\.completion names the column 'answer'"):
        read_examples(make_task(path=path), seed=0)


def test_a_references_column_that_no_split_has_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, test=[quiz(1)])
    with pytest.raises(ValueError, match=r"data\.references must name a column .*\(answer, question\), got all"):
        read_examples(make_task(path=path, references="all"), seed=0)


def test_references_may_stand_in_the_test_split_alone(tmp_path: Path) -> None:
    path = write(tmp_path, train=[quiz(1)], validation=[quiz(2)], test=[quiz(3, all=["x", "y"])])
    data = read_examples(make_task(path=path, references="all"), seed=0)
    assert (data.train[0].references, data.test[0].references) == (("1!",), ("x", "y"))


def test_a_record_that_lacks_the_references_of_its_split_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, test=[quiz(1, all=["x"]), quiz(2)])
    with pytest.raises(ValueError, match=r"test\.jsonl line 2: .*data\.references"):
        read_examples(make_task(path=path, references="all"), seed=0)


def test_data_without_test_split_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold a test split"):
        read_examples(make_task(path=write(tmp_path, validation=[quiz(1)])), seed=0)


def test_scoring_sets_stand_in_order_with_the_target_first(encoder: Encoder) -> None:
    kept = TaskExamples(task=make_task(name="kept"), train=(), validation=(), test=examples(("m", "n"), ("o", "p")))
    run = encode_run([target(make_task())], [kept], encoder=encoder, embedding_rows=ROWS, seed=0)
    assert [(data.task.name, len(data.rows.rows)) for data in run.tests] == [
        ("quiz", 1),
        ("kept", 2),
    ]
    assert len(run.train.rows) == 2


def test_validation_is_bounded(encoder: Encoder) -> None:
    run = encode_run([target(make_task(max_validation=2))], [], encoder=encoder, embedding_rows=ROWS, seed=0)
    assert len(run.validation[0].rows.rows) == len(run.validation[0].examples) == 2


def test_bounded_validation_is_drawn_from_the_whole_split_in_file_order(encoder: Encoder) -> None:
    numbered = [(str(number), "a") for number in range(100)]
    data = replace(target(make_task(max_validation=20)), validation=examples(*numbered))
    drawn = [
        [
            int(e.prompt)
            for e in encode_run([data], [], encoder=encoder, embedding_rows=ROWS, seed=seed).validation[0].examples
        ]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == sorted(drawn[0]) == drawn[1] != drawn[2]
    assert max(drawn[0]) > 50


def test_training_examples_of_which_none_fits_are_an_error(encoder: Encoder) -> None:
    task = make_task()
    long = TaskExamples(task=task, train=examples(("a", "b" * 40)), validation=(), test=examples(("a", "b")))
    with pytest.raises(ValueError, match="max_length must hold a training example, got 16 tokens"):
        encode_run([long], [], encoder=encoder, embedding_rows=ROWS, seed=0)


def test_each_task_is_cut_on_its_own_side(encoder: Encoder) -> None:
    long = examples(("abcdefghijklmnopqrstuvwxyz", "!"))
    left, right = (
        encoder.tokenizer.decode(scoring_set(make_task(truncate=side), long, encoder=encoder).rows.rows.prompt(0))
        for side in ("left", "right")
    )
    assert (left, right) == ("<s>pqrstuvwxyz", "<s>abcdefghijk")


def test_a_token_that_the_model_has_no_embedding_for_is_an_error(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match=r"one of the model's 5 embeddings, got '.+' as token \d+$"):
        encode_run([target(make_task())], [], encoder=encoder, embedding_rows=5, seed=0)


def test_a_task_scored_by_loss_alone_reserves_no_room_for_an_answer(encoder: Encoder) -> None:
    data = scoring_set(make_task(metric="loss"), examples(("abcdefghijklmnopq", "!")), encoder=encoder)
    assert data.rows.lengths.tolist() == [16]
    assert data.rows.truncated == 1
