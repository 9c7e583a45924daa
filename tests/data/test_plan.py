"""Plans: what forms a step is learning's business, how it is cut the machine's."""

import numpy as np
import pytest

from forgetmenot.data.plan import Cut, Plan

WORLD_SIZES = [1, 2, 3, 4, 8]


def plan(
    examples: int = 23, *, batch_size: int = 5, micro_batch_tokens: int = 40, seed: int = 0, shift: int = 0,
    packed: bool = False, group_by_length: bool = False,
) -> Plan:  # fmt: skip
    lengths = np.random.default_rng(7 + shift).integers(3, 30, size=examples)
    return Plan(
        lengths=lengths,
        batch_size=batch_size,
        micro_batch_tokens=micro_batch_tokens,
        seed=seed,
        packed=packed,
        group_by_length=group_by_length,
    )


def tokens(chosen: Plan, indices: np.ndarray) -> int:
    """Returns what a micro-batch takes: its rows' tokens, and padding where they are not packed."""
    lengths = chosen.lengths[indices]
    return int(lengths.sum() if chosen.packed else len(lengths) * lengths.max())


def epoch_order(chosen: Plan, epoch: int) -> list[int]:
    steps = range(epoch * chosen.steps_per_epoch, (epoch + 1) * chosen.steps_per_epoch)
    return np.concatenate([chosen.examples(step) for step in steps]).tolist()


def all_ranks(chosen: Plan, step: int, world_size: int) -> list[list[Cut]]:
    return [chosen.cuts(step, rank=rank, world_size=world_size) for rank in range(world_size)]


@pytest.mark.parametrize(("examples", "batch_size"), [(23, 5), (20, 5), (3, 8), (1, 1)])
@pytest.mark.parametrize("epoch", [0, 1, 4])
def test_every_example_is_planned_once_an_epoch(examples: int, batch_size: int, epoch: int) -> None:
    chosen = plan(examples, batch_size=batch_size)
    assert sorted(epoch_order(chosen, epoch)) == list(range(examples))


def test_the_last_smaller_step_is_kept() -> None:
    chosen = plan(23, batch_size=5)
    assert [len(chosen.examples(step)) for step in range(chosen.steps_per_epoch)] == [5, 5, 5, 5, 3]


@pytest.mark.parametrize("step", [0, 3, 4, 5, 17])
def test_the_examples_of_a_step_depend_on_seed_and_step_alone(step: int) -> None:
    expected = plan().examples(step).tolist()
    assert plan(micro_batch_tokens=1).examples(step).tolist() == expected
    assert plan(shift=1).examples(step).tolist() == expected


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_ranks_together_cover_a_step_exactly_once(world_size: int) -> None:
    chosen = plan()
    for step in range(chosen.steps_per_epoch):
        cuts = [cut for rank in all_ranks(chosen, step, world_size) for cut in rank]
        covered = np.concatenate([indices for indices, weight in cuts if weight == 1.0])
        assert sorted(covered.tolist()) == sorted(chosen.examples(step).tolist())
        assert {weight for _, weight in cuts} <= {0.0, 1.0}


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_the_micro_batches_of_a_step_are_those_of_its_ranks_without_the_repeated(world_size: int) -> None:
    chosen = plan()
    for step in range(chosen.steps_per_epoch):
        every = chosen.micro_batches(step, world_size=world_size)
        for rank, cuts in enumerate(all_ranks(chosen, step, world_size)):
            own = [indices.tolist() for indices, weight in cuts if weight == 1.0]
            assert own == [indices.tolist() for indices in every[rank::world_size]]
            assert all(indices.tolist() == every[0].tolist() for indices, weight in cuts if weight == 0.0)


def test_there_are_no_more_micro_batches_than_examples_however_many_ranks() -> None:
    assert len(plan(batch_size=5).micro_batches(0, world_size=1_000_000)) == 5


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_every_rank_gets_as_many_micro_batches_and_none_is_empty(world_size: int) -> None:
    chosen = plan()
    for step in range(chosen.steps_per_epoch):
        ranks = all_ranks(chosen, step, world_size)
        assert len({len(rank) for rank in ranks}) == 1
        assert all(len(indices) for rank in ranks for indices, _ in rank)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("micro_batch_tokens", [1, 25, 40, 60, 1000])
@pytest.mark.parametrize("packed", [False, True])
def test_no_micro_batch_holds_too_many_tokens_unless_it_is_one_row(
    packed: bool, micro_batch_tokens: int, world_size: int
) -> None:
    chosen = plan(micro_batch_tokens=micro_batch_tokens, packed=packed)
    for step in range(chosen.steps_per_epoch):
        for rank in all_ranks(chosen, step, world_size):
            for indices, _ in rank:
                assert tokens(chosen, indices) <= micro_batch_tokens or len(indices) == 1


def test_a_step_that_fits_is_one_micro_batch() -> None:
    chosen = plan(micro_batch_tokens=5 * 30)
    assert len(chosen.cuts(0, rank=0, world_size=1)) == 1


