"""Standard output and error, whatever they are connected to; light to import."""

import codecs
import io
import logging
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from fedsplit.errors import first_line

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_LOG = logging.getLogger("fedsplit")


def with_tolerant_output(main: Callable[[], int]) -> int:
    """Call `main` with a standard output and error that cannot fail; its exit code.

    What their encoding lacks is written as an escape, and bytes of a file's name that are no text as these
    bytes. From the first byte that an output does not take (it is closed, full, or nobody reads it any more)
    all else goes nowhere; of standard output this is told at the end, but not where a reader had enough.
    """
    _open_standard_descriptors()
    output, error = _Output(1), _Output(2)
    sys.stdout = _text(output, sys.stdout, __name__, by_line=output.isatty())
    sys.stderr = _text(error, sys.stderr, "backslashreplace", by_line=True)
    try:
        return main()
    finally:
        sys.stdout.flush()
        if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
            note(f"standard output could not be written ({output.failure.strerror})")
        sys.stderr.flush()


def note(text: str) -> None:
    """Tell on standard error, in one line, what a user should know and no run fails by."""
    print(f"note: {text}", file=sys.stderr, flush=True)


@contextmanager
def optional(what: str) -> Iterator[None]:
    """A part that a run can do without: where it fails this is told, in one line, and the run goes on.

    Args:
        what: the part, as in "the ROC curves".

    Raises:
        OSError: files cannot be written, which other parts will meet too.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        message = f"{what}: left out ({type(error).__name__}: {first_line(error)})"
        _LOG.warning("%s", message)
        note(message)


class _Output(io.RawIOBase):
    """Bytes to a file descriptor; from the first that it does not take on, to nowhere."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, content: "ReadableBuffer") -> int:
        view = memoryview(content)
        while self.failure is None:
            try:
                return os.write(self._descriptor, view)
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.failure = error
        return view.nbytes


def _text(output: _Output, before: TextIO | None, errors: str, *, by_line: bool) -> io.TextIOWrapper:
    encoding = before.encoding if before is not None else "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(output), encoding, errors, line_buffering=by_line)


def _open_standard_descriptors() -> None:
    """Put nothing at standard descriptors that are closed: the next file opened would be taken for them."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free one, this


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """A byte of a file's name as this byte, any other character as an escape."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start]
    if "\udc80" <= lacking <= "\udcff":
        return lacking.encode("ascii", "surrogateescape"), error.start + 1
    return lacking.encode("ascii", "backslashreplace"), error.start + 1


codecs.register_error(__name__, _escape)
