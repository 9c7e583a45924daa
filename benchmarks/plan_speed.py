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
CUTS = (4096, 128)  # micro_batch_tokens: a step that fits whole, and one that is cut in two or three


def plan_of(count: int, *, group_by_length: bool, micro_batch_tokens: int) -> Plan:
    """Returns a plan over lengths as sst2 has them: 5 to 60 tokens."""
    lengths = np.random.default_rng(0).integers(5, 60, count)
    return Plan(
        lengths=lengths, batch_size=BATCH, micro_batch_tokens=micro_batch_tokens, seed=0,
        group_by_length=group_by_length, packed=True,
    )  # fmt: skip


def whole_epoch(plan: Plan) -> None:
    """Cuts every step of an epoch."""
    for step in range(plan.steps_per_epoch):
        plan.cuts(step, rank=0, world_size=1)


def main() -> None:
    """Prints a table."""
    print("| examples | grouped by length | micro_batch_tokens | seconds an epoch | microseconds an example | memory |")
    print("|---|---|---|---|---|---|")
    for count in COUNTS:
        for grouped in (False, True):
            for cut in CUTS:
                plan = plan_of(count, group_by_length=grouped, micro_batch_tokens=cut)
                started = time.perf_counter()
                whole_epoch(plan)
                seconds = time.perf_counter() - started
                memory = peak_of(plan_of(count, group_by_length=grouped, micro_batch_tokens=cut))
                each = seconds / count * 1e6
                print(f"| {count:,} | {grouped} | {cut:,} | {seconds:.2f} | {each:.2f} | {memory / 1e6:.0f} MB |")
                sys.stdout.flush()


def peak_of(plan: Plan) -> int:
    """Returns what planning takes beyond the lengths, in bytes; steps after the first take no more."""
    tracemalloc.start()
    for step in range(min(1000, plan.steps_per_epoch)):
        plan.cuts(step, rank=0, world_size=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    main()
