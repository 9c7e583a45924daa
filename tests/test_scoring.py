"""Scores are taken in file order over all batches, whatever shares batches and ranks have of them."""

import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from tiny_models import collator_of, facts_of, tiny, word_tokenizer
from tiny_tasks import make_task
from tiny_training import module_of, trainer_of

from forgetmenot.answers import ANSWER_NAMES
from forgetmenot.data.encode import Encoder
from forgetmenot.data.examples import ScoringSet, scoring_set
from forgetmenot.data.plan import Plan
from forgetmenot.data.types import Example
from forgetmenot.datamodule import AdaptationData
from forgetmenot.generate import answer
from forgetmenot.loss import loss_sum
from forgetmenot.module import AdaptationModule, Scored
from forgetmenot.scoring import Scoring, monitored, validation_log

LENGTHS = [7, 2, 12, 4, 9, 1, 3]


def words(number: int, *, first: int) -> str:
    return " ".join(f"w{4 + (first + i) % 40}" for i in range(number))


def data_of(name: str, *, metric: str = "accuracy", lengths: Sequence[int] = LENGTHS, **changes: object) -> ScoringSet:
    """Returns examples of unlike lengths, the answers of which differ."""
    quiz = make_task(
        name, metric=metric, prompt=None if metric == "loss" else "prompt", completion="completion", **changes
    )
    completions = [words(1 + i % 3, first=5 * i) for i, _ in enumerate(lengths)]
    if quiz.choices:
        completions = [quiz.choices[i % len(quiz.choices)] for i, _ in enumerate(lengths)]
    prompts = [words(length, first=7 * i) if metric != "loss" else "" for i, length in enumerate(lengths)]
    examples = [Example(prompt=p, completion=c, references=(c,)) for p, c in zip(prompts, completions, strict=True)]
    encoder = Encoder(tokenizer=word_tokenizer(), max_length=32, truncate="left", is_encoder_decoder=False)
    return scoring_set(quiz, examples, encoder=encoder)


Part = tuple[SimpleNamespace, Scored]
"""What the callback reads of a batch, and what the module made of it."""


def part(
    task: str, answers: dict[int, str], *, nats: Sequence[float] = (), tokens: Sequence[int] = (), counted: bool = True
) -> Part:
    """Returns one batch's answers by example; for plain text as many rows as `nats` has, of the first examples."""
    indices = tuple(answers) or tuple(range(len(nats)))
    ones = [1] * len(indices)
    batch = SimpleNamespace(
        task=task, indices=indices, counted=counted, num_supervised=tuple(tokens or ones), num_bytes=tuple(ones)
    )
    return batch, Scored(answers=tuple(answers.values()), nats=tuple(nats or [0.0] * len(indices)), chosen=())


def scores_of(tests: Sequence[ScoringSet], parts: Sequence[Part]) -> Scoring:
    """Returns the callback after a test run that gave those parts."""
    scoring = Scoring(validation=tests[:1], tests=tests)
    take(scoring, parts)
    return scoring


def take(scoring: Scoring, parts: Sequence[Part]) -> None:
    """Makes a test run that gives those parts."""
    trainer, module = trainer_of(), module_of(tiny("llama"), "llama")
    scoring.on_test_epoch_start(trainer, module)
    for number, (batch, scored) in enumerate(parts):
        scoring.on_test_batch_end(trainer, module, {"scored": scored}, batch, number)  # type: ignore[arg-type]
    scoring.on_test_epoch_end(trainer, module)


def total(scoring: Scoring, task: str, name: str) -> float:
    return scoring.measured[task].scores.totals[name]


def data_module(*tests: ScoringSet, tokens: int) -> AdaptationData:
    """Returns the data of a run that only scores, in batches of at most `tokens`."""
    plan = Plan(lengths=torch.ones(1).numpy(), batch_size=1, micro_batch_tokens=tokens, seed=0)
    return AdaptationData(
        tests[0].rows, validation=tests[:1], tests=tests, plan=plan, collator=collator_of(tiny("llama"))
    )


def test_answers_come_back_in_file_order_whatever_the_order_of_batches() -> None:
    data = data_of("names", lengths=[1, 2, 3, 4])

    scoring = scores_of([data], [part("names", {3: "d", 1: "b"}), part("names", {0: "a", 2: "c"})])

    assert scoring.measured["names"].answers == ("a", "b", "c", "d")


def test_scores_compare_each_answer_with_the_references_of_its_own_example() -> None:
    data = data_of("names", lengths=[1, 2, 3, 4])
    right = {i: example.completion for i, example in enumerate(data.examples)}

    scoring = scores_of([data], [part("names", {2: right[2], 3: "wrong"}), part("names", {1: right[1], 0: right[0]})])

    assert total(scoring, "names", "accuracy") == 0.75
    assert scoring.measured["names"].scores.of("accuracy") == [1, 1, 1, 0]


def test_the_loss_is_summed_over_all_batches_before_it_is_divided_by_their_tokens() -> None:
    data = data_of("text", metric="loss", lengths=[1, 2])

    scoring = scores_of(
        [data], [part("text", {}, nats=[10.0], tokens=[1]), part("text", {}, nats=[0.5, 1.5], tokens=[3, 4])]
    )

    assert total(scoring, "text", "loss") == 1.5
    assert total(scoring, "text", "bits_per_byte") == pytest.approx(12 / math.log(2) / 3)
    assert scoring.measured["text"].answers == ()


def test_rows_of_one_long_text_are_one_example() -> None:
    data = data_of("text", metric="loss", lengths=[1, 2])
    batch, scored = part("text", {}, nats=[1.0, 2.0, 6.0], tokens=[1, 1, 2])
    batch.indices = (0, 0, 1)

    scoring = scores_of([data], [(batch, scored)])

    assert scoring.measured["text"].scores.of("loss") == [1.5, 3.0]


