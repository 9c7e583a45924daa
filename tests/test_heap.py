"""The heap of glibc, tensor by tensor: what is resident is never less than what is held, and places are used again."""

import pytest

from forgetmenot.heap import Part, resident

MEGABYTE = 2**20


def _steps(sizes: list[int]) -> list[Part]:
    made = [(number, size) for number, size in enumerate(sizes, 1)]
    return [Part(True, made), Part(False, [(-number, 0) for number in range(len(sizes), 0, -1)])]


def test_what_is_held_throughout_is_resident_once() -> None:
    held = [(1, 40 * MEGABYTE), (2, 3 * MEGABYTE)]
    assert resident(held, []) == pytest.approx(43 * MEGABYTE, rel=0.01)


def test_tensors_too_large_for_the_heap_take_what_they_hold() -> None:
    assert resident([], _steps([64 * MEGABYTE])) == pytest.approx(64 * MEGABYTE, rel=0.01)


def test_places_between_tensors_that_stay_do_not_fit_another_of_their_size() -> None:
    kept_and_passing = [size for _ in range(40) for size in (MEGABYTE, MEGABYTE // 2)]
    trace: list[tuple[int, int]] = []
    for number, size in enumerate(kept_and_passing, 1):
        trace.append((number, size))
        if number % 2 == 0:
            trace.append((-number, 0))  # each half megabyte is freed before the next is made
    most_held = 40 * MEGABYTE + MEGABYTE // 2
    backward = Part(False, [(-n, 0) for n in range(1, 80, 2)])
    assert 1.1 * most_held < resident([], [Part(True, trace), backward]) < 3 * most_held


def test_a_trace_that_frees_what_another_made_leaves_it() -> None:
    assert resident([(5, MEGABYTE)], [Part(False, [(-5, 0)])]) == resident([(5, MEGABYTE)], [])


def test_what_a_pass_leaves_is_freed_before_the_next() -> None:
    leaves = [Part(True, [(1, MEGABYTE)]), Part(False, [(-1, 0), (2, 10 * MEGABYTE)])]
    assert resident([], leaves) == resident([], [*leaves, Part(False, [(-2, 0)])])


def test_passes_of_tensors_that_fill_their_places_take_no_more_than_the_first() -> None:
    assert resident([], _steps([MEGABYTE] * 20)) == pytest.approx(20 * MEGABYTE, rel=0.1)
