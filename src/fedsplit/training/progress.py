"""Progress of a run: on a terminal a line a round and a bar inside it, elsewhere a line a minute."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch
from rich.console import Console
from typing_extensions import override

from fedsplit.errors import format_count
from fedsplit.estimators.fit import Fit
from fedsplit.machine.progress import INTERVAL_S, PATIENCE_S, TransientBar
from fedsplit.recording.metrics import Record


@dataclass(frozen=True)
class Activity:
    """Work of a run at one moment.

    Args:
        doing: the round and its phase, in a few words.
        fraction: fraction of the round's local training that is done; None where nobody knows.
        detail: bytes so far, and estimated ends of round and run.
        seconds: seconds since the round began.
    """

    doing: str
    fraction: float | None = None
    detail: str = ""
    seconds: float = 0.0

    @override
    def __str__(self) -> str:
        share = "" if self.fraction is None else f" {self.fraction:.0%}"
        return f"{self.doing}{share}{'  ' if self.detail else ''}{self.detail}"


class ProgressLines:
    """Lines on standard output, and on a terminal a bar below them while a round takes long.

    Args:
        doing: function that returns what the run is doing; called from another thread.
        console: console that prints; None where nothing is to be shown.
        clock: function that returns seconds.
    """

    def __init__(
        self,
        doing: Callable[[], Activity],
        console: Console | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._doing, self._console, self._clock = doing, console, clock
        self._lock = threading.Lock()
        self._last_print = -INTERVAL_S + clock()
        self._newest_line: str | None = None
        self._bar = TransientBar(console) if console is not None and console.is_terminal else None

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Show what the run does, from another thread, also when no round ends for long."""
        over = threading.Event()
        thread = threading.Thread(target=self._follow, args=(over,), daemon=True)
        if self._console is not None:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if self._console is not None:
                thread.join()
            self._print(self._newest_line)

    def tell(self, line: str) -> None:
        """Show a line at once; other lines wait for their turn."""
        self._print(line)

    def round(self, line: str) -> None:
        """Show the line of a round: on a terminal at once, elsewhere when one is due; the last always."""
        with self._lock:
            self._newest_line = line
            due = self._clock() - self._last_print >= INTERVAL_S
        if due or self._bar is not None:
            self._print(line)

    def beat(self) -> None:
        """Bring the bar up to date; without one show the newest round or what is done now, where due."""
        if self._bar is not None:
            doing = self._doing()
            if doing.seconds >= PATIENCE_S:
                self._bar.show(doing.doing, doing.fraction, doing.detail)
            else:
                self._bar.hide()
        elif self._clock() - self._last_print >= INTERVAL_S:
            self._print(self._newest_line or str(self._doing()))

    def _print(self, line: str | None) -> None:
        if self._console is None or line is None:
            return
        with self._lock:
            self._newest_line, self._last_print = None, self._clock()
            self._console.print(line, markup=False, soft_wrap=True)

    def _follow(self, over: threading.Event) -> None:
        try:
            while not over.wait(0.5):
                self.beat()
        finally:
            if self._bar is not None:
                self._bar.hide()


def first_line(rounds: int, clients: int, device: torch.device, before: int) -> str:
    """First line of a run: what it is about to do, and where.

    Args:
        rounds: most rounds that the run has.
        clients: number of clients.
        device: device that computes them.
        before: number of rounds that were run already.
    """
    gone_on = f", going on after {before}" if before else ""
    counts = [format_count(number, noun) for number, noun in ((rounds, "round"), (clients, "client"))]
    return f"{', '.join(counts)}, on {device}{gone_on}"


def describe_activity(
    t: int,
    phase: str,
    fits: Mapping[int, Fit],
    *,
    seconds: float = 0.0,
    fraction: float | None = None,
    load: int = 0,
    before: Sequence[float] = (),
    rounds: int = 0,
) -> Activity:
    """Describe what a run does in the middle of a round.

    Args:
        t: number of the round.
        phase: phase of the round.
        fits: last alignment of each client.
        seconds: seconds since the round began.
        fraction: fraction of its local training that is done; None where nobody knows.
        load: bytes of the run so far.
        before: seconds of each round before.
        rounds: most rounds that the run has.
    """
    if phase == "training" and (aligned_clients := _count_aligned(t, fits)):
        phase = f"aligning: {format_count(aligned_clients, 'client')} done"
    usual = median(before[-5:]) if before else None
    if usual is None and fraction:
        usual = seconds / fraction
    detail = [f"{load / 1e6:,.2f} MB"] if load else []
    if usual is not None and rounds:
        seconds_left = max(0.0, usual - seconds)
        end_of_run = seconds_left + usual * (rounds - t - 1)
        detail.append(f"round ends in {_format_clock(seconds_left)}, run in {_format_clock(end_of_run)}")
    share = fraction if phase == "training" else None
    return Activity(f"round {t:>4}  {phase}", share, "  ".join(detail), seconds)


def _format_clock(seconds: float) -> str:
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds_left:02}" if hours else f"{minutes}:{seconds_left:02}"


def describe_round(record: Record, fits: Mapping[int, Fit], traffic: Callable[[float], str]) -> str:
    """Line that reports a round.

    Args:
        record: record of the round.
        fits: last alignment of each client.
        traffic: function from a number of seconds to a summary of network traffic in them; empty for none.
    """
    seconds = sum(record.seconds.values())
    accuracy = "" if record.test_accuracy is None else f"accuracy {record.test_accuracy:.4f}  "
    if record.test_perplexity is not None:
        accuracy += f"perplexity {record.test_perplexity:.2f}  "
    if record.text_scores is not None:
        accuracy += f"BLEU {record.text_scores.bleu:.1f}  "
    line = (
        f"round {record.round:>4}  {accuracy}loss {record.train_loss:.4f}  "
        f"{record.load / 1e6:,.2f} MB  {seconds:.2f} s"
    )
    if aligned_clients := _count_aligned(record.round, fits):
        line += f"  {format_count(aligned_clients, 'client')} aligned"
    if record.simulated_seconds is not None:
        line += f"  {record.simulated_seconds:,.1f} s simulated"
    if network := traffic(seconds):
        line += f"  {network}"
    return line


def _count_aligned(t: int, fits: Mapping[int, Fit]) -> int:
    """Number of clients whose auxiliary models were aligned in round `t`."""
    return sum(fit.round == t for fit in list(fits.values()))  # a copy: another thread aligns meanwhile
