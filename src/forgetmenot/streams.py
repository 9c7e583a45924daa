"""What a command says must not end it: a run outlives whoever read its output, as `| tee` that Ctrl-C ends too."""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, cast

_NOBODY_READS = (errno.EPIPE, errno.EIO, errno.ECONNRESET)
"""How it fails to write to a pipe, to a terminal and to a connection that is gone."""


class _Outliving:
    """A stream that goes on to nowhere, without a word, once nobody reads it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._dropped_once_unread():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._dropped_once_unread():
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        if name == "_stream":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._stream, name)

    @contextmanager
    def _dropped_once_unread(self) -> Iterator[None]:
        """Leads the stream to nowhere once nobody reads it, with what it still holds: Python flushes it at the end."""
        try:
            yield
        except BlockingIOError:
            return  # a terminal that is slow, and still there
        except OSError as error:
            if error.errno not in _NOBODY_READS:
                raise
            with suppress(OSError), Path(os.devnull).open("w") as nowhere:  # a stream need not have a file
                os.dup2(nowhere.fileno(), self._stream.fileno())


@contextmanager
def outliving_readers() -> Iterator[None]:
    """Lets what is printed within the block raise no OSError where nobody reads it."""
    before = sys.stdout, sys.stderr  # None where it is closed
    sys.stdout, sys.stderr = (stream and cast("TextIO", _Outliving(stream)) for stream in before)
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError):  # Python tells what else is wrong as it ends
                stream.flush()
        sys.stdout, sys.stderr = before
