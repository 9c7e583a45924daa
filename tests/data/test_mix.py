"""What is mixed, by number of row: even passes, and replay in every step."""

import numpy as np
import pytest

from forgetmenot.data.mix import Mix, Replay, passes
from forgetmenot.data.plan import Plan

TARGET, KEPT = 23, (7, 4)  # rows


def plan(*, batch_size: int = 8, replayed: int = 2, seed: int = 0, group_by_length: bool = False) -> Plan:
    mix = Mix(sizes=(TARGET, *KEPT), counts=(TARGET,), replayed=replayed)
    lengths = np.random.default_rng(7).integers(3, 30, size=TARGET + sum(KEPT))
    return Plan(
        lengths=lengths,
        batch_size=batch_size,
        micro_batch_tokens=40,
        seed=seed,
        group_by_length=group_by_length,
        mix=mix,
    )


def steps(chosen: Plan, epochs: int) -> list[np.ndarray]:
    return [chosen.examples(step) for step in range(epochs * chosen.steps_per_epoch)]


def test_passes_cover_everything_once_before_anything_twice() -> None:
    drawn = passes(7, first=0, count=21, seed=(0, 0)).reshape(3, 7)
    assert [sorted(each) for each in drawn.tolist()] == [list(range(7))] * 3
    assert drawn[0].tolist() != drawn[1].tolist()


def test_a_piece_of_passes_depends_on_where_it_stands_alone() -> None:
    whole = passes(7, first=0, count=40, seed=(3, 1))
    pieces = [passes(7, first=first, count=5, seed=(3, 1)) for first in range(0, 40, 5)]
    assert np.concatenate(pieces).tolist() == whole.tolist()
    assert passes(7, first=0, count=40, seed=(4, 1)).tolist() != whole.tolist()


@pytest.mark.parametrize(
    ("share", "batch_size", "replayed"), [(0.25, 8, 2), (0.25, 2, 1), (0.01, 8, 1), (0.5, 6, 3), (0.7, 10, 7)]
)
def test_a_share_is_rounded_to_examples_and_is_one_at_least(share: float, batch_size: int, replayed: int) -> None:
    assert Replay(share=share).per_step(batch_size) == replayed


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_a_share_of_nothing_or_of_all_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"share must be above 0 and below 1, got .*replay=none"):
        Replay(share=share)


@pytest.mark.parametrize(("share", "batch_size"), [(0.25, 1), (0.9, 4)])
def test_a_step_without_the_target_is_refused(share: float, batch_size: int) -> None:
    with pytest.raises(ValueError, match=r"share must leave one example of a step to the target, got "):
        Replay(share=share).per_step(batch_size)


@pytest.mark.parametrize("group_by_length", [False, True])
def test_every_whole_step_replays_as_many_and_the_last_as_large_a_share(group_by_length: bool) -> None:
    chosen = plan(group_by_length=group_by_length)
    assert chosen.steps_per_epoch == 4, "23 of the target, 6 a step"
    counted = [(int((rows < TARGET).sum()), int((rows >= TARGET).sum())) for rows in steps(chosen, 2)]
    assert counted == [(6, 2), (6, 2), (6, 2), (5, 2)] * 2
    assert [int((rows >= TARGET).sum()) for rows in steps(plan(batch_size=22, replayed=11), 1)] == [11, 11, 1]


def test_an_epoch_with_replay_still_has_every_row_of_the_target_once() -> None:
    rows = np.concatenate(steps(plan(), 1))
    assert sorted(rows[rows < TARGET].tolist()) == list(range(TARGET))


def test_over_a_run_all_retained_rows_are_replayed_evenly() -> None:
    rows = np.concatenate(steps(plan(), 11))
    again = rows[rows >= TARGET]
    assert len(again) == 88
    assert np.bincount(again - TARGET).tolist() == [8] * sum(KEPT)


def test_what_a_step_replays_is_a_function_of_seed_and_step() -> None:
    first, again = steps(plan(), 3), [plan().examples(step) for step in reversed(range(12))][::-1]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, steps(plan(seed=1), 3), strict=True))


def test_rows_know_their_task_also_behind_one_that_has_none() -> None:
    mix = Mix(sizes=(2, 0, 3), counts=(2,), replayed=1)
    assert mix.tasks(np.array([0, 1, 2, 4])).tolist() == [0, 0, 2, 2]


def test_one_task_is_ordered_as_it_always_was() -> None:
    lengths = np.arange(3, 26)
    plain, grouped = (
        Plan(lengths=lengths, batch_size=5, micro_batch_tokens=40, seed=3, group_by_length=group) for group in (0, 1)
    )
    assert [plain.examples(step).tolist() for step in (0, 4, 5)] == [
        [9, 17, 12, 18, 0], [5, 21, 19], [13, 10, 11, 2, 20],
    ]  # fmt: skip
    assert [grouped.examples(step).tolist() for step in (0, 4, 5)] == [
        [5, 7, 8, 9, 10], [17, 19, 6], [5, 6, 7, 9, 10],
    ]  # fmt: skip
