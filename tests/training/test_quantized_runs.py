"""Runs whose messages are coded: what arrives, what it costs, how it goes on; and runs that code nothing."""

import csv
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from math import ceil, inf, prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.errors import NonFinite, RunFailed
from fedsplit.parties.client import ClientWorker
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.messages import LocalTraining, LocalWork, Part, StepResult, Upload
from fedsplit.parties.split_server import SplitServer
from fedsplit.quant.quantization import rounding_seed
from fedsplit.recording.checkpoint import load_latest, save
from fedsplit.recording.ledger import DIRECTIONS, KINDS
from fedsplit.recording.metrics import Record
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.state.weights import Weights
from fedsplit.training.experiment import Experiment
from fedsplit.transport.client_end import ClientEnd
from fedsplit.transport.cohort import CodedCohort
from fedsplit.transport.local import LocalTransport
from tests.cases import long_but
from tests.conftest import ALGORITHMS, Build
from tests.oracles.coded_loop import CodedLoop, decoded_from_bytes
from tests.oracles.plain_loops import adam, sgd
from tests.training.test_resume import bits, without_seconds


def named(value: object) -> str:
    """The name of a case."""
    if not isinstance(value, list):
        return str(value)
    shown = [each for each in value if not each.endswith("rounding=stochastic")]
    return " ".join([*shown, *(["stochastic"] if len(shown) < len(value) else [])])


STOCHASTIC = [
    f"quant.{path}.rounding=stochastic" for path in ("smashed", "cut_gradient", "weights.up", "weights.down")
]


