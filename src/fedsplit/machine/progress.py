"""Progress of long work: on a terminal a bar that goes when the work is done, elsewhere a line a minute."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

T = TypeVar("T")
PATIENCE_S = 2.0
"""Seconds that work takes before a bar is shown."""
INTERVAL_S = 60.0
"""Seconds between two lines where output is no terminal."""


class TransientBar:
    """A bar at the bottom of a terminal, which leaves nothing behind.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, detail="")
        self._shown = False

    def show(self, description: str, fraction: float | None, detail: str) -> None:
        """Show the bar with a text before it and one behind it; `fraction` None where nobody knows."""
        total = None if fraction is None else 1.0
        self._progress.update(
            self._task, description=description, total=total, completed=fraction or 0.0, detail=detail
        )
        if not self._shown:
            self._progress.start()
            self._shown = True

    def hide(self) -> None:
        """Take the bar away, where there is one."""
        if self._shown:
            self._progress.stop()
            self._shown = False


def track(
    items: Sequence[T],
    description: str,
    *,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Iterate over items, and show on standard error how many are done.

    Args:
        items: all that is to be done.
        description: description of the work, such as `decoding images`.
        console: prints; by default on standard error.
        clock: seconds.
    """
    console = console or Console(stderr=True)
    shown = _on_terminal if console.is_terminal else _in_lines
    with shown(description, len(items), console, clock) as tell:
        for done, item in enumerate(items):
            tell(done)
            yield item


@contextmanager
def _on_terminal(
    description: str, total: int, console: Console, clock: Callable[[], float]
) -> Iterator[Callable[[int], None]]:
    bar, lock = TransientBar(console), threading.Lock()
    finished, is_shown, over = 0, False, False

    def show() -> None:
        nonlocal is_shown
        with lock:
            if not over:
                is_shown = True
                bar.show(description, finished / total, f"{finished:,} of {total:,}")

    def tell(done: int) -> None:
        nonlocal finished
        finished = done
        if is_shown:
            show()

    timer = threading.Timer(PATIENCE_S, show)
    timer.daemon = True
    timer.start()
    try:
        yield tell
    finally:
        timer.cancel()
        with lock:
            over = True
            bar.hide()


@contextmanager
def _in_lines(
    description: str, total: int, console: Console, clock: Callable[[], float]
) -> Iterator[Callable[[int], None]]:
    said = clock()

    def tell(done: int) -> None:
        nonlocal said
        if clock() - said >= INTERVAL_S:
            said = clock()
            console.print(f"{description}: {done:,} of {total:,}", markup=False, soft_wrap=True)

    yield tell
