"""What was freed goes back to the system."""

import sys
from pathlib import Path

import pytest

from forgetmenot.freed_memory import give_back_freed_memory

BLOCK = 4096  # bytes: small enough that the C library keeps it when it is freed
BLOCKS = 20_000


def resident() -> int:
    """Returns the bytes of this process that are in memory."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc's malloc")
def test_freed_blocks_below_one_in_use_leave_the_process() -> None:
    blocks = [bytearray(BLOCK) for _ in range(BLOCKS)]
    in_use = bytearray(BLOCK)
    blocks.clear()
    held = resident()

    give_back_freed_memory()

    assert held - resident() >= BLOCK * BLOCKS / 2
    assert len(in_use) == BLOCK
