"""What planning costs for many examples: seconds and memory of a whole epoch's cuts.

python -m benchmarks.plan_speed
"""

import sys
import time
import tracemalloc

import numpy as np

from forgetmenot.data.plan import Plan

COUNTS = (10_000, 100_000, 1_000_000)
BATCH = 8


def plan_of(count: int, *, group_by_length: bool) -> Plan:
    """Returns a plan over lengths as sst2 has them: 5 to 60 tokens."""
    lengths = np.random.default_rng(0).integers(5, 60, count)
    return Plan(
        lengths=lengths, batch_size=BATCH, micro_batch_tokens=4096, seed=0, group_by_length=group_by_length, packed=True
    )


def whole_epoch(plan: Plan) -> None:
    """Cuts every step of an epoch."""
    for step in range(plan.steps_per_epoch):
        plan.cuts(step, rank=0, world_size=1)


def main() -> None:
    """Prints a table."""
    print("| examples | grouped by length | seconds an epoch | microseconds an example | peak memory |")
    print("|---|---|---|---|---|")
    for count in COUNTS:
        for grouped in (False, True):
            started = time.perf_counter()
            whole_epoch(plan_of(count, group_by_length=grouped))
            seconds = time.perf_counter() - started
            memory = peak_of(count, group_by_length=grouped)
            print(f"| {count:,} | {grouped} | {seconds:.2f} | {seconds / count * 1e6:.2f} | {memory / 1e6:.0f} MB |")
            sys.stdout.flush()


def peak_of(count: int, *, group_by_length: bool) -> int:
    """Returns what planning takes beyond the lengths, in bytes; steps after the first take no more."""
    plan = plan_of(count, group_by_length=group_by_length)
    tracemalloc.start()
    for step in range(min(1000, plan.steps_per_epoch)):
        plan.cuts(step, rank=0, world_size=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    main()
