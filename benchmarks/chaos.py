"""Runs over gRPC that are disturbed at random moments: each has to end with the bits of one that was not.

    python benchmarks/chaos.py --runs 50
    python benchmarks/chaos.py --runs 20 --only "server killed" --algorithms splitfed_v2 --seed 7

Each run draws an algorithm, a quantization and a disturbance. What it leaves behind is compared with a run of
the same configuration in one process that nobody disturbed: the models byte for byte, and `metrics.csv` but
for its seconds and for what was sent again. It also must leave no process behind. Exit code 1 if any differs;
what such a run left is kept below `--folder`.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table

from tests.transport.processes import Command, started_by
from tests.transport.proxy import Proxy

ALGORITHMS = ("fed_avg", "splitfed_v1", "splitfed_v2", "cse_fsl", "fsl_sage")
CLIENTS, ROUNDS = 4, 6
TINY = (
    f"num_clients={CLIENTS}",
    f"rounds={ROUNDS}",
    "dataset.max_train=400",
    "dataset.max_test=100",
    "batch_size=8",
    "checkpoint_interval=2",
    "progress=false",
    "algorithm.align_interval=3",
    "auxiliary.align_epochs=10",
)
SILENCE_S = 20.0
"""Longer than both ends wait for a sign of life (see `wire.OPTIONS`)."""
LIMIT_S = 240.0
"""Seconds after which a run is taken for one that never ends."""


@dataclass(frozen=True)
class Choice:
    """What is trained."""

    algorithm: str
    quantization: str
    cohort: int

    def overrides(self) -> list[str]:
        """On the command line."""
        tiny = [o for o in TINY if self.algorithm == "fsl_sage" or "align" not in o]
        cohort = [f"cohort_size={self.cohort}"] if self.cohort < CLIENTS else []
        return [*tiny, *cohort, f"algorithm={self.algorithm}", f"quant={self.quantization}"]


@dataclass(frozen=True)
class Left:
    """What a run left behind, apart from what may differ."""

    models: dict[str, bytes]
    rounds: list[dict[str, str]]

    @classmethod
    def by(cls, directory: Path) -> "Left":
        """The run in this directory."""
        models = {path.name: path.read_bytes() for path in directory.glob("model/*.safetensors")}
        with (directory / "metrics.csv").open(newline="") as file:
            rows = [
                {k: v for k, v in row.items() if not k.startswith(("seconds.", "retransmitted."))}
                for row in csv.DictReader(file)
            ]
        return cls(models, rows)


class Stuck(Exception):
    """What had to happen did not."""


class Run:
    """A run over gRPC, and what can be done to it.

    Args:
        choice: what is trained.
        folder: for everything.
        dial_in: whether clients are commands of their own, which outlive the server.
        proxied: whether they reach the server through a proxy.
    """

    def __init__(self, choice: Choice, folder: Path, *, dial_in: bool, proxied: bool) -> None:
        self.directory, self._folder, self._dial_in, self._proxied = folder / "run", folder, dial_in, proxied
        self._overrides = [*choice.overrides(), "transport=grpc", f"hydra.run.dir={self.directory}"]
        self._server: Command | None = None
        self._clients: dict[int, Command] = {}
        self._port = _free_port() if dial_in else 0
        if dial_in:
            self._overrides += ["transport.spawn=false", f"transport.listen=127.0.0.1:{self._port}"]
        self.began = time.monotonic()
        self.expected = {0}
        """Exit codes that the server may end with next."""

    def __enter__(self) -> "Run":
        self._stack = ExitStack()
        self.proxy = self._stack.enter_context(Proxy(self._port)) if self._proxied else None
        self._stack.callback(self._end_all)
        self.start_server()
        if self._dial_in:
            for client in range(CLIENTS):
                self._start_client(client)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def log(self) -> Path:
        """Where the server's output goes."""
        return self._folder / "server.txt"

    @property
    def server(self) -> Command:
        """As it runs now."""
        assert self._server is not None
        return self._server

    def start_server(self) -> None:
        """Start it, or start it again where it stood."""
        again = (self.directory / "config.yaml").is_file()
        self._server = Command([f"resume={self.directory}"] if again else self._overrides, self.log)

    def _start_client(self, client: int) -> None:
        port = self.proxy.port if self.proxy is not None else self._port
        own = self._folder / f"client-{client}"
        asked = ["task=client", f"transport.server=127.0.0.1:{port}", f"client.id={client}"]
        self._clients[client] = Command(
            [*asked, f"client.directory={own}", "progress=false"], self._folder / f"client-{client}.txt"
        )

    def pid(self, client: int) -> int:
        """Of a client's process, once it is there."""
        if self._dial_in:
            return self._clients[client].pid
        path = self.directory / "clients" / str(client) / "pid"
        return int(self.until(lambda: path.is_file() and path.read_text().strip(), "a client's process"))

    def kill_client(self, client: int) -> None:
        """Kill it; it is started again, as whoever runs it would."""
        if (self.directory / "results.json").is_file():  # whoever starts anew after the end is told nothing
            return
        if self._dial_in:
            self._clients[client].kill()
            self._start_client(client)
        else:
            signalled(self.pid(client), signal.SIGKILL)

    def kill_server(self) -> None:
        """Kill it, and start it again."""
        self.server.kill()
        self.check(-signal.SIGKILL)
        self._wait_for_orphans()
        self.start_server()

    def check(self, *expected: int) -> None:
        """Raise where the server has ended otherwise (that it had come to its end before is no matter)."""
        code = self.server.exit_code
        if code not in (*expected, 0):
            raise Stuck(f"the server ended with {code}")

    def _wait_for_orphans(self) -> None:
        self.until(lambda: not started_by(self.log), "the end of all that the server started", 10.0)

    def until(self, reached: Callable[[], object], what: str, seconds: float = LIMIT_S) -> str:
        """Wait until something is true."""
        end = time.monotonic() + seconds
        while not (value := reached()):
            if time.monotonic() > end:
                raise Stuck(f"waited {seconds:.0f} s for {what}")
            time.sleep(0.001)
        return str(value)

    def rounds(self) -> int:
        """How many rounds are done."""
        path = self.directory / "metrics.csv"
        return max(len(path.read_bytes().splitlines()) - 1, 0) if path.is_file() else 0

    def _arrived(self) -> bool:
        log = self.directory / "run.log"
        return log.is_file() and log.read_text("utf-8").count("is here") >= CLIENTS

    def reach(self, draw: random.Random, longest: float = 0.4) -> None:
        """Wait for a random moment of a random round, or, less often, of the start."""
        done = draw.randrange(-1, ROUNDS)
        if done < 0:
            time.sleep(draw.uniform(0, 8.0))
            return
        self.until(
            lambda: (self._arrived() and self.rounds() >= done) or self.server.exit_code is not None,
            f"{done} rounds",
        )
        time.sleep(draw.uniform(0, longest))

    def end(self) -> None:
        """Wait for the end of all."""
        if self.server.wait(max(LIMIT_S - (time.monotonic() - self.began), 1.0)) is None:
            raise Stuck("the server did not end")
        self.check(0)
        for client, process in self._clients.items():
            if (code := process.wait(20.0)) != 0:
                raise Stuck(f"client {client} " + ("did not end" if code is None else f"ended with {code}"))
        self._wait_for_orphans()

    def _end_all(self) -> None:
        for command in (*self._clients.values(), self.server):
            command.kill()
        for pid in started_by(self.log):
            signalled(pid, signal.SIGKILL)


