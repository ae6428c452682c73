"""All benchmarks, as one table: how near rounds come to the floor, and what stacking and averaging save.

    python benchmarks/run.py
    python benchmarks/run.py --only mlp-100-clients aggregate-resnet18 --repeats 11

Each row runs in a process of its own, in one thread; what it compares takes turns in it, and the medians
and the ratio of each turn's pair are what counts. A row counts only if both sides end at the same loss (or at
the same weights). Raw numbers go to `--json`. BENCHMARKS.md explains each row and keeps the last table.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import alignment
from benchmarks.experiments import ALGORITHMS, MLP, build, one_round, seconds
from benchmarks.floors import LARGE, Floor, LoadedLoop
from benchmarks.peers.models import mlp
from fedsplit.building.engines import step_mmac
from fedsplit.building.models import build_whole_model, cut_name
from fedsplit.models.splitting.split import split
from fedsplit.models.zoo.digits_cnn import digits_cnn
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.state.weights import StackedWeights, Weights, average
from tests.oracles.plain_loops import PlainLoop, adam, fused_adam, sgd

Work = Callable[[int], None]
_WARM_UP = 2
"""Turns that are not counted."""


@dataclass
class Row:
    """What was measured: seconds of each turn, by side; `fedsplit` is always one of them."""

    turns: dict[str, list[float]]
    samples: int | None = None
    agrees: str = ""
    peak_mb: float = 0.0
    notes: dict[str, float] = field(default_factory=dict)

    def seconds(self, side: str) -> float | None:
        """Median of a side."""
        return median(self.turns[side]) if side in self.turns else None

    def ratio(self, *sides: str) -> float | None:
        """How many times as long the fastest of `sides` takes as fedsplit, by the turn."""
        known = [side for side in sides if side in self.turns]
        if not known:
            return None
        fastest = min(known, key=lambda side: median(self.turns[side]))
        return median(a / b for a, b in zip(self.turns[fastest], self.turns["fedsplit"], strict=True))


def take_turns(sides: dict[str, Work], repeats: int, *, rounds: int = 1) -> dict[str, list[float]]:
    """Seconds a round, of `repeats` turns of each side, after two that warm up.

    Args:
        sides: by name, what does a round.
        repeats: turns.
        rounds: in a turn; several where they are short, so that caches are as in a run.
    """
    turns: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + _WARM_UP):
        for name, work in sides.items():
            numbers = range(turn * rounds, (turn + 1) * rounds)
            taken = seconds(lambda work=work, numbers=numbers: [work(t) for t in numbers])
            if turn >= _WARM_UP:
                turns[name].append(taken / rounds)
    return turns


def small_clients(options: argparse.Namespace, *model: str) -> Row:
    """FedAvg of 100 clients with a few samples each, beside floors and a loop with a DataLoader."""
    common = ["algorithm=fed_avg", "num_clients=100", "batch_size=8", "optimizer=sgd", *model]
    run, alone = build(*common), build(*common, "engine=sequential")
    whole = (mlp if model == MLP else digits_cnn)(num_classes=10, channels=1, image_size=8)
    loop = LoadedLoop(build(*common, "engine=sequential"), whole, sgd)
    everything = sum(run.parts.sample_counts)
    floors = {
        f"floor, batch {batch}": on_floor(Floor(run.parts, "fed_avg", batch, sgd))
        for batch in (8, LARGE, everything)
    }
    sides = {"fedsplit": lambda t: one_round(run, t), **floors, "sequential": lambda t: one_round(alone, t)}
    turns = take_turns(sides | {"loop": loop.fed_avg}, options.repeats or 11, rounds=5)
    turns["all samples as one batch"] = turns.pop(f"floor, batch {everything}")
    losses = [run.evaluate(w).loss for w in (run.algorithm.full_weights(), loop.full_weights())]
    return Row(turns, everything, same_loss(losses))


def on_floor(floor: Floor) -> Work:
    """A turn of a floor."""
    return lambda _: floor()


def same_loss(losses: list[float]) -> str:
    """Both test losses, and whether they agree to a thousandth."""
    same = abs(losses[0] - losses[1]) <= 1e-3 * abs(losses[1])
    return f"{losses[0]:.5f} {'=' if same else '!='} {losses[1]:.5f}"


def large_steps(
    options: argparse.Namespace, algorithm: str, model: str, *, clients: int, samples: int, batch: int
) -> Row:
    """A round whose steps are large, without alignment, beside floors and a plain loop over clients."""
    common = [f"algorithm={algorithm}", f"model={model}", f"num_clients={clients}", f"batch_size={batch}"]
    if algorithm == "fsl_sage":
        common += ["algorithm.align_interval=1000", "auxiliary.align_epochs=1"]
    noise = {"train": clients * samples, "test": 200, "flip": True, "crop_padding": 4}
    run = build(*common, noise=noise)
    loop = PlainLoop(build(*common, noise=noise), fused_adam)  # as ours: else last bits grow apart
    if algorithm == "cse_fsl":  # there the clients train the auxiliary models, with their own optimizer
        loop.auxiliary_steppers = [loop.optimizer(module) for module in loop.auxiliaries]
    extra = {"l": 1000} if algorithm == "fsl_sage" else {}
    if algorithm == "fsl_sage":  # alignments have rows of their own; here both sides go on from one of ours
        loop.align = lambda t, i: loop.auxiliaries[i].load_state_dict(  # type: ignore[method-assign]
            run.algorithm.auxiliary_weights()[f"auxiliary-{i}"]
        )
    sides: dict[str, Work] = {"fedsplit": lambda t: one_round(run, t)}
    for size in {batch, 32} if model == "simple_conv" else {batch}:
        sides[f"floor, batch {size}"] = on_floor(Floor(run.parts, algorithm, size, adam))
    sides[f"fused, batch {batch}"] = on_floor(Floor(run.parts, algorithm, batch, fused_adam))
    sides["loop"] = lambda t: plain_round(loop, algorithm, t, extra)
    turns = take_turns(sides, options.repeats or 5)
    for t, taken in enumerate(turns["loop"]):  # without drawing its batches, which floors have preloaded
        turns["loop"][t] = taken - loop.preloading[t + _WARM_UP]
    losses = [run.evaluate(w).loss for w in (run.algorithm.full_weights(), loop.full_weights())]
    return Row(turns, clients * samples, same_loss(losses))


def plain_round(loop: PlainLoop, algorithm: str, t: int, extra: dict[str, int]) -> None:
    """A round of a plain loop."""
    loop.preload(t)
    getattr(loop, algorithm)(t, **extra)


def engines(options: argparse.Namespace, *model: str, batch: int, size: int, channels: int) -> Row:
    """FedAvg of 20 clients with two batches each: as a stack, beside one client after the other."""
    noise = {"train": 40 * batch, "test": 20, "size": size, "channels": channels}
    common = ["algorithm=fed_avg", "num_clients=20", f"batch_size={batch}", *model]
    stacked, alone = (build(*common, f"engine={each}", noise=noise) for each in ("vectorized", "sequential"))
    sides = {"fedsplit": lambda t: one_round(stacked, t), "loop": lambda t: one_round(alone, t)}
    turns = take_turns(sides, options.repeats or 7)
    losses = [run.evaluate(run.algorithm.full_weights()).loss for run in (stacked, alone)]
    row = Row(turns, 40 * batch, same_loss(losses))
    row.notes["million multiply-adds of a step"] = step_mmac(stacked.parts, stacked.parts.engine.blueprint)
    return row


def align(options: argparse.Namespace, case: alignment.Case) -> Row:
    """An epoch of an alignment, beside double backward with a DataLoader."""
    taken, ends = alignment.turns(case, options.repeats or 5)
    return Row(taken, case.samples, ends)


def aggregation(options: argparse.Namespace, model: str, clients: int) -> Row:
    """Averaging weights: as rows (fedsplit), client by client in blocks, and key by key in two usual ways."""
    run = build("algorithm=fed_avg", f"model={model}", noise={"train": 20, "test": 20})
    weights = run.algorithm.full_weights()
    draw = torch.Generator().manual_seed(0)
    rows = {name: torch.rand((clients, *t.shape), generator=draw).to(t.dtype) for name, t in weights.items()}
    stacked, counts = StackedWeights([(range(clients), rows)]), [10 + client for client in range(clients)]
    apart: list[Weights] = [{name: t.clone() for name, t in each.items()} for each in stacked]
    sides: dict[str, Work] = {
        "fedsplit": lambda _: results.__setitem__("rows", average(stacked, counts)),
        "streaming": lambda _: results.__setitem__("streaming", average(apart, counts)),
        "loop": lambda _: results.__setitem__("loop", stacked_by_key(apart, counts)),
        "running sum": lambda _: results.__setitem__("running sum", summed_by_key(apart, counts)),
    }
    results: dict[str, Weights] = {}
    turns = take_turns(sides, options.repeats or 7)
    far = max(
        float((results[side][name] - t).abs().max() / t.abs().max())
        for side in ("rows", "streaming", "running sum")
        for name, t in results["loop"].items()
        if t.is_floating_point()
    )
    return Row(turns, agrees=f"weights differ by {far:.0e}" + (" =" if far < 1e-6 else " !="))


def stacked_by_key(clients: list[Weights], counts: list[int]) -> Weights:
    """For each key, stack what the clients have, weigh it, and add it up."""
    shares = torch.tensor(counts) / sum(counts)
    return {
        name: (torch.stack([w[name].float() for w in clients]) * shares.view(-1, *[1] * first.ndim)).sum(0)
        for name, first in clients[0].items()
    }


def summed_by_key(clients: list[Weights], counts: list[int]) -> Weights:
    """For each key, add what each client contributes to a running sum."""
    total, mean = sum(counts), {}
    for name, first in clients[0].items():
        mean[name] = torch.zeros_like(first, dtype=torch.float32)
        for weights, count in zip(clients, counts, strict=True):
            mean[name] += weights[name] * (count / total)
    return mean


def population(options: argparse.Namespace, algorithm: str, clients: int) -> Row:
    """A cohort of 50 stateless clients, 20 samples each, out of few or many, over the same images."""
    noise = {"train": 200_000, "test": 20, "size": 8, "channels": 1}
    run = build(
        f"algorithm={algorithm}",
        f"num_clients={clients}",
        "cohort_size=50",
        "client.stateless=true",
        noise=noise,
        same=20,
    )
    turns = take_turns({"fedsplit": lambda t: one_round(run, t)}, options.repeats or 7, rounds=3)
    return Row(turns, 50 * 20)


def start_of_population(options: argparse.Namespace, clients: int, cohort: int, *distribution: str) -> Row:
    """CPU seconds of a whole start, class counts on the disk included, and of a round; two samples a client.

    With a `distribution`, clients share the samples of a hundred of them.
    """
    train = 200 if distribution else 2 * clients
    run = build(
        *("algorithm=fed_avg", "model=digits_cnn", "engine=vectorized", "client.stateless=true"),
        *(f"num_clients={clients}", f"cohort_size={cohort}", *distribution),
        noise={"train": train, "test": 20, "size": 8, "channels": 1},
    )
    with TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.open(run.config.plain(), [], run.parts.class_counts)
        directory.close()
    start = time.process_time()  # time of the process: interpreter and imports too
    rounds = []
    for t in range((options.repeats or 5) + _WARM_UP):
        before = time.process_time()
        one_round(run, t)
        rounds.append(time.process_time() - before)
    return Row({"fedsplit": rounds[_WARM_UP:]}, 2 * cohort, notes={"CPU seconds of the start": start})


def split_step(options: argparse.Namespace, model: str, batch: int) -> Row:
    """A training step of the two halves, beside one of the model as it was before."""
    parts = build(f"model={model}", noise={"train": batch, "test": 20}).parts
    start = time.perf_counter()
    whole, example = build_whole_model(parts.config, parts.data, parts.device)
    made = time.perf_counter() - start
    cut = cut_name(parts.config, whole, example)
    halves = split(whole, cut, example)
    taken = time.perf_counter() - start - made
    train = parts.data.dataset.train
    x, y = train.inputs_at(slice(None)), train.labels_at(slice(None))
    cross_entropy = nn.CrossEntropyLoss()
    optimizers = {
        module: torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
        for module in (whole, halves.client, halves.server)
    }
    losses: dict[str, float] = {}

    def unsplit(t: int) -> None:
        torch.manual_seed(t)  # seeds dropout
        optimizers[whole].zero_grad()
        loss = cross_entropy(whole(x), y)
        loss.backward()
        optimizers[whole].step()
        losses["whole"] = float(loss.detach())

    def as_halves(t: int) -> None:
        torch.manual_seed(t)
        optimizers[halves.client].zero_grad()
        optimizers[halves.server].zero_grad()
        sent = halves.client(x)
        z = sent.detach().requires_grad_()
        loss = cross_entropy(halves.server(z), y)
        loss.backward()
        sent.backward(z.grad)
        optimizers[halves.server].step()
        optimizers[halves.client].step()
        losses["halves"] = float(loss.detach())

    turns = take_turns({"fedsplit": as_halves, "loop": unsplit}, options.repeats or 31)
    agrees = f"split in {taken:.2f} s; {same_loss([losses['halves'], losses['whole']])}"
    return Row(turns, batch, agrees, notes={"seconds of the split": taken})


Measure = Callable[[argparse.Namespace], Row]
ROWS: dict[str, Measure] = {
    "mlp-100-clients": lambda o: small_clients(o, *MLP),
    "digits-cnn-100-clients": lambda o: small_clients(o, "model=digits_cnn"),
}
for _a in ALGORITHMS:
    ROWS[f"simple-conv-{_a}"] = lambda o, a=_a: large_steps(
        o, a, "simple_conv", clients=o.clients, samples=512, batch=128
    )
for _a in ALGORITHMS:
    ROWS[f"resnet18-{_a}"] = lambda o, a=_a: large_steps(
        o, a, "resnet18", clients=o.clients, samples=256, batch=64
    )
for _case in alignment.CASES:
    if _case.name != "mlp" and _case.samples == _case.batch == 1000:
        ROWS[f"align-{_case.name}"] = lambda o, case=_case: align(o, case)
for _name, _model, _size, _channels, _batches in (
    ("mlp", MLP, 8, 1, (8, 128)),
    ("digits-cnn", ("model=digits_cnn",), 8, 1, (8, 64, 256)),
    ("digits-cnn-32", ("model=digits_cnn",), 32, 3, (8, 32)),
    ("simple-conv", ("model=simple_conv",), 32, 3, (2, 8, 32)),
    ("resnet18", ("model=resnet18",), 32, 3, (2, 8)),
):
    for _batch in _batches:
        ROWS[f"engines-{_name}-{_batch}"] = lambda o, m=_model, b=_batch, s=_size, c=_channels: engines(
            o, *m, batch=b, size=s, channels=c
        )
ROWS["aggregate-resnet18"] = lambda o: aggregation(o, "resnet18", 10)
ROWS["aggregate-simple-conv"] = lambda o: aggregation(o, "simple_conv", 100)
for _name, _batch in (("resnet18", 64), ("simple_conv", 128), ("mobilenet_v2", 32)):
    ROWS[f"split-{_name.replace('_', '-')}"] = lambda o, m=_name, b=_batch: split_step(o, m, b)
for _a in ("fed_avg", "splitfed_v1", "cse_fsl"):
    for _n in (100, 10_000):
        ROWS[f"population-{_a}-{_n}"] = lambda o, a=_a, n=_n: population(o, a, n)
for _n, _cohort in ((100_000, 1_000), (1_000_000, 100)):
    ROWS[f"start-{_n}-clients"] = lambda o, n=_n, c=_cohort: start_of_population(o, n, c)
ROWS["start-1000000-resampled"] = lambda o: start_of_population(
    o, 1_000_000, 100, "distribution=resampled", "distribution.samples_per_client=2"
)


def in_a_process_of_its_own(name: str, options: argparse.Namespace) -> Row:
    """Measure a row where nothing ran before."""
    command = [sys.executable, __file__, "--only", name, "--child", "--clients", str(options.clients)]
    command += ["--repeats", str(options.repeats)] if options.repeats else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def fused_floors(row: Row) -> list[str]:
    """Floors whose optimizer is torch's fused one, as ours is on a CPU."""
    return [side for side in row.turns if side.startswith("fused, batch")]


