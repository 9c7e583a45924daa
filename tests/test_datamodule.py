"""The data module: planned steps with their token counts, and scoring batches that miss no example."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_tasks import make_task

from forgetmenot.data.collate import Collator
from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.plan import Plan
from forgetmenot.data.rows import EncodedSplit, Rows
from forgetmenot.data.types import IGNORE_INDEX, Example, ScoringBatch, Step
from forgetmenot.datamodule import AdaptationData

PAD, VIRTUAL, PROMPT = 0, 1000, 3  # a row is PROMPT tokens of prompt, then its completion; ids name the example
EXAMPLES = 11


def split(numbers: Sequence[int]) -> EncodedSplit:
    """Returns a row for each number: its example, whose every token is 10 + that, and 2 to 5 of them are learned."""
    pairs = [([10 + number] * PROMPT, [10 + number] * (2 + number % 4)) for number in numbers]
    rows = Rows.of(pairs, is_encoder_decoder=False)
    return EncodedSplit(rows=rows, example_indices=np.asarray(numbers), truncated=0, dropped=0)


def scoring(name: str, *, answers: bool = True, pieces: tuple[int, ...] = tuple(range(EXAMPLES))) -> ScoringSet:
    """Returns a set with one row per number in `pieces`: the example that the row belongs to."""
    count = max(pieces) + 1
    return ScoringSet(
        task=make_task(name, metric="accuracy" if answers else "loss"),
        examples=tuple(Example(prompt="q", completion="a", references=("a",)) for _ in range(count)),
        rows=split(pieces),
        num_bytes=np.ones(len(pieces)),
    )


def data_module(
    *, tests: tuple[ScoringSet, ...] = (), rank: int = 0, world_size: int = 1, num_virtual_tokens: int = 0
) -> AdaptationData:
    train = split(range(EXAMPLES))
    data = AdaptationData(
        train,
        validation=[scoring("quiz")],
        tests=tests or (scoring("quiz"),),
        plan=Plan(lengths=train.lengths, batch_size=4, micro_batch_tokens=24, seed=0),
        collator=Collator(
            pad_id=PAD,
            num_virtual_tokens=num_virtual_tokens,
            first_virtual_id=VIRTUAL,
            decoder_start_id=None,
            max_length=64,
        ),
    )
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
    return data


def learned(step: Step) -> int:
    pairs = zip(step.micro_batches, step.weights, strict=True)
    return sum(int((batch.labels_BS != IGNORE_INDEX).sum()) for batch, weight in pairs if weight)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_step_counts_its_supervised_tokens_once_over_all_ranks(world_size: int) -> None:
    ranks = [list(data_module(rank=rank, world_size=world_size).train_dataloader()) for rank in range(world_size)]
    for shares in zip(*ranks, strict=True):
        assert {share.supervised_tokens for share in shares} == {sum(learned(share) for share in shares)}


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_step_counts_its_tokens_once_and_no_padding(world_size: int) -> None:
    expected = int(split(range(EXAMPLES)).lengths.sum())
    for rank in range(world_size):
        steps = data_module(rank=rank, world_size=world_size, num_virtual_tokens=2).train_dataloader()
        assert sum(step.num_tokens for step in steps) == expected


def test_an_epoch_trains_on_every_example_once() -> None:
    steps = list(data_module().train_dataloader())
    seen = [int(ids[-1]) - 10 for step in steps for batch in step.micro_batches for ids in batch.input_ids_BT]
    assert len(steps) == 3
    assert sorted(seen) == list(range(EXAMPLES))


def test_the_next_epoch_takes_the_next_steps() -> None:
    data = data_module()
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    first = next(iter(loader))
    members = sorted(int(ids[-1]) - 10 for batch in first.micro_batches for ids in batch.input_ids_BT)
    assert members == sorted(data.plan.examples(3).tolist())
    assert members != sorted(data.plan.examples(0).tolist())


def scored(batches: list[ScoringBatch]) -> list[tuple[str, int]]:
    return [(batch.task, index) for batch in batches if batch.counted for index in batch.indices]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_together_score_every_example_of_every_task_once(world_size: int) -> None:
    tests = (scoring("quiz"), scoring("kept"), scoring("text", answers=False))
    batches = [
        batch
        for rank in range(world_size)
        for batch in data_module(tests=tests, rank=rank, world_size=world_size).test_dataloader()
    ]
    expected = [(name, index) for name in ("quiz", "kept", "text") for index in range(EXAMPLES)]
    assert sorted(scored(batches)) == sorted(expected)


def test_every_rank_gets_as_many_batches_even_where_examples_are_fewer_than_ranks() -> None:
    tests = (scoring("quiz", pieces=(0,)), scoring("kept", pieces=(0, 1)))
    ranks = [list(data_module(tests=tests, rank=rank, world_size=3).test_dataloader()) for rank in range(3)]
    assert {len(batches) for batches in ranks} == {2}
    assert sorted(scored([batch for batches in ranks for batch in batches])) == [("kept", 0), ("kept", 1), ("quiz", 0)]


def test_indices_name_the_rows_and_prompts_beside_them() -> None:
    for batch in data_module().val_dataloader():
        assert (batch.rows.input_ids_BT[:, -1] - 10).tolist() == list(batch.indices)
        assert batch.prompts is not None
        assert (batch.prompts.input_ids_BT[:, -1] - 10).tolist() == list(batch.indices)


def test_pieces_of_one_text_all_carry_its_index() -> None:
    batches = list(data_module(tests=(scoring("text", answers=False, pieces=(0, 0, 1, 2, 2)),)).test_dataloader())
    assert sorted(scored(batches)) == [("text", 0), ("text", 0), ("text", 1), ("text", 2), ("text", 2)]
    assert all(batch.prompts is None for batch in batches)


@pytest.mark.parametrize("num_virtual_tokens", [0, 3])
def test_a_scoring_batch_with_its_answers_keeps_to_micro_batch_tokens(num_virtual_tokens: int) -> None:
    data = data_module(num_virtual_tokens=num_virtual_tokens)
    for batch in data.test_dataloader():
        rows, tokens = batch.rows.input_ids_BT.shape
        assert rows * (tokens + batch.max_new_tokens) <= data.plan.micro_batch_tokens or rows == 1


def test_a_long_choice_beside_a_short_answer_keeps_to_micro_batch_tokens() -> None:
    pairs = [([10 + number] * PROMPT, [10 + number] * 17) for number in range(EXAMPLES)]
    long = replace(split(range(EXAMPLES)), rows=Rows.of(pairs, is_encoder_decoder=False))
    quiz = scoring("quiz")
    chosen = replace(quiz, task=replace(quiz.task, choices=("a", "b")), choices=(quiz.rows, long))
    for batch in data_module(tests=(chosen,)).test_dataloader():
        assert all(choice.input_ids_BT.numel() <= 24 or len(choice.input_ids_BT) == 1 for choice in batch.choices)


def test_an_encoder_and_a_decoder_together_keep_to_micro_batch_tokens() -> None:
    pairs = [([10] * p, [11] * c) for p, c in ((1, 9), (9, 1), (2, 8), (8, 2), (5, 5), (4, 6))]
    rows = replace(split(range(6)), rows=Rows.of(pairs, is_encoder_decoder=True))
    quiz = scoring("quiz", pieces=tuple(range(6)))
    data = data_module(tests=(replace(quiz, task=replace(quiz.task, max_new_tokens=1), rows=rows),))
    data.collator, data.plan = replace(data.collator, decoder_start_id=PAD), replace(data.plan, micro_batch_tokens=70)
    batches = list(data.test_dataloader())
    for batch in batches:
        assert batch.rows.input_ids_BT.numel() + batch.rows.labels_BS.numel() <= 70
    assert 1 < len(batches) < 6


def test_scoring_needs_no_trainer() -> None:
    data = data_module()
    data.trainer = None
    assert len(scored(list(data.val_dataloader()))) == EXAMPLES


def test_a_step_moves_to_a_device_whole() -> None:
    step = next(iter(data_module().train_dataloader())).to(torch.device("meta"))
    assert {batch.input_ids_BT.device.type for batch in step.micro_batches} == {"meta"}
    assert step.weights == (1.0,) * len(step.micro_batches)
