"""Output that nobody reads any longer ends nothing."""

import subprocess
import sys

WRITING = """
import sys
from rich.console import Console
from forgetmenot.streams import outliving_readers

{within}
    sys.stdin.readline()  # until nobody reads
    for _ in range(3):
        print("said", flush=True)
        print("said", file=sys.stderr)
        Console().print("said")
    print("held at the end", end="")
    sys.exit(7)
"""


def test_a_command_outlives_whoever_read_what_it_says() -> None:
    assert _exit_code(WRITING.format(within="with outliving_readers():")) == 7
    assert _exit_code(WRITING.format(within="if True:")) != 7, "what the block is for"


def _exit_code(program: str) -> int:
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        process.stdout.close()
        process.stdin.write("nobody reads\n")
        process.stdin.close()
        return process.wait(timeout=60)
