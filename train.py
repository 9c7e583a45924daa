"""The command that the README shows: the same as `forgetmenot train`."""

import sys

from forgetmenot.cli.main import run_command

if __name__ == "__main__":
    run_command("train", arguments=sys.argv[1:])
