"""Lines of a run, with a clock that the test sets."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from fedsplit.estimators.fit import Fit
from fedsplit.recording.metrics import _EMPTY
from fedsplit.training.progress import ProgressLines, activity, round_line


class Said:
    def __init__(self, *, terminal: bool) -> None:
        self.now, self.out = 0.0, io.StringIO()
        console = Console(file=self.out, force_terminal=terminal, no_color=True, highlight=False)
        self.lines = ProgressLines(lambda: f"doing {self.now:g}", console, lambda: self.now)

    @property
    def text(self) -> list[str]:
        return self.out.getvalue().splitlines()


def test_every_round_is_a_line_on_a_terminal() -> None:
    said = Said(terminal=True)
    for number in range(3):
        said.lines.round(f"round {number}")
    assert said.text == ["round 0", "round 1", "round 2"]


def test_file_gets_the_newest_round_once_a_minute_and_the_last_one() -> None:
    said = Said(terminal=False)
    with said.lines.going_on():
        said.lines.tell("begins")
        for number in range(13):
            said.now = 10.0 * number
            said.lines.round(f"round {number}")
            said.lines.beat()
        said.now += 5
        said.lines.round("round 13")
    assert said.text == ["begins", "round 6", "round 12", "round 13"]


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_being_done_is_told_once_a_minute_where_no_round_ends(terminal: bool) -> None:
    said = Said(terminal=terminal)
    said.lines.tell("begins")
    for second in range(0, 150, 10):
        said.now = float(second)
        said.lines.beat()
    assert said.text == ["begins", "doing 60", "doing 120"]


def test_paths_in_brackets_are_told_as_they_are() -> None:
    said = Said(terminal=False)
    said.lines.tell("saved in runs/[bold]x")
    assert said.text == ["saved in runs/[bold]x"]


def test_nothing_is_told_without_a_console() -> None:
    lines = ProgressLines(lambda: "", None)
    with lines.going_on():
        lines.tell("begins")
        lines.round("round 0")
        lines.beat()


def test_line_of_a_round_tells_what_was_measured_and_leaves_out_what_was_not() -> None:
    seconds = {"clients": 1.0, "server": 0.5, "evaluate": 0.25}
    record = replace(_EMPTY, round=7, train_loss=0.5, load=1_234_567, seconds=seconds)
    assert round_line(record, {}, lambda _: "") == "round    7  loss 0.5000  1.23 MB  1.75 s"
    full = replace(record, test_accuracy=0.25, simulated_seconds=1234.5)
    fits = {0: Fit(7, 1, 1), 1: Fit(6, 1, 1), 2: Fit(7, 1, 1)}
    assert round_line(full, fits, lambda seconds: f"{seconds} s on the wire") == (
        "round    7  accuracy 0.2500  loss 0.5000  1.23 MB  1.75 s  2 clients aligned  1,234.5 s simulated"
        "  1.75 s on the wire"
    )


def test_activity_tells_of_alignments_while_a_round_is_trained() -> None:
    fits = {0: Fit(7, 1, 1), 1: Fit(6, 1, 1)}
    assert activity(7, "training", fits) == "round    7  aligning: 1 clients done"
    assert activity(8, "training", fits) == "round    8  training"
    assert activity(7, "evaluating", fits) == "round    7  evaluating"