def test_batches_of_several_tasks_are_kept_apart() -> None:
    first, second = data_of("first", lengths=[1, 2]), data_of("second", lengths=[1, 2])

    scoring = scores_of(
        [first, second],
        [part("second", {1: "s1"}, nats=[4.0]), part("first", {0: "f0", 1: "f1"}), part("second", {0: "s0"})],
    )

    assert {name: task.answers for name, task in scoring.measured.items()} == {
        "first": ("f0", "f1"), "second": ("s0", "s1"),
    }  # fmt: skip
    assert (total(scoring, "first", "loss"), total(scoring, "second", "loss")) == (0.0, 2.0)


def test_a_second_test_starts_anew() -> None:
    data = data_of("names", lengths=[1])
    scoring = scores_of([data], [part("names", {0: "old"}, nats=[5.0])])

    take(scoring, [part("names", {0: "new"}, nats=[1.0])])

    assert (scoring.measured["names"].answers, total(scoring, "names", "loss")) == (("new",), 1.0)


def test_a_batch_that_does_not_count_is_neither_answer_nor_loss() -> None:
    data = data_of("names", lengths=[1])

    scoring = scores_of(
        [data], [part("names", {0: "yes"}, nats=[1.0]), part("names", {0: "no"}, nats=[5.0], counted=False)]
    )

    assert (scoring.measured["names"].answers, total(scoring, "names", "loss")) == (("yes",), 1.0)


@pytest.mark.parametrize("tokens", [1, 30, 1000])
def test_a_test_by_the_trainer_gives_what_each_example_gives_alone(tokens: int) -> None:
    model, data = tiny("llama"), data_of("names")
    scoring = Scoring(validation=[data], tests=[data])
    collator, facts = collator_of(model), facts_of(model)

    module = AdaptationModule(model, facts=facts, tokenizer=word_tokenizer())
    trainer_of(scoring).test(module, data_module(data, tokens=tokens), verbose=False)

    prompts = [data.rows.rows.prompt(i) for i in range(len(data.examples))]
    alone = [
        answer(model, collator.prompts([p]), facts=facts, tokenizer=word_tokenizer(), max_new_tokens=4)[0]
        for p in prompts
    ]
    with torch.no_grad():
        losses = [loss_sum(model, collator.rows([row]), facts).item() for row in data.rows.rows]
    measured = scoring.measured["names"]
    assert measured.answers == tuple(alone)
    assert measured.scores.of("loss") == pytest.approx(
        [loss / row.num_supervised for loss, row in zip(losses, data.rows.rows, strict=True)], rel=1e-5
    )


def test_the_likeliest_choice_is_the_one_with_the_smallest_loss_and_not_what_is_said() -> None:
    model, data = tiny("llama"), data_of("mood", choices=("w4 w5", "w9"))
    scoring = Scoring(validation=[data], tests=[data])
    collator, facts = collator_of(model), facts_of(model)

    module = AdaptationModule(model, facts=facts, tokenizer=word_tokenizer())
    trainer_of(scoring).test(module, data_module(data, tokens=60), verbose=False)

    with torch.no_grad():
        losses = [
            [loss_sum(model, collator.rows([choice.rows[i]]), facts).item() for choice in data.choices]
            for i in range(len(data.examples))
        ]
    likeliest = [("w4 w5", "w9")[each.index(min(each))] for each in losses]
    right = [float(said == example.completion) for said, example in zip(likeliest, data.examples, strict=True)]
    assert scoring.measured["mood"].scores.of("choice_accuracy") == right
    assert set(right) == {0.0, 1.0}


def test_validation_by_the_trainer_logs_each_score_under_val() -> None:
    model, data = tiny("llama"), data_of("names")
    scoring = Scoring(validation=[data], tests=[data])
    module = AdaptationModule(model, facts=facts_of(model), tokenizer=word_tokenizer())
    data_for = data_module(data, tokens=30)

    (logged,) = trainer_of(scoring).validate(module, data_for, verbose=False)
    trainer_of(scoring).test(module, data_for, verbose=False)

    assert logged == pytest.approx({f"val/{name}": v for name, v in scoring.measured["names"].scores.totals.items()})
    assert {*ANSWER_NAMES, "loss", "bits_per_byte"} == {name.removeprefix("val/") for name in logged}


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_task() -> None:
    data = data_of("names", lengths=[1])

    with pytest.raises(
        ValueError, match=r"^the loss of names must be a finite number, got nan: the weights are broken"
    ):
        scores_of([data], [part("names", {0: "x"}, nats=[float("nan")])])


def test_one_target_is_logged_by_its_scores_alone() -> None:
    assert validation_log({"mood": {"accuracy": 0.5, "loss": 2.0}}, {"mood": "accuracy"}) == {
        "val/accuracy": 0.5, "val/loss": 2.0,
    }  # fmt: skip
    assert monitored({"mood": "accuracy"}) == "val/accuracy"


def test_several_targets_are_logged_by_name_with_the_mean_of_their_own_metrics() -> None:
    scores = {"mood": {"accuracy": 0.5, "loss": 2.0}, "names": {"accuracy": 1.0, "loss": 4.0}, "story": {"loss": 9.0}}
    metrics = {"mood": "accuracy", "names": "accuracy", "story": "loss"}
    logged = validation_log(scores, metrics)
    assert logged["val/mean"] == 0.75 and logged["val/names/loss"] == 4.0 and len(logged) == 6
    assert monitored(metrics) == "val/mean"
    assert validation_log(scores, dict.fromkeys(scores, "loss"))["val/mean"] == 5.0, "of losses alone, their mean"
