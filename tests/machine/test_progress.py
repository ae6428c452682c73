"""Progress of work over items."""

import io
import time

import pytest
from rich.console import Console

from fedsplit.machine import progress
from fedsplit.machine.progress import track


def test_tracked_items_are_told_once_a_minute_in_a_file() -> None:
    now, out = [0.0], io.StringIO()
    console = Console(file=out, force_terminal=False)
    seen = []
    for item in track(range(1000, 1020), "decoding [bold] images", console=console, clock=lambda: now[0]):
        seen.append(item)
        now[0] += 10.0
    assert seen == list(range(1000, 1020))
    assert out.getvalue().splitlines() == [f"decoding [bold] images: {done} of 20" for done in (6, 12, 18)]


def test_tracked_items_have_a_bar_on_a_terminal_also_while_the_first_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.01)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, no_color=True)
    items = track(["a", "b"], "measuring", console=console)
    assert next(items) == "a"
    deadline = time.monotonic() + 10
    while "measuring" not in out.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "0 of 2" in out.getvalue()
    assert list(items) == ["b"]
    shown = len(out.getvalue())
    time.sleep(0.05)
    assert len(out.getvalue()) == shown


def test_tracked_items_that_take_no_time_leave_nothing() -> None:
    out = io.StringIO()
    assert list(track([1, 2, 3], "measuring", console=Console(file=out, force_terminal=True))) == [1, 2, 3]
    assert out.getvalue() == ""
