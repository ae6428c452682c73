"""Callbacks after each round of the runs that a caller in Python starts."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

RoundCallback: TypeAlias = Callable[[Mapping[str, object]], object]
"""Called with the row of `metrics.csv` of a round that has ended."""

_CALLBACK: ContextVar[RoundCallback | None] = ContextVar("fedsplit_round_callback", default=None)


class _CallbackError(BaseException):
    """An error of a callback, which no handler between it and its caller takes for an error of the run."""


@contextmanager
def register_callback(callback: RoundCallback | None) -> Iterator[None]:
    """Have runs that this thread starts call `callback`; an error in it ends the run, and is raised."""
    token = _CALLBACK.set(callback)
    try:
        yield
    except _CallbackError as wrapper:
        error: BaseException = wrapper.args[0]
        raise error from None
    finally:
        _CALLBACK.reset(token)


def call_after_round(row: Mapping[str, object]) -> None:
    """Call the callback of this thread, if it has one."""
    if (callback := _CALLBACK.get()) is not None:
        try:
            callback(row)
        except Exception as error:
            raise _CallbackError(error) from error