def signalled(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone already."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


# Disturbances of a run


def nothing(run: Run, draw: random.Random) -> None:
    """Nothing."""


def client_killed(run: Run, draw: random.Random) -> None:
    """A client, at a random moment."""
    run.reach(draw)
    run.kill_client(draw.randrange(CLIENTS))


def clients_killed(run: Run, draw: random.Random) -> None:
    """Three times in a row some client."""
    for _ in range(3):
        client_killed(run, draw)


def client_killed_keeping(run: Run, draw: random.Random) -> None:
    """A client, while it keeps its state."""
    client = draw.randrange(CLIENTS)
    folder = run.directory / "clients" / str(client)
    skipped = draw.randrange(3)
    for _ in range(skipped + 1):
        run.until(lambda: (folder / ".partial").exists() or run.server.exit_code is not None, "a state")
        if _ == skipped:
            signalled(run.pid(client), signal.SIGKILL)
        run.until(lambda: not (folder / ".partial").exists() or run.server.exit_code is not None, "its end")


def server_killed(run: Run, draw: random.Random) -> None:
    """The server, at a random moment."""
    run.reach(draw)
    run.kill_server()


def server_killed_saving(run: Run, draw: random.Random) -> None:
    """The server, while it writes a checkpoint."""
    partial = run.directory / "checkpoint" / ".partial"
    skipped = draw.randrange(2)
    for _ in range(skipped + 1):
        run.until(lambda: partial.exists() or run.server.exit_code is not None, "a checkpoint")
        if _ == skipped:
            time.sleep(draw.choice([0.0, 0.002, 0.005]))
            run.kill_server()
            return
        run.until(lambda: not partial.exists() or run.server.exit_code is not None, "its end")


def server_killed_between(run: Run, draw: random.Random) -> None:
    """The server, as soon as a round is written."""
    done = draw.randrange(ROUNDS)
    run.until(lambda: run.rounds() > done or run.server.exit_code is not None, "a round")
    run.kill_server()


def server_interrupted(run: Run, draw: random.Random) -> None:
    """Ctrl-C, once or twice, then a resume."""
    run.reach(draw)
    run.server.send(signal.SIGINT)
    if draw.random() < 0.5:
        time.sleep(draw.uniform(0.0, 0.3))
        run.server.send(signal.SIGINT)
    if run.server.wait(20.0) is None:
        raise Stuck("it does not end after Ctrl-C")
    run.check(130, 1, -signal.SIGINT)  # the others where Python itself was starting or ending
    run._wait_for_orphans()
    run.start_server()


def nursery_killed(run: Run, draw: random.Random) -> None:
    """The process that starts clients: the run fails, and can be resumed."""
    run.reach(draw)
    for pid in started_by(run.log):
        command = Path(f"/proc/{pid}/stat")
        if command.is_file() and int(command.read_text().rpartition(")")[2].split()[1]) == run.server.pid:
            signalled(pid, signal.SIGKILL)
            if run.server.wait(30.0) is None:
                raise Stuck("it does not end without the process that starts clients")
            run.check(3)
            run._wait_for_orphans()
            run.start_server()
            return


def client_stopped(run: Run, draw: random.Random) -> None:
    """A client that hangs for longer than a sign of life may take."""
    run.reach(draw)
    pid = run.pid(draw.randrange(CLIENTS))
    signalled(pid, signal.SIGSTOP)
    time.sleep(SILENCE_S)
    signalled(pid, signal.SIGCONT)


def server_stopped(run: Run, draw: random.Random) -> None:
    """A server that hangs for longer than a sign of life may take."""
    run.reach(draw)
    run.server.send(signal.SIGSTOP)
    time.sleep(SILENCE_S)
    run.server.send(signal.SIGCONT)


def connections_cut(run: Run, draw: random.Random) -> None:
    """All connections are reset, three times, each after a random number of bytes."""
    assert run.proxy is not None
    for _ in range(3):
        done = threading.Event()
        run.proxy.when_up(draw.randrange(1, 150_000), "cut", done.set)
        run.until(lambda: done.is_set() or run.server.exit_code is not None, "bytes")  # noqa: B023


def connections_half_closed(run: Run, draw: random.Random) -> None:
    """All connections end in one direction."""
    assert run.proxy is not None
    run.reach(draw)
    run.proxy.half_close(draw.choice(["client", "server"]))


def connections_held(run: Run, draw: random.Random) -> None:
    """Nothing gets through for a while."""
    assert run.proxy is not None
    run.reach(draw)
    run.proxy.hold()
    time.sleep(draw.choice([1.0, SILENCE_S]))
    run.proxy.release()


def connections_slow(run: Run, draw: random.Random) -> None:
    """Everything is late from some moment on, and once connections are reset."""
    assert run.proxy is not None
    run.reach(draw)
    run.proxy.delay(draw.uniform(0.005, 0.03))
    run.reach(draw)
    run.proxy.cut()


def everything(run: Run, draw: random.Random) -> None:
    """A cut, a killed client and a killed server, in any order."""
    assert run.proxy is not None
    each: list[Callable[[], object]] = [
        run.proxy.cut,
        lambda: run.kill_client(draw.randrange(CLIENTS)),
        run.kill_server,
    ]
    draw.shuffle(each)
    for disturb in each:
        run.reach(draw)
        disturb()


@dataclass(frozen=True)
class Disturbance:
    """How a run is disturbed, and who starts its clients."""

    name: str
    act: Callable[[Run, random.Random], None]
    dial_in: bool = False
    proxied: bool = False


DISTURBANCES = (
    Disturbance("none", nothing),
    Disturbance("none, clients dial in", nothing, dial_in=True),
    Disturbance("client killed", client_killed),
    Disturbance("three clients killed", clients_killed),
    Disturbance("client killed keeping its state", client_killed_keeping),
    Disturbance("client killed, dialled in", client_killed, dial_in=True),
    Disturbance("server killed", server_killed),
    Disturbance("server killed saving", server_killed_saving),
    Disturbance("server killed after a round", server_killed_between),
    Disturbance("server killed, clients survive", server_killed, dial_in=True),
    Disturbance("server killed saving, clients survive", server_killed_saving, dial_in=True),
    Disturbance("server interrupted", server_interrupted),
    Disturbance("server interrupted, clients survive", server_interrupted, dial_in=True),
    Disturbance("nursery killed", nursery_killed),
    Disturbance("client stopped", client_stopped),
    Disturbance("client stopped, dialled in", client_stopped, dial_in=True),
    Disturbance("server stopped", server_stopped),
    Disturbance("connections cut", connections_cut, dial_in=True, proxied=True),
    Disturbance("connections half closed", connections_half_closed, dial_in=True, proxied=True),
    Disturbance("connections held", connections_held, dial_in=True, proxied=True),
    Disturbance("connections slow, then cut", connections_slow, dial_in=True, proxied=True),
    Disturbance("cut, client and server killed", everything, dial_in=True, proxied=True),
)


@dataclass(frozen=True)
class Outcome:
    """How a run came out."""

    disturbance: str
    seconds: float
    ended: bool
    same: bool


class References:
    """Undisturbed runs in one process, each done once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._found, self._lock = folder, dict[Choice, Left](), threading.Lock()

    def of(self, choice: Choice) -> Left:
        """What a run leaves that nobody disturbs."""
        with self._lock:
            if choice not in self._found:
                name = f"reference-{choice.algorithm}-{choice.quantization}-{choice.cohort}"
                directory = self.folder / name
                arguments = [*choice.overrides(), "engine=sequential", f"hydra.run.dir={directory}"]
                if Command(arguments, self.folder / f"{name}.txt").wait(LIMIT_S) != 0:
                    raise RuntimeError(f"the reference of {choice} failed; see {self.folder / name}.txt")
                self._found[choice] = Left.by(directory)
            return self._found[choice]


def disturbed(
    number: int, seed: int, disturbance: Disturbance, algorithms: list[str], references: References
) -> Outcome:
    """One run, from start to end."""
    draw = random.Random(f"{seed}/{number}")
    choice = Choice(
        draw.choice(algorithms), draw.choice(["none", "int8"]), draw.choice([3, CLIENTS, CLIENTS])
    )
    expected = references.of(choice)
    folder = references.folder / f"run-{number}"
    folder.mkdir()
    told, ended, same = "", False, False
    with Run(choice, folder, dial_in=disturbance.dial_in, proxied=disturbance.proxied) as run:
        try:
            disturbance.act(run, draw)
            run.end()
            ended, left = True, Left.by(run.directory)
            same = left == expected
            told = "" if same else ", ".join(_differences(expected, left))
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - run.began
    print(
        f"{number:>4}  {disturbance.name:<40} {choice.algorithm:<12} {choice.quantization:<5} "
        f"{choice.cohort}  {seconds:6.1f} s  {told or 'same bits'}",
        flush=True,
    )
    if same:
        shutil.rmtree(folder)
    return Outcome(disturbance.name, seconds, ended, same)


def _differences(expected: Left, left: Left) -> Iterator[str]:
    for name in expected.models.keys() | left.models.keys():
        if expected.models.get(name) != left.models.get(name):
            yield name
    if len(expected.rounds) != len(left.rounds):
        yield f"{len(left.rounds)} rounds"
    for ours, theirs in zip(left.rounds, expected.rounds, strict=False):
        for column in theirs:
            if ours.get(column) != theirs[column]:
                yield f"round {theirs['round']} {column} {ours.get(column)} for {theirs[column]}"


def shown(outcomes: list[Outcome]) -> Table:
    """A row for each kind of disturbance."""
    table = Table("disturbance", "runs", "ended", "same bits", "median extra seconds")
    for each in DISTURBANCES:
        those = [outcome for outcome in outcomes if outcome.disturbance == each.name]
        if those:
            calm = [o.seconds for o in outcomes if o.disturbance == ("none" if not each.dial_in else CALM)]
            extra = f"{median(o.seconds for o in those) - median(calm):.1f}" if calm else "?"
            table.add_row(
                each.name,
                str(len(those)),
                str(sum(o.ended for o in those)),
                str(sum(o.same for o in those)),
                extra,
            )
    return table


CALM = "none, clients dial in"


def main() -> int:
    """Exit code 1 if any run did not end, or with other bits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), choices=ALGORITHMS)
    parser.add_argument("--only", default="", help="disturbances whose name starts like this")
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    root = given.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    root.mkdir(parents=True, exist_ok=True)
    of_these = [each for each in DISTURBANCES if each.name.startswith(given.only)]
    references = References(root)
    with ThreadPoolExecutor(given.jobs) as pool:
        asked = [
            pool.submit(disturbed, n, given.seed, of_these[n % len(of_these)], given.algorithms, references)
            for n in range(given.runs)
        ]
        outcomes = [each.result() for each in asked]
    Console().print(shown(outcomes))
    failed = sum(not outcome.same for outcome in outcomes)
    print(f"{failed} of {len(outcomes)} runs differ; see {root}" if failed else "all end with the same bits")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
