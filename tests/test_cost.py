"""What training cost: the tokens and seconds of its steps, and the peak of memory."""

import torch
from tiny_models import rows_for, tiny
from tiny_training import fit, module_of, steps_of

from forgetmenot.cost import Cost, peak_memory, reset_peak_memory
from forgetmenot.method.full import Full


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
