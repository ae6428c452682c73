"""Callbacks after each round of the runs that a caller in Python starts."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

RoundCallback: TypeAlias = Callable[[Mapping[str, object]], object]
"""Called with the row of `metrics.csv` of a round that has ended."""

_CALLBACK: ContextVar[RoundCallback | None] = ContextVar("fedsplit_round_callback", default=None)


class _Raised(BaseException):
    """An error of a callback, which no handler between it and its caller takes for an error of the run."""


@contextmanager
def calling_after_rounds(callback: RoundCallback | None) -> Iterator[None]:
    """Runs that this thread starts meanwhile call `callback`; what it raises ends the run, and is raised."""
    token = _CALLBACK.set(callback)
    try:
        yield
    except _Raised as raised:
        error: BaseException = raised.args[0]
        raise error from None
    finally:
        _CALLBACK.reset(token)


def call_after_round(row: Mapping[str, object]) -> None:
    """Call what is to be called, if anything is."""
    if (callback := _CALLBACK.get()) is not None:
        try:
            callback(row)
        except Exception as error:
            raise _Raised(error) from error