def test_micro_batches_hold_like_lengths() -> None:
    chosen = plan(micro_batch_tokens=60)
    cuts = chosen.cuts(0, rank=0, world_size=1)
    lengths = np.concatenate([chosen.lengths[indices] for indices, _ in cuts])
    assert len(cuts) > 1
    assert lengths.tolist() == sorted(lengths.tolist())


def test_a_rank_repeats_a_row_at_weight_0_only_where_there_are_too_few() -> None:
    chosen = plan(8, batch_size=8, micro_batch_tokens=1000)
    weights = [weight for rank in all_ranks(chosen, 0, 3) for _, weight in rank]
    assert weights == [1.0] * 3
    few = plan(2, batch_size=8, micro_batch_tokens=1000)
    assert [weight for rank in all_ranks(few, 0, 3) for _, weight in rank] == [1.0, 1.0, 0.0]


def test_epochs_differ_in_order() -> None:
    assert epoch_order(plan(), 0) != epoch_order(plan(), 1)


def test_seeds_differ_in_order() -> None:
    assert epoch_order(plan(seed=0), 0) != epoch_order(plan(seed=1), 0)


def test_a_plan_made_anew_is_the_same() -> None:
    first, again = (plan().cuts(7, rank=1, world_size=2) for _ in range(2))
    assert [(indices.tolist(), weight) for indices, weight in first] == [(i.tolist(), w) for i, w in again]


@pytest.mark.parametrize("packed", [False, True])
def test_ranks_get_about_as_many_tokens_each(packed: bool) -> None:
    chosen = plan(64, batch_size=64, micro_batch_tokens=10_000, packed=packed)
    shares = [tokens(chosen, indices) for rank in all_ranks(chosen, 0, 4) for indices, _ in rank]
    assert len(shares) == 4
    assert max(shares) <= 1.3 * min(shares)


def test_micro_batches_of_one_rank_are_even_and_as_few_as_fit() -> None:
    chosen = plan(64, batch_size=64, micro_batch_tokens=500, packed=True)
    shares = [tokens(chosen, indices) for indices, _ in chosen.cuts(0, rank=0, world_size=1)]
    assert len(shares) == -(-int(chosen.lengths.sum()) // 500)
    assert max(shares) <= 1.2 * min(shares)


@pytest.mark.parametrize("examples", [400, 403, 3])
def test_grouped_steps_hold_like_lengths_and_every_example_once(examples: int) -> None:
    grouped, mixed = (plan(examples, batch_size=4, group_by_length=group) for group in (True, False))

    def spread(chosen: Plan) -> float:
        return float(np.mean([np.ptp(chosen.lengths[chosen.examples(k)]) for k in range(chosen.steps_per_epoch)]))

    assert sorted(epoch_order(grouped, 1)) == list(range(examples))
    assert spread(grouped) < spread(mixed) / 4 or examples == 3
    assert epoch_order(grouped, 0) != epoch_order(grouped, 1)


def test_grouped_steps_come_in_no_order_of_length() -> None:
    grouped = plan(400, batch_size=4, group_by_length=True)
    means = [grouped.lengths[grouped.examples(step)].mean() for step in range(grouped.steps_per_epoch)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_lengths_choose_the_examples_of_a_step_only_where_they_are_asked_to() -> None:
    shorter, longer = (plan(40, batch_size=4, shift=shift) for shift in (0, 1))
    assert [shorter.examples(k).tolist() for k in range(10)] == [longer.examples(k).tolist() for k in range(10)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_halved_plan_cuts_the_same_steps_smaller(packed: bool, world_size: int) -> None:
    chosen = plan(batch_size=8, micro_batch_tokens=1_000_000, packed=packed)
    halved = chosen.halved(0, world_size=world_size)

    def largest(any_plan: Plan) -> int:
        return max(tokens(any_plan, indices) for rank in all_ranks(any_plan, 0, world_size) for indices, _ in rank)

    assert halved.micro_batch_tokens == largest(chosen) // 2
    assert largest(halved) <= halved.micro_batch_tokens
    assert halved.examples(1).tolist() == chosen.examples(1).tolist()


def test_a_step_of_single_rows_cannot_be_halved() -> None:
    with pytest.raises(
        ValueError, match=r"^memory must hold one example of \d+ tokens, got less; a smaller max_length"
    ):
        plan(micro_batch_tokens=1).halved(0, world_size=1)


def test_rounded_cuts_hold_round_numbers_of_rows_within_the_limit() -> None:
    lengths = np.sort(np.random.default_rng(0).integers(5, 90, size=500))
    rounded = Plan(lengths=lengths, batch_size=500, micro_batch_tokens=600, seed=0, rounded=True)
    cuts = [cut for cut, _ in rounded.cuts(0, rank=0, world_size=1)]
    assert sorted(np.concatenate(cuts).tolist()) == list(range(500))
    assert all(len(cut) * lengths[cut].max() <= 600 for cut in cuts)
    assert {len(cut) for cut in cuts[:-1]} <= {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96}
    assert len({len(cut) for cut in cuts}) > 3
