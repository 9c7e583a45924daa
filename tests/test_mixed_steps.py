"""Steps of several tasks: the same on any number of ranks, and each task's loss is exact."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import collator_of, facts_of, prompt_of, reference_inputs, rows_for, tiny
from tiny_tasks import make_task
from tiny_training import LR, fit, module_of

from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.mix import Mix
from forgetmenot.data.plan import Plan
from forgetmenot.data.rows import EncodedSplit, Rows
from forgetmenot.data.types import IGNORE_INDEX, Batch, Encoded, Step
from forgetmenot.datamodule import AdaptationData
from forgetmenot.loggers import JsonlLogger
from forgetmenot.loss import loss_sum, loss_sums
from forgetmenot.method.full import Full

SIZES = (5, 0, 4, 2)
NAMES = ("quiz", "unread", "names", "text")
LENGTHS = [(4, 1 + number % 5) for number in range(sum(SIZES))]  # no two rows alike: their ids are drawn


def rows(family: str) -> list[Encoded]:
    return rows_for(tiny(family), LENGTHS)


def split(family: str) -> EncodedSplit:
    pairs = [(prompt_of(row).tolist(), row.labels[row.labels != IGNORE_INDEX].tolist()) for row in rows(family)]
    indices = np.concatenate([np.arange(size) for size in SIZES])
    encoded = Rows.of(pairs, is_encoder_decoder=tiny(family).config.is_encoder_decoder)
    return EncodedSplit(rows=encoded, example_indices=indices, truncated=0, dropped=0)


def data(family: str = "llama", *, rank: int = 0, world_size: int = 1, packs: bool = False) -> AdaptationData:
    """Returns three of the first task and one replayed a step, in micro-batches of a row or two."""
    train = split(family)
    plan = Plan(
        lengths=train.lengths, batch_size=4, micro_batch_tokens=16, seed=0, packed=packs,
        mix=Mix(sizes=SIZES, counts=SIZES[:1], replayed=1),
    )  # fmt: skip
    tests = [ScoringSet(task=make_task(name), examples=(), rows=train, num_bytes=np.ones(0)) for name in NAMES]
    made = AdaptationData(
        train, validation=tests[:1], tests=tests, plan=plan, collator=collator_of(tiny(family), packs=packs)
    )
    made.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
    return made


def supervised(step: Step) -> dict[str, int]:
    """Counts the supervised tokens of each task by the labels that a rank reads."""
    found = dict.fromkeys((task.name for task in step.tasks), 0)
    for batch, weight in zip(step.micro_batches, step.weights, strict=True):
        labels_B = (batch.labels_BS != IGNORE_INDEX).flatten()
        for place, task in enumerate(step.tasks):
            of_task = (batch.tasks_B == place)[batch.row_of_positions]
            found[task.name] += int((labels_B & of_task).sum()) if weight else 0
    return found


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_two_ranks_share_the_examples_that_one_would_read(number: int) -> None:
    alone, *shared = (data(rank=rank, world_size=ranks).step(number) for rank, ranks in ((0, 1), (0, 2), (1, 2)))
    assert alone.examples == shared[0].examples == shared[1].examples
    assert alone.tasks == shared[0].tasks == shared[1].tasks
    together = [supervised(step) for step in shared]
    assert {name: together[0][name] + together[1][name] for name in together[0]} == supervised(alone)
    assert supervised(alone) == {task.name: task.supervised_tokens for task in alone.tasks}


def test_a_step_tells_what_it_has_of_each_task_that_is_trained_on() -> None:
    step = data().step(0)
    assert [(task.name, task.replayed) for task in step.tasks] == [("quiz", False), ("names", True), ("text", True)]
    assert step.tasks[0].num_rows == 3
    assert step.replayed_rows == 1
    assert sum(task.num_tokens for task in step.tasks) == step.num_tokens
    assert sum(task.supervised_tokens for task in step.tasks) == step.supervised_tokens


def test_examples_are_named_with_their_task() -> None:
    names = [str(example).split()[0] for example in data().step(0).examples]
    assert names[:3] == ["quiz"] * 3 and names[3] in ("names", "text")


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_loss_by_task_is_transformers_loss_of_its_rows_alone(family: str) -> None:
    model, collator, examples = tiny(family).eval(), collator_of(tiny(family)), rows(family)
    batch = replace(collator.rows(examples), tasks_B=torch.tensor([number % 3 for number in range(len(examples))]))
    nats = loss_sums(model, batch, facts_of(tiny(family)), num_tasks=4)
    for task in range(3):
        own = examples[task::3]
        plain = model(**reference_inputs(collator.rows(own), causal=family != "t5")).loss.item()
        assert nats[task].item() == pytest.approx(plain * sum(row.num_supervised for row in own), rel=1e-5)
    assert nats[3].item() == 0


def test_the_loss_by_task_is_the_same_where_the_head_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, facts = tiny("llama"), facts_of(tiny("llama"))
    batch = replace(collator_of(model).rows(rows("llama")), tasks_B=torch.arange(sum(SIZES)) % 3)
    whole = loss_sums(model, batch, facts, num_tasks=3)
    monkeypatch.setattr("forgetmenot.loss.LOGITS_AT_ONCE", 7 * facts.vocabulary)
    parts = loss_sums(model, batch, facts, num_tasks=3)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(parts.sum(), loss_sum(model, batch, facts))


def _loss_of(batch: Batch, place: int) -> tuple[float, int]:
    """Returns plain nats and supervised tokens of one task in a padded batch."""
    labels_BS = torch.where((batch.tasks_B == place)[:, None], batch.labels_BS, IGNORE_INDEX)
    count = int((labels_BS != IGNORE_INDEX).sum())
    if not count:
        return 0.0, 0
    inputs = reference_inputs(replace(batch, labels_BS=labels_BS), causal=True)
    return tiny("llama").eval()(**inputs).loss.item() * count, count


def test_each_task_is_logged_with_its_exact_mean_over_all_micro_batches() -> None:
    step = data().step(0)
    assert len(step.micro_batches) > 1
    told = fit(module_of(Full(name="full", lr=LR).apply(tiny("llama")), "llama"), [step]).callback_metrics
    for place, task in enumerate(step.tasks):
        nats, counts = zip(*(_loss_of(batch, place) for batch in step.micro_batches), strict=True)
        if sum(counts):
            assert told[f"train/{task.name}/loss"] == pytest.approx(sum(nats) / sum(counts), rel=1e-4)
        else:
            assert f"train/{task.name}/loss" not in told
    assert told["train/replayed_tokens"] == sum(task.num_tokens for task in step.tasks if task.replayed)


def test_a_step_logs_the_loss_of_the_tasks_that_it_has_and_of_no_other(tmp_path: Path) -> None:
    steps = [data().step(number) for number in range(4)]
    present = [{task.name for task in step.tasks if task.supervised_tokens} for step in steps]
    assert len(set(map(frozenset, present))) > 1, "else a loss of an earlier step would not show"
    logger = JsonlLogger(tmp_path / "metrics.jsonl")

    fit(module_of(Full(name="full", lr=LR).apply(tiny("llama")), "llama", total_steps=4), steps, loggers=[logger])

    lines = [json.loads(line) for line in logger.file.read_text().splitlines()]
    of_tasks = [{key.split("/")[1] for key in line if key.count("/") == 2} for line in lines]
    assert of_tasks == present
    assert all(value is not None for line in lines for value in line.values())