def normed(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """A model with batch normalisation on the client's side, and so with a counter."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, 4, 3, padding=1),
            norm=nn.BatchNorm2d(4),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc=nn.Linear(image_size**2, num_classes),
        )
    )


NORMED = ["model._target_=tests.training.test_quantized_runs.normed", "model.cut=pool"]


def equal(ours: Weights, theirs: Weights) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(t, theirs[name]) for name, t in ours.items())


def run_rounds(run: Experiment, stop: int, start: int = 0) -> list[Record]:
    for t in range(start, stop):
        run.records.append(run.run_round(t))
    return run.records


Call = tuple[Any, tuple[Any, ...], Any]


def spied(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> list[Call]:
    """Calls of a method from now on: whose, with what, and what it gave."""
    original, calls = getattr(owner, method), []

    def spy(self: object, *args: object, **kwargs: object) -> object:
        given = original(self, *args, **kwargs)
        calls.append((self, args, given))
        return given

    monkeypatch.setattr(owner, method, spy)
    return calls


@pytest.fixture
def tiny(tiny: Build) -> Build:
    """Clients one after the other, so that each can be looked at, unless an engine is named."""

    def build(*overrides: str) -> Experiment:
        named = any(override.startswith("engine=") for override in overrides)
        return tiny(*overrides, *([] if named else ["engine=sequential"]))

    return build


# Nothing quantized


class HandedOver(Cohort):
    """Clients with nothing between them and the server: no codec, no link, nothing counted."""

    def __init__(self, run: Experiment, round: int, clients: Collection[int]) -> None:
        self._run, self._round, self._clients = run, round, sorted(clients)

    @classmethod
    def of_round(cls, run: Experiment, round: int, clients: Collection[int]) -> "HandedOver":
        run.parts.engine.enter(sorted(clients))
        return cls(run, round, clients)

    @property
    def clients(self) -> Sequence[int]:
        return self._clients

    @property
    def sample_counts(self) -> Sequence[int]:
        return [len(self._run.parts.data.shards[client]) for client in self._clients]

    def select(self, clients: Collection[int]) -> "HandedOver":
        return HandedOver(self._run, self._round, clients)

    def install(self, part: Part, weights: Weights) -> None:
        self.install_own(part, dict.fromkeys(self._clients, weights))

    def install_own(self, part: Part, weights: Mapping[int, Weights]) -> None:
        self._run.parts.engine.install(part, {client: weights[client] for client in self._clients})

    def forward(self, step: int) -> Sequence[Upload]:
        return self._run.parts.engine.forward(self._clients, self._round, step)

    def backward(self, step: int, dz: Mapping[int, Tensor]) -> None:
        self._run.parts.engine.backward(self._round, step, dz)

    def probe(self, step: int, dz: Mapping[int, Tensor], seeds: Sequence[int]) -> Mapping[int, Tensor]:
        return self._run.parts.engine.probe(self._round, step, dz, seeds)

    def move(self, step: int, seeds: Sequence[int], slopes: Tensor) -> None:
        self._run.parts.engine.move(self._clients, self._round, step, seeds, slopes)

    def step_tail(self, step: int, h: Mapping[int, Tensor]) -> StepResult:
        return self._run.parts.engine.step_tail(self._round, step, h)

    def train_local(self, work: LocalWork) -> LocalTraining:
        return self._run.parts.engine.train_local(self._clients, self._round, work)

    def observe(self, part: Part) -> Sequence[Weights]:
        return self.weights(part)

    def weights(self, part: Part) -> Sequence[Weights]:
        return self._run.parts.engine.weights(part, self._clients)

    def settle(self) -> None:
        pass


@pytest.mark.cover(1)
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["cohort_size=2", "local_epochs=2"],
        ["model.cut=pool"],
        NORMED,
        ["quant.continue_from_decoded=true"],
    ],
    ids=named,
)
@pytest.mark.parametrize("engine", ["auto", "sequential"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_run_without_quantization_gives_the_bits_of_one_that_hands_tensors_over(
    tiny: Build, algorithm: str, engine: str, overrides: list[str]
) -> None:
    runs = [tiny(f"algorithm={algorithm}", f"engine={engine}", *overrides) for _ in range(2)]
    runs[1].transport.cohort = lambda round, clients: HandedOver.of_round(runs[1], round, clients)
    ours, theirs = (run_rounds(run, 2) for run in runs)
    assert [record.train_loss for record in ours] == [record.train_loss for record in theirs]
    assert equal(runs[0].algorithm.full_weights(), runs[1].algorithm.full_weights())
    assert (runs[0].ledger.load > 0, runs[1].ledger.load) == (True, 0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_exact_messages_have_infinite_sqnr_and_unsent_kinds_have_none(tiny: Build, algorithm: str) -> None:
    record = tiny(f"algorithm={algorithm}").run_round(0)
    for direction in DIRECTIONS:
        for kind in KINDS:
            sent = record.bytes[direction][kind] > 0
            assert record.sqnr[direction][kind] == (inf if sent else None)
            assert record.bits[direction][kind] == ((8.0 if kind == "labels" else 32.0) if sent else None)


# Going on after a kill

KILLED = [
    ["algorithm=fed_avg", "quant=int8"],
    ["algorithm=splitfed_v1", "quant=int4"],
    ["algorithm=splitfed_v2", "quant=int2", *STOCHASTIC],
    ["algorithm=cse_fsl", "quant=fp16"],
    ["algorithm=fsl_sage", "quant=bf16", "algorithm.align_interval=1"],
    ["algorithm=fsl_sage", "quant=int4", *STOCHASTIC, "algorithm.align_interval=2", "cohort_size=2"],
    ["algorithm=fsl_sage", "quant=int4", "algorithm.warm_start=2", "algorithm.align_interval=1"],
    ["algorithm=cse_fsl", "quant=int8", "quant.smashed.bits=auto", "quant.smashed.budget=1", "cohort_size=2"],
    ["algorithm=splitfed_v1", "quant.smashed=sign", "quant.cut_gradient=topk", "quant.weights=sign"],
    ["algorithm=splitfed_v1", "quant=int4", *STOCHASTIC, "optimizer=sgd", "cohort_size=2"],
    ["algorithm=fed_avg", "quant.weights.up=topk", "quant.weights.down=int2_block", "cohort_size=2"],
    ["algorithm=splitfed_v2", "quant=int4", "quant.smashed.zstd=3", "quant.weights.up.zstd=3"],
    ["algorithm=cse_fsl", "quant.smashed=randtopk", "quant.weights=fp8", "quant.continue_from_decoded=true"],
    ["algorithm=splitfed_v1", "quant=int4", "cohort_size=2", *NORMED],
]


@pytest.mark.parametrize("overrides", long_but([KILLED[each] for each in (2, 11)], KILLED), ids=named)
def test_quantized_run_resumed_after_a_kill_gives_the_same_bits(
    tiny: Build, tmp_path: Path, overrides: list[str]
) -> None:
    straight = tiny(*overrides)
    for t in range(3):
        run_rounds(straight, t + 1, start=t)
        save(tmp_path / str(t + 1), straight.checkpoint())
    expected = bits(straight)
    assert any(path.startswith("/links/") for path in expected)
    for stop in (1, 2):
        resumed = tiny(*overrides)
        found = load_latest(tmp_path / str(stop))
        assert found is not None
        resumed.restore(found)
        run_rounds(resumed, 3, start=stop)
        actual = bits(resumed)
        assert expected.keys() == actual.keys()
        assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []
        assert equal(resumed.algorithm.full_weights(), straight.algorithm.full_weights())
        assert resumed.ledger.state() == straight.ledger.state()
        for ours, theirs in zip(resumed.records, straight.records, strict=True):
            assert without_seconds(ours.row()) == without_seconds(theirs.row())
            assert (ours.bits, ours.sqnr) == (theirs.bits, theirs.sqnr)


# Bytes of messages

CLIENT, SERVER = [(8, 1, 3, 3), (8,), (16, 8, 3, 3), (16,)], [(64, 256), (64,), (10, 64), (10,)]
AUXILIARY = [(10, 256), (10,)]


def coded(values: int, rows: int, width: int) -> int:
    """Codes of `width` bits, and for each row two bytes of scale and a zero point as wide as a code."""
    return 2 * rows + ceil(rows * width / 8) + ceil(values * width / 8)


def weights_bytes(shapes: Sequence[tuple[int, ...]], width: int | None = None) -> int:
    """Blocks of 64, whole in 8 bits or differences in `width`.

    Tensors of one dimension are in float32 where they are whole, their differences in float16.
    """
    small = 4 if width is None else 2
    sizes = [(prod(shape), len(shape)) for shape in shapes]
    return sum(coded(n, ceil(n / 64), width or 8) if dims > 1 else small * n for n, dims in sizes)


def batch_sizes(samples: int, batch_size: int, interval: int = 1) -> list[int]:
    """Of local steps 0, q, 2q, ...; here no last batch has one sample."""
    return [min(batch_size, samples - start) for start in range(0, samples, batch_size)][::interval]


SHARED = {
    "fed_avg": {"full_weights": CLIENT + SERVER},
    "splitfed_v1": {"client_weights": CLIENT},
    "splitfed_v2": {"client_weights": CLIENT},
    "cse_fsl": {"client_weights": CLIENT, "auxiliary_weights": AUXILIARY},
    "fsl_sage": {"client_weights": CLIENT},
}


@pytest.mark.cover(1)
@pytest.mark.parametrize("cohort_size", ["null", "2"])
@pytest.mark.parametrize("width", [8, 4])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bytes_of_quantized_rounds_are_the_closed_form(
    tiny: Build, algorithm: str, width: int, cohort_size: str
) -> None:
    overrides = [f"algorithm={algorithm}", f"quant=int{width}", f"cohort_size={cohort_size}"]
    local = algorithm in ("cse_fsl", "fsl_sage")
    overrides += ["algorithm.server_update_interval=3"] if local else []
    overrides += ["algorithm.align_interval=1"] if algorithm == "fsl_sage" else []
    run = tiny(*overrides)
    before: set[int] = set()  # clients of the last round
    aligned: set[int] = set()
    for t in range(4):
        cohort = set(run.parts.cohort_of(t))
        expected = {(d, kind): 0 for d in DIRECTIONS for kind in KINDS}
        for kind, shapes in SHARED[algorithm].items():
            whole, difference = (weights_bytes(shapes, each) for each in (None, width))
            expected["up", kind] = len(cohort) * difference
            expected["down", kind] = len(cohort & before) * difference + len(cohort - before) * whole
        if algorithm == "fsl_sage":
            whole, difference = (weights_bytes(AUXILIARY, each) for each in (None, width))
            expected["down", "auxiliary_weights"] = (
                len(cohort & aligned) * difference + len(cohort - aligned) * whole
            )
        for client in cohort if algorithm != "fed_avg" else ():
            for size in batch_sizes(len(run.parts.data.shards[client]), 8, 3 if local else 1):
                expected["up", "smashed"] += coded(256 * size, 16, width)
                expected["up", "labels"] += size
                expected["down", "cut_gradient"] += 0 if local else coded(256 * size, 4 * size, width)
        before, aligned = cohort, aligned | cohort
        record = run.run_round(t)
        assert {(d, kind): record.bytes[d][kind] for d, kind in expected} == expected, t


def test_counters_and_statistics_take_the_bytes_of_an_unquantized_run(tiny: Build) -> None:
    run = tiny("algorithm=splitfed_v1", "quant=int4", *NORMED)
    shapes = [(4, 1, 3, 3), (4,), (4,), (4,), (4,), (4,)]  # and a counter
    for t in range(2):
        record = run.run_round(t)
        # running mean and variance, four values each, take four bytes a value also in differences, not two
        difference = weights_bytes(shapes, 4) + 8 + 2 * 4 * (4 - 2)
        assert record.bytes["down"]["client_weights"] == 3 * (difference if t else weights_bytes(shapes) + 8)
        assert record.bytes["up"]["client_weights"] == 3 * difference


def test_counted_bytes_and_errors_do_not_depend_on_memory_offsets_of_tensors(tiny: Build) -> None:
    states = []
    for offset in range(0, 16, 3):  # as after a checkpoint was loaded
        run = tiny("algorithm=splitfed_v1", "quant=int4")
        moved = {}
        for name, tensor in run.algorithm.client_weights.items():
            memory = torch.empty(tensor.numel() + offset)
            moved[name] = memory[offset:].copy_(tensor.flatten()).view(tensor.shape)
        run.transport.cohort(0, [0, 1]).install("client", moved)
        states.append(run.ledger.state())
    assert all(state == states[0] for state in states)


# Values that arrive

CUT_CODECS = [
    ["quant=int8"],
    ["quant=int4", *STOCHASTIC],
    ["quant=int2", "quant.smashed.zstd=3"],
    ["quant=fp16"],
    ["quant.smashed=randtopk", "quant.cut_gradient=sign"],
    ["quant=int8", "quant.smashed.bits=auto", "quant.smashed.budget=1.5", "model.cut=pool"],
]


@pytest.mark.cover(1)
@pytest.mark.parametrize("overrides", CUT_CODECS, ids=named)
@pytest.mark.parametrize("algorithm", ["splitfed_v1", "splitfed_v2"])
def test_server_gets_decoded_smashed_data_and_client_decoded_cut_gradients(
    tiny: Build, monkeypatch: pytest.MonkeyPatch, algorithm: str, overrides: list[str]
) -> None:
    run = tiny(f"algorithm={algorithm}", *overrides, "seed=5")
    run.run_round(0)
    forwards = spied(monkeypatch, ClientWorker, "forward")
    steps = spied(monkeypatch, SplitServer, "step")
    backwards = spied(monkeypatch, ClientWorker, "backward")
    run.run_round(1)
    own = {(upload.client, upload.step): upload for _, _, upload in forwards if upload is not None}
    served = {(upload.client, upload.step): (upload, dz) for _, (_, upload), (_, dz) in steps}
    descended = {(worker.client, step): dz for worker, (_, step, dz), _ in backwards}
    assert own.keys() == served.keys() == descended.keys()
    assert len(own) == 18
    quantization = run.parts.quantization
    for (client, step), (upload, dz) in served.items():
        sent = own[client, step]
        seed = rounding_seed(5, "smashed", client, 1, step)
        assert torch.equal(upload.z, decoded_from_bytes(quantization.smashed, sent.z.contiguous(), seed))
        assert not torch.equal(upload.z, sent.z)
        assert torch.equal(upload.y, sent.y)
        seed = rounding_seed(5, "cut_gradient", client, 1, step)
        expected = decoded_from_bytes(quantization.cut_gradient, dz.contiguous(), seed)
        assert torch.equal(descended[client, step], expected)
        assert not torch.equal(descended[client, step], dz)


@pytest.mark.cover(1)
@pytest.mark.parametrize("overrides", CUT_CODECS, ids=named)
@pytest.mark.parametrize("algorithm", ["cse_fsl", "fsl_sage"])
def test_uploads_of_local_training_arrive_decoded(
    tiny: Build, monkeypatch: pytest.MonkeyPatch, algorithm: str, overrides: list[str]
) -> None:
    run = tiny(f"algorithm={algorithm}", *overrides, "algorithm.server_update_interval=2")
    forwards = spied(monkeypatch, ClientWorker, "forward")
    coded = spied(monkeypatch, ClientEnd, "code_smashed")
    steps = spied(monkeypatch, SplitServer, "step")
    run.run_round(0)
    own = {(upload.client, upload.step): upload for _, (upload, _), _ in coded}
    for _, _, upload in forwards:
        assert torch.equal(upload.z, own[upload.client, upload.step].z)
    assert len(own) == len(steps) == 9
    for _, (_, upload), _ in steps:
        seed = rounding_seed(0, "smashed", upload.client, 0, upload.step)
        sent = own[upload.client, upload.step]
        assert torch.equal(
            upload.z, decoded_from_bytes(run.parts.quantization.smashed, sent.z.contiguous(), seed)
        )
        assert not torch.equal(upload.z, sent.z)


@pytest.mark.cover(1)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(
    "overrides", [["quant=int4"], ["quant=int4", *STOCHASTIC[:2]], ["quant=int2"]], ids=named
)
@pytest.mark.parametrize("algorithm", ["splitfed_v1", "splitfed_v2"])
def test_splitfed_in_three_quantized_rounds_gives_the_weights_of_a_loop_by_hand(
    tiny: Build, algorithm: str, overrides: list[str], optimizer: str
) -> None:
    small = ["num_clients=1", "dataset.max_train=60"]
    run = tiny(f"algorithm={algorithm}", *small, f"optimizer={optimizer}", *overrides)
    reference = CodedLoop(run, {"adam": adam, "sgd": sgd}[optimizer])
    for t in range(3):
        run.run_round(t)
        reference.splitfed(t)
    theirs = reference.central | dict(reference.server.state_dict())
    for name, tensor in run.algorithm.full_weights().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-10, msg=name)


@pytest.mark.cover(2)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("decoded", [True, False])
@pytest.mark.parametrize("algorithm", ["cse_fsl", "fsl_sage"])
def test_client_head_trains_on_decoded_smashed_data_where_configured(
    tiny: Build, algorithm: str, decoded: bool, rounding: str
) -> None:
    run = tiny(
        f"algorithm={algorithm}",
        "num_clients=1",
        "batch_size=130",
        "optimizer=sgd",
        "quant.smashed=int2_channel",
        f"quant.smashed.rounding={rounding}",
        f"quant.continue_from_decoded={decoded}",
    )
    reference = CodedLoop(run, sgd)
    run.run_round(0)
    ((_, x, y),) = run.parts.batches(0).round(0)
    z = reference.client(x)
    arrived = reference.smashed(z, 0, 0)
    reference.step(reference.server, F.cross_entropy(reference.server(arrived), y))
    seen = (arrived if decoded else z).detach().clone().requires_grad_()
    if algorithm == "fsl_sage":
        reference.auxiliary.load_state_dict(run.algorithm.auxiliary_weights()["auxiliary-0"])
    F.cross_entropy(reference.auxiliary(seen), y).backward()
    assert seen.grad is not None
    z.backward(seen.grad)
    reference.step(reference.client)
    theirs = reference.state() | dict(reference.server.state_dict())
    for name, tensor in run.algorithm.full_weights().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-10, msg=name)
    if algorithm == "cse_fsl":
        reference.step(reference.auxiliary)
        for name, tensor in run.algorithm.auxiliary_weights()["auxiliary"].items():
            expected = reference.auxiliary.state_dict()[name]
            torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-10, msg=name)


# Random draws


@pytest.mark.parametrize("algorithm", long_but(["fsl_sage", "splitfed_v2"], ALGORITHMS))
def test_stochastic_rounding_of_a_run_follows_from_the_seed_alone(tiny: Build, algorithm: str) -> None:
    overrides = [f"algorithm={algorithm}", "quant=int4", "dataset.max_train=60"]
    weights = {}
    for name, more, seed in (
        ("first", STOCHASTIC, 0),
        ("again", STOCHASTIC, 0),
        ("other seed", STOCHASTIC, 1),
        ("nearest", [], 0),
        ("nearest, other seed", [], 1),
    ):
        run = tiny(*overrides, *more)
        # everything else stays
        run.rounds._transport = LocalTransport(replace(run.transport.run, seed=seed))
        run_rounds(run, 2)
        weights[name] = run.algorithm.full_weights()
    assert equal(weights["first"], weights["again"])
    assert equal(weights["nearest"], weights["nearest, other seed"])
    assert not equal(weights["first"], weights["other seed"])
    assert not equal(weights["first"], weights["nearest"])


@pytest.mark.cover(1)
@pytest.mark.parametrize("others", [[0, 1, 2], [2, 1, 0], [1, 0]], ids=str)
@pytest.mark.parametrize("quant", [["quant=int2", *STOCHASTIC], ["quant.smashed=randtopk"]], ids=named)
def test_uploads_of_a_client_do_not_depend_on_other_clients_of_the_cohort(
    tiny: Build, quant: list[str], others: list[int]
) -> None:
    arrived = []
    for clients in ([0], others):
        run = tiny("algorithm=cse_fsl", *quant)
        weights = run.algorithm.client_weights
        for t in range(2):  # also where the link goes on from what came before
            cohort = run.transport.cohort(t, clients)
            cohort.install("client", weights)
            cohort.install("auxiliary", run.algorithm.auxiliary)
            trained = cohort.train_local(LocalWork(train_head=True, upload_interval=2))
            uploads = [upload.z for upload in trained.uploads if upload.client == 0]
            mine = cohort.weights("client")[0] | cohort.weights("auxiliary")[0]
            arrived.append([*uploads, *mine.values()])
    alone, together = arrived[:2], arrived[2:]
    for ours, theirs in zip(alone, together, strict=True):
        assert len(ours) == 9
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_stochastic_rounding_differs_between_clients_and_steps_with_equal_data(tiny: Build) -> None:
    run = tiny("algorithm=splitfed_v1", "quant=int2", *STOCHASTIC)
    cohort = run.transport.cohort(0, [0, 1])
    z = torch.randn(8, 256, generator=torch.Generator().manual_seed(0))

    def smashed(client: int, step: int) -> Tensor:
        upload = Upload(client, step, z, torch.zeros(8, dtype=torch.int64))
        return run.transport.client_end.code_smashed(upload, 0).transfer.decoded

    arrived = [smashed(client, step) for client in (0, 1) for step in (0, 1)]
    for step in (0, 1):
        coded = cohort._code(step, {0: z, 1: z}, "cut_gradient")
        arrived += [each.transfer.decoded for _, each in coded]
    assert all(not torch.equal(a, b) for i, a in enumerate(arrived) for b in arrived[:i])
    assert torch.equal(smashed(0, 0), arrived[0])


# Errors and their bounds


def db(signal: Tensor, noise: Tensor) -> float:
    s, n = (x.numpy().astype(np.float64) for x in (signal, noise))
    return float(10 * np.log10((s**2).sum() / (n**2).sum()))


def flat(tensors: Collection[Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


@pytest.mark.parametrize("quant", ["int8", "int4", "int2", "fp16", "bf16"])
def test_bits_and_sqnr_of_a_round_are_those_of_its_messages(
    tiny: Build, monkeypatch: pytest.MonkeyPatch, quant: str
) -> None:
    run = tiny("algorithm=splitfed_v1", "num_clients=1", f"quant={quant}")
    forwards = spied(monkeypatch, ClientWorker, "forward")
    steps = spied(monkeypatch, SplitServer, "step")
    backwards = spied(monkeypatch, ClientWorker, "backward")
    installed = spied(monkeypatch, ClientWorker, "install")
    uploaded = spied(monkeypatch, ClientWorker, "weights")
    arrived = spied(monkeypatch, CodedCohort, "weights")
    initial = run.algorithm.client_weights
    record = run.run_round(0)
    sent = flat([upload.z for _, _, upload in forwards if upload is not None])
    seen = flat([upload.z for _, (_, upload), _ in steps])
    assert record.sqnr["up"]["smashed"] == pytest.approx(db(sent, seen - sent), abs=1e-3)
    gradient = flat([dz for _, _, (_, dz) in steps])
    descended = flat([dz for _, (_, _, dz), _ in backwards])
    assert record.sqnr["down"]["cut_gradient"] == pytest.approx(db(gradient, descended - gradient), abs=1e-3)
    ((_, (_, received), _),) = installed
    ((_, _, own),) = uploaded
    ((_, _, (at_server,)),) = arrived
    inexact = [name for name, tensor in initial.items() if tensor.ndim > 1]  # the rest of it comes whole
    meant = flat([initial[name] for name in inexact])
    came = flat([received[name] for name in inexact])
    assert record.sqnr["down"]["client_weights"] == pytest.approx(db(meant, came - meant), abs=1e-3)
    meant = flat([own[name].double() - received[name].double() for name in own])
    came = flat([at_server[name].double() - received[name].double() for name in own])
    assert record.sqnr["up"]["client_weights"] == pytest.approx(db(meant, came - meant), abs=0.05)

    values = {("up", "smashed"): 130 * 256, ("down", "cut_gradient"): 130 * 256}
    values |= {("up", "labels"): 130, ("up", "client_weights"): 1248, ("down", "client_weights"): 1248}
    for direction in DIRECTIONS:
        for kind in KINDS:
            count = values.get((direction, kind))
            expected = None if count is None else pytest.approx(8 * record.bytes[direction][kind] / count)
            assert record.bits[direction][kind] == expected
    assert record.sqnr["up"]["labels"] == inf
    unsent = {(d, kind) for d in DIRECTIONS for kind in KINDS} - set(values)
    assert all(record.sqnr[d][kind] is None for d, kind in unsent)


def test_metrics_hold_bits_and_sqnr_of_sent_kinds_and_are_empty_for_unsent_ones(
    tiny: Build, tmp_path: Path
) -> None:
    for quant in ("none", "int4"):
        run = tiny("algorithm=splitfed_v1", f"quant={quant}", "rounds=2")
        run.run(RunDirectory(tmp_path / quant))
        with (tmp_path / quant / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row, record in zip(rows, run.records, strict=True):
            smashed = 8 * int(row["bytes.up.smashed"]) / (130 * 256)
            assert float(row["bits.up.smashed"]) == pytest.approx(smashed, abs=1e-4)
            assert float(row["bits.up.labels"]) == 8
            if quant == "none":
                assert (row["sqnr.up.smashed"], row["bits.up.smashed"]) == ("inf", "32.0")
            else:
                assert float(row["sqnr.up.smashed"]) == pytest.approx(record.sqnr["up"]["smashed"], abs=0.01)
                assert 10 < float(row["sqnr.up.smashed"]) < 40
            assert row["sqnr.up.labels"] == "inf"
            for column in ("down.smashed", "up.cut_gradient", "up.full_weights", "down.auxiliary_weights"):
                assert row[f"bits.{column}"] == row[f"sqnr.{column}"] == ""


def test_sqnr_grows_with_the_bits_of_a_preset(tiny: Build) -> None:
    records = {width: tiny("algorithm=splitfed_v1", f"quant=int{width}").run_round(0) for width in (8, 4, 2)}
    for direction, kind in (("up", "smashed"), ("down", "cut_gradient"), ("up", "client_weights")):
        eight, four, two = (records[width].sqnr[direction][kind] or 0.0 for width in (8, 4, 2))
        assert eight > four + 15 > two + 20, (kind, eight, four, two)
        eight, four, two = (records[width].bits[direction][kind] or 0.0 for width in (8, 4, 2))
        assert eight > four > two >= 2


# Values that are not finite

NOT_FINITE = [["quant=none"], ["quant=int8"], ["quant.smashed=topk", "quant.weights=sign"], ["quant=bf16"]]


@pytest.mark.cover(1)
@pytest.mark.parametrize("bad", [float("nan"), inf])
@pytest.mark.parametrize("parameter", ["conv2.weight", "conv2.bias"])
@pytest.mark.parametrize("quant", NOT_FINITE, ids=named)
def test_non_finite_message_is_refused_with_its_kind_and_client(
    tiny: Build, quant: list[str], parameter: str, bad: float
) -> None:
    run = tiny("algorithm=cse_fsl", *quant)
    cohort = run.transport.cohort(0, range(3))
    cohort.install("client", run.algorithm.client_weights)
    cohort.install("auxiliary", run.algorithm.auxiliary)
    with torch.no_grad():
        run.parts.engine.worker(1)._body.parameters[parameter].fill_(bad)
        run.parts.engine.worker(2)._head.parameters["fc.bias"].fill_(bad)
    fine = cohort.select([0, 2])
    assert len(fine.forward(0)) == 2
    assert len(fine.weights("client")) == 2
    every_step = LocalWork(train_head=True, upload_interval=1)
    asked: list[tuple[str, int, Callable[[], object]]] = [
        ("smashed", 1, lambda: cohort.forward(0)),
        ("smashed", 1, lambda: list(cohort.select([1]).train_local(every_step).uploads)),
        ("client_weights", 1, lambda: cohort.weights("client")),
        ("auxiliary_weights", 2, lambda: cohort.select([0, 2]).weights("auxiliary")),
        ("cut_gradient", 2, lambda: fine.backward(0, {2: torch.full((8, 256), bad)})),
    ]
    for kind, client, ask in asked:
        with pytest.raises(NonFinite) as caught:
            ask()
        assert (caught.value.what, caught.value.client) == (kind, client)
        assert str(caught.value) == f"{kind} of client {client} is not finite"


@pytest.mark.parametrize("quant", NOT_FINITE, ids=named)
def test_non_finite_weights_sent_to_all_clients_are_named_as_those_of_the_server(
    tiny: Build, quant: list[str]
) -> None:
    run = tiny("algorithm=fsl_sage", *quant)
    cohort = run.transport.cohort(0, [0, 1])
    broken = {name: torch.full_like(t, torch.nan) for name, t in run.algorithm.client_weights.items()}
    with pytest.raises(NonFinite, match=r"^client_weights of the server is not finite$"):
        cohort.install("client", broken)
    with pytest.raises(NonFinite, match=r"^auxiliary_weights of client 1 is not finite$"):
        cohort.install_own("auxiliary", {0: run.algorithm.auxiliary, 1: broken})


@pytest.mark.cover(1)
@pytest.mark.parametrize("quant", [["quant=none"], ["quant=int8"]], ids=named)
@pytest.mark.parametrize("decoded", ["false", "true"])
@pytest.mark.parametrize("algorithm", ["fed_avg", "cse_fsl", "fsl_sage"])
def test_run_that_diverges_in_local_training_fails_with_the_client(
    tiny: Build, algorithm: str, decoded: str, quant: list[str]
) -> None:
    run = tiny(
        f"algorithm={algorithm}",
        *quant,
        f"quant.continue_from_decoded={decoded}",
        "optimizer=sgd",
        "optimizer.lr=1e30",
    )
    with pytest.raises(RunFailed, match=r"of client \d is not finite"):
        run.run_round(0)
