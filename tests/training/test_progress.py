"""Lines of a run, with a clock that the test sets."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from fedsplit.estimators.fit import Fit
from fedsplit.recording.metrics import _EMPTY
from fedsplit.training.progress import Activity, ProgressLines, describe_activity, describe_round
from tests.conftest import Build


class Said:
    def __init__(self, *, terminal: bool) -> None:
        self.now, self.out = 0.0, io.StringIO()
        console = Console(file=self.out, force_terminal=terminal, no_color=True, highlight=False)
        self.lines = ProgressLines(lambda: self.activity, console, lambda: self.now)

    @property
    def activity(self) -> Activity:
        return Activity(f"doing {self.now:g}", seconds=self.now)

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
    with said.lines.beating():
        said.lines.tell("begins")
        for number in range(13):
            said.now = 10.0 * number
            said.lines.round(f"round {number}")
            said.lines.beat()
        said.now += 5
        said.lines.round("round 13")
    assert said.text == ["begins", "round 6", "round 12", "round 13"]


def test_what_is_being_done_is_told_once_a_minute_in_a_file_where_no_round_ends() -> None:
    said = Said(terminal=False)
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
    lines = ProgressLines(lambda: Activity(""), None)
    with lines.beating():
        lines.tell("begins")
        lines.round("round 0")
        lines.beat()


def test_line_of_a_round_tells_what_was_measured_and_leaves_out_what_was_not() -> None:
    seconds = {"clients": 1.0, "server": 0.5, "evaluate": 0.25}
    record = replace(_EMPTY, round=7, train_loss=0.5, load=1_234_567, seconds=seconds)
    assert describe_round(record, {}, lambda _: "") == "round    7  loss 0.5000  1.23 MB  1.75 s"
    full = replace(record, test_accuracy=0.25, simulated_seconds=1234.5)
    fits = {0: Fit(7, 1, 1), 1: Fit(6, 1, 1), 2: Fit(7, 1, 1)}
    assert describe_round(full, fits, lambda seconds: f"{seconds} s on the wire") == (
        "round    7  accuracy 0.2500  loss 0.5000  1.23 MB  1.75 s  2 clients aligned  1,234.5 s simulated"
        "  1.75 s on the wire"
    )


def test_terminal_shows_a_bar_once_a_round_takes_longer_than_two_seconds_and_leaves_none_behind() -> None:
    said = Said(terminal=True)
    with said.lines.beating():
        said.now = 1.0
        said.lines.beat()
        assert said.text == []
        said.now = 3.0
        said.lines.beat()
        assert any("doing 3" in line for line in said.text)
        said.now = 0.5  # into the next round
        said.lines.round("round 0")
        said.lines.beat()
    assert said.out.getvalue().endswith("\x1b[1A\x1b[2K")  # a line up, and that line erased


def test_activity_tells_of_alignments_while_a_round_is_trained() -> None:
    fits = {0: Fit(7, 1, 1), 1: Fit(6, 1, 1)}
    assert str(describe_activity(7, "training", fits)) == "round    7  aligning: 1 client done"
    assert str(describe_activity(8, "training", fits)) == "round    8  training"
    assert str(describe_activity(7, "evaluating", fits)) == "round    7  evaluating"


def test_activity_estimates_ends_from_the_share_that_is_done_and_then_from_earlier_rounds() -> None:
    first = describe_activity(0, "training", {}, seconds=30.0, fraction=0.25, load=2_500_000, rounds=3)
    assert str(first) == "round    0  training 25%  2.50 MB  round ends in 1:30, run in 5:30"
    later = describe_activity(
        9, "evaluating", {}, seconds=50.0, fraction=1.0, before=(70, 60, 65), rounds=100
    )
    assert str(later) == "round    9  evaluating  round ends in 0:15, run in 1:37:45"
    late = describe_activity(1, "training", {}, seconds=99.0, before=(60,), rounds=2)
    assert late.detail == "round ends in 0:00, run in 0:00"


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_fraction_of_a_round_is_that_of_the_samples_that_its_cohort_has_read(
    tiny: Build, engine: str
) -> None:
    experiment = tiny(f"engine={engine}", "local_epochs=2", "cohort_size=2", "num_clients=4")
    assert experiment.rounds.fraction is None
    for t in range(2):
        experiment.records.append(experiment.run_round(t))
        assert experiment.rounds.fraction == 1.0
