"""What a command says must not end it: a run outlives whoever read its output, as `| tee` that Ctrl-C ends too."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, cast


class _Unread:
    """A stream that goes on without a word, to nowhere, from the first time that it cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._unread():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._unread():
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    @contextmanager
    def _unread(self) -> Iterator[None]:
        """Leads the stream to nowhere where it fails, with what it still holds: Python flushes it again at the end."""
        try:
            yield
        except BlockingIOError:
            return  # a terminal that is slow, and still there
        except OSError:
            with suppress(OSError), Path(os.devnull).open("w") as nowhere:  # a stream need not have a file
                os.dup2(nowhere.fileno(), self._stream.fileno())


@contextmanager
def outliving_readers() -> Iterator[None]:
    """Lets nothing that is written to stdout or stderr within the block raise OSError."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", _Unread(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
