"""Scores are taken in file order over all batches, and costs are those of the steps."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from tiny_models import collator_of, facts_of, rows_for, tiny, word_tokenizer
from tiny_tasks import make_task
from tiny_training import fit, module_of, steps_of, trainer_of

from forgetmenot.callbacks import Cost, Scoring, peak_memory, reset_peak_memory
from forgetmenot.data.encode import Encoder
from forgetmenot.data.examples import ScoringSet, scoring_set
from forgetmenot.data.plan import Plan
from forgetmenot.data.types import Example
from forgetmenot.datamodule import AdaptationData
from forgetmenot.generate import answer
from forgetmenot.loss import loss_sum
from forgetmenot.method.full import Full
from forgetmenot.module import AdaptationModule, Scored

COUNTED = SimpleNamespace(counted=True)
LENGTHS = [7, 2, 12, 4, 9, 1, 3]


def words(number: int, *, first: int) -> str:
    return " ".join(f"w{4 + (first + i) % 40}" for i in range(number))


def data_of(name: str, *, metric: str = "accuracy", lengths: Sequence[int] = LENGTHS) -> ScoringSet:
    """Returns examples of unlike lengths, the answers of which differ."""
    quiz = make_task(name, metric=metric, prompt=None if metric == "loss" else "prompt", completion="completion")
    completions = [words(1 + i % 3, first=5 * i) for i, _ in enumerate(lengths)]
    prompts = [words(length, first=7 * i) if metric != "loss" else "" for i, length in enumerate(lengths)]
    examples = [Example(prompt=p, completion=c, references=(c,)) for p, c in zip(prompts, completions, strict=True)]
    encoder = Encoder(tokenizer=word_tokenizer(), max_length=32, truncate="left", is_encoder_decoder=False)
    return scoring_set(quiz, examples, encoder=encoder)


def part(task: str, answers: dict[int, str], *, loss_sum: float = 0.0, tokens: int = 1) -> Scored:
    return Scored(task=task, indices=tuple(answers), answers=tuple(answers.values()), loss_sum=loss_sum, tokens=tokens)


def scores_of(tests: Sequence[ScoringSet], parts: Sequence[Scored]) -> Scoring:
    """Returns the callback after a test run that gave those parts."""
    scoring = Scoring(validation=tests[0], tests=tests)
    trainer, module = trainer_of(), module_of(tiny("llama"), "llama")
    scoring.on_test_epoch_start(trainer, module)
    for number, scored in enumerate(parts):
        scoring.on_test_batch_end(trainer, module, {"scored": scored}, COUNTED, number)
    scoring.on_test_epoch_end(trainer, module)
    return scoring


def data_module(*tests: ScoringSet, tokens: int) -> AdaptationData:
    """Returns the data of a run that only scores, in batches of at most `tokens`."""
    plan = Plan(lengths=torch.ones(1).numpy(), batch_size=1, micro_batch_tokens=tokens, seed=0)
    return AdaptationData(
        tests[0].rows, validation=tests[0], tests=tests, plan=plan, collator=collator_of(tiny("llama"))
    )


def test_answers_come_back_in_file_order_whatever_the_order_of_batches() -> None:
    data = data_of("names", lengths=[1, 2, 3, 4])

    scoring = scores_of([data], [part("names", {3: "d", 1: "b"}), part("names", {0: "a", 2: "c"})])

    assert scoring.answers["names"] == ["a", "b", "c", "d"]


def test_scores_compare_each_answer_with_the_references_of_its_own_example() -> None:
    data = data_of("names", lengths=[1, 2, 3, 4])
    right = {i: example.completion for i, example in enumerate(data.examples)}

    scoring = scores_of([data], [part("names", {2: right[2], 3: "wrong"}), part("names", {1: right[1], 0: right[0]})])

    assert scoring.scores["names"]["accuracy"] == 0.75


def test_the_loss_is_summed_over_all_batches_before_it_is_divided_by_their_tokens() -> None:
    data = data_of("text", metric="loss", lengths=[1, 2])

    scoring = scores_of([data], [part("text", {}, loss_sum=10.0, tokens=1), part("text", {}, loss_sum=2.0, tokens=7)])

    assert scoring.scores["text"] == {"loss": 1.5}
    assert scoring.answers["text"] == []


def test_batches_of_several_tasks_are_kept_apart() -> None:
    first, second = data_of("first", lengths=[1, 2]), data_of("second", lengths=[1, 2])

    scoring = scores_of(
        [first, second],
        [part("second", {1: "s1"}, loss_sum=4.0), part("first", {0: "f0", 1: "f1"}), part("second", {0: "s0"})],
    )

    assert scoring.answers == {"first": ["f0", "f1"], "second": ["s0", "s1"]}
    assert (scoring.scores["first"]["loss"], scoring.scores["second"]["loss"]) == (0.0, 2.0)


def test_a_second_test_starts_anew() -> None:
    data = data_of("names", lengths=[1])
    scoring = scores_of([data], [part("names", {0: "old"}, loss_sum=5.0)])

    scoring.on_test_epoch_start(trainer_of(), module_of(tiny("llama"), "llama"))
    scoring.on_test_batch_end(
        trainer_of(), module_of(tiny("llama"), "llama"), {"scored": part("names", {0: "new"}, loss_sum=1.0)}, COUNTED, 0
    )
    scoring.on_test_epoch_end(trainer_of(), module_of(tiny("llama"), "llama"))

    assert (scoring.answers["names"], scoring.scores["names"]["loss"]) == (["new"], 1.0)


def test_a_batch_that_does_not_count_is_neither_answer_nor_loss() -> None:
    data = data_of("names", lengths=[1])
    scoring = Scoring(validation=data, tests=[data])
    trainer, module = trainer_of(), module_of(tiny("llama"), "llama")
    scoring.on_test_epoch_start(trainer, module)
    for loss, counted in ((1.0, True), (5.0, False)):
        scored = part("names", {0: f"loss {loss}"}, loss_sum=loss)
        scoring.on_test_batch_end(trainer, module, {"scored": scored}, SimpleNamespace(counted=counted), 0)  # type: ignore[arg-type]
    scoring.on_test_epoch_end(trainer, module)

    assert (scoring.answers["names"], scoring.scores["names"]["loss"]) == (["loss 1.0"], 1.0)


@pytest.mark.parametrize("tokens", [1, 30, 1000])
def test_a_test_by_the_trainer_gives_what_each_example_gives_alone(tokens: int) -> None:
    model, data = tiny("llama"), data_of("names")
    scoring = Scoring(validation=data, tests=[data])
    collator, facts = collator_of(model), facts_of(model)

    module = AdaptationModule(model, facts=facts, tokenizer=word_tokenizer())
    trainer_of(scoring).test(module, data_module(data, tokens=tokens), verbose=False)

    prompts = [data.rows.rows.prompt(i) for i in range(len(data.examples))]
    alone = [answer(model, collator.prompts([p]), tokenizer=word_tokenizer(), max_new_tokens=4)[0] for p in prompts]
    with torch.no_grad():
        losses = [loss_sum(model, collator.rows([row]), facts).item() for row in data.rows.rows]
    assert scoring.answers["names"] == alone
    assert scoring.scores["names"]["loss"] == pytest.approx(
        sum(losses) / sum(row.num_supervised for row in data.rows.rows), rel=1e-5
    )


def test_validation_by_the_trainer_logs_each_score_under_val() -> None:
    model, data = tiny("llama"), data_of("names")
    scoring = Scoring(validation=data, tests=[data])
    module = AdaptationModule(model, facts=facts_of(model), tokenizer=word_tokenizer())
    data_for = data_module(data, tokens=30)

    (logged,) = trainer_of(scoring).validate(module, data_for, verbose=False)
    trainer_of(scoring).test(module, data_for, verbose=False)

    assert logged == pytest.approx({f"val/{name}": value for name, value in scoring.scores["names"].items()})


def test_cost_counts_the_tokens_of_every_step() -> None:
    examples = [rows_for(tiny("llama"), [(3, 2), (6, 1)], seed=seed) for seed in range(3)]
    model, cost = Full(name="full", lr=1e-3).apply(tiny("llama")), Cost()

    fit(module_of(model, "llama"), steps_of("llama", examples, cut=[[0], [1]]), cost)

    assert cost.train_tokens == 3 * 12
    assert cost.train_seconds > 0


def test_peak_memory_keeps_what_was_freed_until_it_is_reset() -> None:
    cpu, megabyte = torch.device("cpu"), 2**20
    reset_peak_memory(cpu)
    start = peak_memory(cpu)

    held = torch.ones(64 * megabyte // 4)
    del held
    peak = peak_memory(cpu)
    reset_peak_memory(cpu)

    assert peak - start > 48 * megabyte
    assert peak - peak_memory(cpu) > 48 * megabyte


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_task() -> None:
    data = data_of("names", lengths=[1])

    with pytest.raises(
        ValueError, match=r"^the loss of names must be a finite number, got nan: the weights are broken"
    ):
        scores_of([data], [part("names", {0: "x"}, loss_sum=float("nan"))])
