"""Output that nobody reads any longer ends nothing."""

import subprocess
import sys
from pathlib import Path

WRITING = """
import sys
from rich.console import Console
from forgetmenot.streams import outliving_readers

{within}
    sys.stdin.readline()  # until nobody reads
    for _ in range(3):
        print("said", flush=True)
        print("said", file=sys.stderr)
        sys.stdout and sys.stdout.writelines(["said"])
        Console().print("said")
    print("held at the end", end="")
    sys.exit(7)
"""


def test_a_command_outlives_whoever_read_what_it_says() -> None:
    assert _exit_code(WRITING.format(within="with outliving_readers():")) == 7
    assert _exit_code(WRITING.format(within="if True:")) != 7, "what the block is for"


def test_what_cannot_be_written_though_it_is_read_for_is_an_error() -> None:
    printing = "from forgetmenot.streams import outliving_readers\nwith outliving_readers():\n    print('said')"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", printing], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode != 0 and b"No space left on device" in done.stderr


def test_a_command_without_output_at_all_is_no_error() -> None:
    program = WRITING.format(within="with outliving_readers():").replace("sys.stdin.readline()", "pass")
    command = ["bash", "-c", '"$0" -c "$1" >&- 2>&-', sys.executable, program]
    assert subprocess.run(command, check=False).returncode == 7


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
