"""What a run says of itself: on a terminal a line a round, elsewhere a line a minute."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from rich.console import Console

from fedsplit.estimators.fit import Fit
from fedsplit.recording.metrics import Record

INTERVAL_S = 60.0
"""Seconds after which a line is due."""


class ProgressLines:
    """Lines on standard output.

    Args:
        doing: says what the run is doing; called from another thread.
        console: prints; None where nothing is to be shown.
        clock: seconds.
    """

    def __init__(
        self,
        doing: Callable[[], str],
        console: Console | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._doing, self._console, self._clock = doing, console, clock
        self._lock = threading.Lock()
        self._printed = -INTERVAL_S + clock()
        self._held: str | None = None

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """While the run goes on: what it does is told too when no round ends for long."""
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
            self._print(self._held)

    def tell(self, line: str) -> None:
        """Show a line at once; what else there is to say waits for its turn."""
        self._print(line)

    def round(self, line: str) -> None:
        """Show the line of a round: on a terminal at once, elsewhere when one is due; the last always."""
        with self._lock:
            self._held = line
            due = self._clock() - self._printed >= INTERVAL_S
        if due or (self._console is not None and self._console.is_terminal):
            self._print(line)

    def beat(self) -> None:
        """Show the newest round, or else what is being done, where a line is due."""
        if self._clock() - self._printed >= INTERVAL_S:
            self._print(self._held or self._doing())

    def _print(self, line: str | None) -> None:
        if self._console is None or line is None:
            return
        with self._lock:
            self._held, self._printed = None, self._clock()
            self._console.print(line, markup=False, soft_wrap=True)

    def _follow(self, over: threading.Event) -> None:
        while not over.wait(1.0):
            self.beat()


def beginning(rounds: int, clients: int, device: torch.device, before: int) -> str:
    """What a run is about to do, and where.

    Args:
        rounds: that it runs at most.
        clients: how many there are.
        device: that computes them.
        before: rounds that were run already.
    """
    gone_on = f", going on after {before}" if before else ""
    return f"{rounds} rounds, {clients} clients, on {device}{gone_on}"


def activity(t: int, phase: str, fits: Mapping[int, Fit]) -> str:
    """What a run is doing now, in a few words.

    Args:
        t: the round that it is in.
        phase: of the round.
        fits: the last alignment of each client.
    """
    if phase == "training" and (aligned := _aligned(t, fits)):
        return f"round {t:>4}  aligning: {aligned} clients done"
    return f"round {t:>4}  {phase}"


def round_line(record: Record, fits: Mapping[int, Fit], traffic: Callable[[float], str]) -> str:
    """What came of a round, in one line.

    Args:
        record: of the round.
        fits: the last alignment of each client.
        traffic: what crossed the network in the last so many seconds; nothing where there is none.
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
    if aligned := _aligned(record.round, fits):
        line += f"  {aligned} clients aligned"
    if record.simulated_seconds is not None:
        line += f"  {record.simulated_seconds:,.1f} s simulated"
    if network := traffic(seconds):
        line += f"  {network}"
    return line


def _aligned(t: int, fits: Mapping[int, Fit]) -> int:
    """How many clients' auxiliary models were aligned in round `t`."""
    return sum(fit.round == t for fit in list(fits.values()))  # a copy: another thread aligns meanwhile
