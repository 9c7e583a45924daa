"""Few sizes serve all, none much larger than what is needed."""

from forgetmenot.data.sizes import round_length, round_rows, round_rows_down


def test_lengths_have_four_sizes_between_powers_of_two_and_gain_a_quarter_at_most() -> None:
    rounded = {n: round_length(n) for n in range(1, 1025)}
    assert all(n <= size <= n * 5 / 4 for n, size in rounded.items())
    assert sorted(set(rounded.values()))[-4:] == [640, 768, 896, 1024]
    assert all(round_length(size) == size for size in set(rounded.values()))
    assert len(set(rounded.values())) == 8 + 7 * 4


def test_a_length_is_not_rounded_past_what_rows_may_have() -> None:
    assert round_length(490, most=500) == 500
    assert round_length(520, most=500) == 520


def test_rows_have_two_sizes_between_powers_of_two() -> None:
    assert sorted({round_rows(n) for n in range(1, 65)}) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    assert all(n <= round_rows(n) for n in range(1, 65))
    for n in range(1, 65):
        assert round_rows_down(n) == max(size for size in range(1, n + 1) if round_rows(size) == size)
