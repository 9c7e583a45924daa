"""The console script: `forgetmenot COMMAND [KEY=VALUE ...]`. Nothing heavy is imported before a command runs."""

import importlib
import logging
import sys
from importlib.util import find_spec
from pathlib import Path

from forgetmenot.config.app import run_app
from forgetmenot.config.errors import did_you_mean
from forgetmenot.config.words import quoted
from forgetmenot.signals import ending_on_signals, exit_code
from forgetmenot.streams import outliving_readers

COMMANDS = {
    "train": "adapt a model; see what it gains, what it costs and what it forgets",
    "plan": "tell what a run would take, and whether it fits, before it is paid for",
    "evaluate": "score a finished run, or any model, on any tasks",
    "ask": "ask a finished run and its base, side by side",
    "export": "merge what a run learned into a plain model's folder",
    "sequence": "learn data sets one after another, each run on the one before",
    "compare": "set finished runs side by side",
}
RAW_TEXT = {"ask": ("prompt",)}  # keys whose value is text as it is, and no matter of Hydra's grammar
PLAIN = ("sequence", "compare")  # they start or read other runs: a plain command line and no config of their own


@outliving_readers()
def main() -> None:
    """Runs the command that the first word names."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: forgetmenot COMMAND [KEY=VALUE ...]\n")
        print("\n".join(f"  {name:<10} {purpose}" for name, purpose in COMMANDS.items()))
        print("\nforgetmenot COMMAND --help shows its settings.")
        return
    command = sys.argv[1]
    if command not in COMMANDS:
        sys.exit(f"error: command must be one of {', '.join(COMMANDS)}, got {command}{did_you_mean(command, COMMANDS)}")
    if command in PLAIN:
        _run_plain(command, arguments=sys.argv[2:])
    else:
        run_command(command, arguments=sys.argv[2:])


@outliving_readers()
def run_command(command: str, *, arguments: list[str]) -> None:
    """Runs one command with its KEY=VALUE arguments; cli/<command>.py holds its story."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of what is optional when peft imports it
    for key in RAW_TEXT.get(command, ()):
        arguments = [quoted(word, key=key) for word in arguments]
    run_app(
        lambda: importlib.import_module(f"forgetmenot.cli.{command}").run,
        config_name=command,
        arguments=arguments,
        after_sweep=_compare,
    )


def _compare(sweep: Path) -> None:
    """Sets a sweep's runs side by side, on a page in its folder too where plotly is installed."""
    page = ["--html", str(sweep / "runs.html")] if find_spec("plotly") else []
    _run_plain("compare", arguments=[str(sweep), *page])


def _run_plain(command: str, *, arguments: list[str]) -> None:
    """Runs a command with a plain command line; what a user got wrong ends with one sentence, a signal with a word."""
    try:
        with ending_on_signals():
            importlib.import_module(f"forgetmenot.cli.{command}").main(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        sys.exit(exit_code(error))


if __name__ == "__main__":  # how a sequence starts its stages, and a stage its ranks
    main()
