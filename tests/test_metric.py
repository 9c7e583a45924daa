"""Ratios of sums add up over batches of any size."""

import pytest
import torch

from forgetmenot.metric import Ratios


def test_ratios_of_batches_of_unequal_size_are_the_ratios_of_all_examples() -> None:
    draw = torch.Generator().manual_seed(0)
    sums = torch.rand(12, 2, generator=draw, dtype=torch.float64)
    weights = torch.randint(1, 9, (12, 2), generator=draw).double()
    ratios = Ratios(["loss", "bits_per_byte"])
    for start, end in ((0, 7), (7, 12)):
        ratios.update(sums[start:end], weights[start:end])

    expected = (sums.sum(0) / weights.sum(0)).tolist()
    assert ratios.compute() == pytest.approx(dict(zip(("loss", "bits_per_byte"), expected, strict=True)))