def shown(value: float | None, digits: int = 3) -> str:
    """A number as a cell of the table; empty where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def table_of(rows: dict[str, Row]) -> Table:
    """One line a row."""
    table = Table(
        *("row", "seconds", "samples/s", "of floor", "of fused floor"),
        *("loop / fedsplit", "peak MB", "both end at"),
    )
    for name, row in rows.items():
        taken = row.seconds("fedsplit") or 0.0
        floors = [side for side in row.turns if side.startswith("floor, batch")]
        table.add_row(
            name,
            f"{taken:.4f}",
            f"{row.samples / taken:,.0f}" if row.samples else "",
            shown(row.ratio(*floors), 2),
            shown(row.ratio(*fused_floors(row)), 2),
            shown(row.ratio("loop"), 2),
            f"{row.peak_mb:.0f}",
            row.agrees,
        )
    return table


def machine() -> dict[str, str | int | None]:
    """What the numbers were measured on."""
    processor = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": 1,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    """Measure rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--repeats", type=int, help="turns that count; default: enough for the row")
    parser.add_argument("--clients", type=int, default=10, help="of the simple-conv and resnet18 rows")
    parser.add_argument("--json", type=Path, default=Path("saves/benchmarks.json"), help="raw numbers")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        (name,) = options.only
        row = ROWS[name](options)
        row.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps(asdict(row)))
        return
    console, rows = Console(width=max(Console().width, 132)), {}
    for name in options.only or (name for name in ROWS if not name.startswith("engines-")):
        rows[name] = in_a_process_of_its_own(name, options)
        if console.is_terminal:
            console.print(name, f"{rows[name].seconds('fedsplit'):.4f} s")
    console.print(table_of(rows))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    raw = {"machine": machine(), "rows": {name: asdict(row) for name, row in rows.items()}}
    options.json.write_text(json.dumps(raw, indent=2) + "\n")
    console.print(f"{options.json}: raw numbers", highlight=False)


if __name__ == "__main__":
    main()
