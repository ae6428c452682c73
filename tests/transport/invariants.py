"""What holds whatever the other end sends; `test_hostile` and `benchmarks/hostile.py` try it."""

import json
import logging
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import cache, cached_property, lru_cache
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias
from unittest import mock

import grpc
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fedsplit.building.run import build_clients, carried_run, run_of_member
from fedsplit.config.choices import CONFIGS, user_choices
from fedsplit.config.compose import compose_config, composing, plain, run_config
from fedsplit.errors import RunFailed, UserError
from fedsplit.parties.messages import Part
from fedsplit.quant.coded import SentTensor
from fedsplit.quant.message import Corrupt
from fedsplit.quant.weights_link import Downlink
from fedsplit.recording.ledger import Ledger
from fedsplit.transport.grpc.client.client import TrainingClient
from fedsplit.transport.grpc.client.worker import Worker
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol import plan as plans_module
from fedsplit.transport.grpc.protocol.expectations import PARTS, Expectations
from fedsplit.transport.grpc.protocol.frames import VERSION, Assembler, Parcel, decode_tensors
from fedsplit.transport.grpc.protocol.packing import pack, pack_weights
from fedsplit.transport.grpc.protocol.plan import choices_and_settings, configuration
from fedsplit.transport.grpc.server.hub import Hub
from fedsplit.transport.grpc.server.meeting import Link
from fedsplit.transport.grpc.server.server import Federation
from fedsplit.transport.grpc.server.streams import Answer
from fedsplit.transport.links import KIND_OF, exactly, seeds_tensor
from tests.conftest import TINY
from tests.transport import padded_texts, strategies

RUN, SERVER, INSTANCE = b"r" * 16, b"s" * 16, b"i" * 16
QUANTS = {
    "none": ("quant=none",),
    "mixed": (
        *("quant=thrifty", "codec@quant.cut_gradient=fp8", "codec@quant.weights.up=sign"),
        *("codec@quant.weights.down=int2_block", "codec@quant.weights.whole=fp16"),
    ),
    "thrifty": ("quant=thrifty",),
    "sparse": ("quant=int8", "codec@quant.smashed=topk", "codec@quant.cut_gradient=randtopk"),
    "texts": ("quant=int8", "dataset=random_texts", "model=tiny_causal", "auxiliary=tiny_head"),
    "control": ("quant=int8", "algorithm=scaffold"),
    "seeds": ("quant=int8", "algorithm=ho_sfl", "algorithm.probes=3"),
    "tail": ("quant=int8", "algorithm=splitfed_v1", "model.tail_cut=relu3"),
}
"""Presets that between them use every decoder; one is of texts, whose batches have lengths, one has control
variates, one seeds and scalars, and in one clients hold the tail of the model."""
CLIENT = 0
PLAIN = 1 << 18
"""Bytes that Python may take for what is not payload."""

Verbs: TypeAlias = Sequence[Mapping[str, Any]]


class World:
    """A tiny run, and what an honest server and an honest client of it say.

    Args:
        quant: one of `QUANTS`.
        folder: where clients keep their states.
    """

    def __init__(self, quant: str, folder: Path) -> None:
        self.folder = folder
        tiny = [each for each in TINY if quant != "texts" or not each.startswith("dataset.")]
        with user_choices(padded_texts.choices(folder / "choices")):
            with composing():
                overrides = [*tiny, "engine=sequential", *QUANTS[quant]]
                config = run_config(compose_config(overrides))
            self.run = carried_run(build_clients(config), Ledger())
        self.expectations = Expectations(self.run)
        self.lossless = self.run.quantization.weights.lossless
        self.uploaded: Part = "control" if self.run.control_variates else "client"
        """Part of the weights that the last verb of its first conversation asks for."""
        self._answers: dict[int, list[list[Parcel[pb.FromClient]]]] = {}

    def hub(self) -> Hub:
        """A hub that was asked nothing yet."""
        return Hub(
            run=RUN,
            clients=2,
            expectations=self.expectations,
            sample_counts=self.run.sample_counts[:2],
            ledger=Ledger(),
        )

    def worker(self) -> Worker:
        """A worker that did nothing yet."""
        self.run.engine.load_state({})
        return Worker(self.run, CLIENT, self.folder, RUN.hex())

    @cached_property
    def conversations(self) -> list[Verbs]:
        """Verbs as the arguments of `Hub.ask`, each from the beginning of a round."""
        weights = self.run.quantization.weights
        downs = {part: Downlink(weights, self.run.device, packs=True) for part in KIND_OF}

        def install(part: Part, seed: int) -> Mapping[str, Any]:
            own = self.expectations._weights[part]
            moved = {name: each + seed if each.is_floating_point() else each for name, each in own.items()}
            delivery = downs[part].send(CLIENT, moved, seed)
            verb = pb.Install(part=PARTS[part], difference=delivery.difference)
            return {"install": verb, "tensors": pack_weights(delivery, self.expectations, part)}

        def upload(part: Part) -> Mapping[str, Any]:
            return {"upload_weights": pb.UploadWeights(part=PARTS[part]), "difference": not self.lossless}

        if self.run.control_variates:
            train = {"train_local": pb.TrainLocal(train_head=True)}
            return [
                [install("control", 0), install("control", 1), install("full", 0), train, upload("control")]
            ]
        dz = self._cut_gradient()
        number, codec = self.expectations.cut_number("cut_gradient"), self.run.quantization.cut_gradient
        backward: dict[str, Any] = {
            "backward": pb.Backward(),
            "tensors": [pack("dz", number, SentTensor(dz, codec.transmit(dz, seed=1)))],
        }
        if self.run.probes:
            seeds = pack("seeds", pb.EXACT, exactly(seeds_tensor([5, 2**31 - 1, 0]), packs=True))
            slopes = pack("slopes", pb.EXACT, exactly(torch.tensor([0.5, -2.0, 0.0]), packs=True))
            probe = {"probe": pb.Probe(), "tensors": [*backward["tensors"], seeds]}
            later = {"move": pb.Move(), "step": 1, "tensors": [seeds, slopes]}
            moves = [{"move": pb.Move(), "tensors": [slopes]}, later]
            client = install("client", 0)
            return [[client, upload("client")], [client, {"forward": pb.Forward()}, probe, *moves]]
        if self.run.trunk_shape is not None:
            h = torch.randn(len(dz), *self.run.trunk_shape, generator=torch.Generator().manual_seed(0))
            coded = SentTensor(h, self.run.quantization.codec("trunk_output").transmit(h, seed=1))
            packed = pack("h", self.expectations.cut_number("trunk_output"), coded)
            step_tail: dict[str, Any] = {"step_tail": pb.StepTail(), "tensors": [packed]}
            client = install("client", 0)
            return [[client, upload("client")], [client, {"forward": pb.Forward()}, step_tail, backward]]
        client, again, auxiliary = install("client", 0), install("client", 1), install("auxiliary", 0)
        train = {"train_local": pb.TrainLocal(train_head=True, upload_interval=2, skip_first_upload=True)}
        return [
            [client, again, upload("client")],
            [client, {"forward": pb.Forward()}, backward],
            [auxiliary, train],
            [client, upload("client"), {"keep": pb.Keep(rounds=1)}],
        ]

    def _cut_gradient(self) -> Tensor:
        """A cut gradient of the first batch, as it travels."""
        self.worker()
        engine = self.run.engine
        engine.enter([CLIENT])
        engine.install("client", {CLIENT: self.expectations._weights["client"]})
        (upload,) = engine.forward([CLIENT], 0, 0)
        dz = torch.randn(upload.z.shape, generator=torch.Generator().manual_seed(0))
        return self.run.quantization.positions.pack(dz, upload.y)

    def verbs(self, conversation: int) -> list[Parcel[pb.FromServer]]:
        """What the hub of a server sends for it, `Begin` first."""
        hub, asked = self.hub(), []
        hub.begin(0, [CLIENT], {})
        for verb in ({}, *self.conversations[conversation]):
            if verb:
                hub.ask(CLIENT, **verb)
            asked.append(hub._sessions[CLIENT].pending.verb)  # type: ignore[union-attr]
        return asked

    def answers(self, conversation: int) -> list[list[Parcel[pb.FromClient]]]:
        """What an honest client answers to each of these verbs."""
        if conversation not in self._answers:
            worker = self.worker()
            self._answers[conversation] = [worker.answer(verb) for verb in self.verbs(conversation)]
        return self._answers[conversation]


class Counted(TorchDispatchMode):
    """Counts the bytes of memory that tensors get, all together, over what is run within."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {each.untyped_storage().data_ptr() for each in args if isinstance(each, Tensor)}
        made = func(*args, **(kwargs or {}))
        self.calls += 1
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor) and each.untyped_storage().data_ptr() not in before:
                self.bytes += each.untyped_storage().nbytes()
        return made


@cache
def import_what_counting_needs() -> None:
    """Count one operation: the first one in a process imports hundreds of modules of torch."""
    with Counted():
        torch.zeros(1)


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """How many more bytes Python's allocator (with NumPy's) held at most than at the start."""
    tracemalloc.start()
    tracemalloc.reset_peak()
    start = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: tracemalloc.get_traced_memory()[1] - start
    finally:
        tracemalloc.stop()


class _Log(logging.Handler):
    """What is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """What is logged meanwhile, and nothing shown."""
    logger, handler = logging.getLogger("fedsplit"), _Log()
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


class _Context:
    """A gRPC context of a stream that has no network."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def peer(self) -> str:
        return "test"

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return True

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise grpc.RpcError(code, details)


# -- a client, whatever its server sends


def client_survives(world: World, conversation: int, frames: Sequence[pb.FromServer]) -> None:
    """A stream that does not fit ends in a typed error, and the next, honest one gets honest answers."""
    client = TrainingClient(
        server="", client=CLIENT, tls=None, folder=world.folder, own={}, build=run_of_member
    )
    client._worker, client._run, client._known_server = world.worker(), RUN, SERVER
    identity = pb.Identity(run=RUN, client=CLIENT)
    welcome = pb.FromServer(identity=identity, welcome=pb.Welcome(server=SERVER))
    told = ""
    with logged() as records:
        try:
            _served(client, [welcome, *frames])
        except (Corrupt, RunFailed, UserError) as error:
            told = str(error)
        assert len(told) < 5000  # fit for a log
        honest = [frame for verb in world.verbs(conversation) for frame in verb.frames()]
        if client._run == RUN:
            # of another server process: verbs of one and the same never share a name
            client._known_server = b""
            _, answers = _served(client, [welcome, *honest])
            wanted = [parcel for answer in world.answers(conversation) for parcel in answer]
            assert [parcel.head for parcel in answers] == [parcel.head for parcel in wanted]
            assert [_bytes(parcel) for parcel in answers] == [_bytes(parcel) for parcel in wanted]
    assert all(record.levelno < logging.ERROR for record in records)


def _served(
    client: TrainingClient, frames: Sequence[pb.FromServer]
) -> tuple[bool, list[Parcel[pb.FromClient]]]:
    outbox: Any = SimpleNamespace(sent=[])
    outbox.put = outbox.sent.append
    ended = client.serve(iter(frames), outbox)
    return ended, [
        parcel for parcel in outbox.sent if parcel.head.WhichOneof("content") not in ("hello", "ready")
    ]


def _bytes(parcel: Parcel[Any]) -> list[bytes]:
    return [bytes(payload) for payload in parcel.payloads]


# -- a server, whatever one of its clients sends


def server_survives(world: World, conversation: int, verb: int, frames: Sequence[pb.FromClient]) -> None:
    """A stream that does not fit is closed, once, in a line; the other client and the round go on.

    Args:
        world: whose server.
        conversation: that it is in.
        verb: of it, whose answer is damaged.
        frames: of a client, after its `Hello` and `Ready`.
    """
    hub, other = world.hub(), Link(lambda: None)
    hub.begin(0, [0, 1], {})
    for each in world.conversations[conversation][:verb]:
        hub.ask(CLIENT, **each)
    hub.attach(other, _hello(1), pb.Ready(samples=world.run.sample_counts[1]))
    undisturbed = deepcopy(hub._sessions[1].pending)
    federation = Federation(hub, pb.Plan(), clients=2, secured=False)
    with logged() as records:
        attend(federation, world, verb, frames)
        told = [record for record in records if record.levelno >= logging.WARNING]
        assert all(record.levelno < logging.ERROR for record in told)
        assert len([record for record in told if "closed" in record.getMessage()]) <= 1
        assert all(len(record.getMessage().splitlines()) == 1 for record in told)
        assert all(len(record.getMessage()) < 1000 for record in told)
    assert (hub._sessions[1].link, hub._sessions[1].pending) == (other, undisturbed)
    assert hub._sessions[CLIENT].link is None
    json.dumps(hub._ledger.state(), allow_nan=False)
    wasted = sum(hub._ledger.repeated_bytes(0).values())
    asked = hub._sessions[CLIENT].pending
    assert asked is not None
    assert wasted <= (len(frames) + 1) * world.expectations.most_up + asked.verb.size
    with logged():
        if not asked.done:
            honest = [frame for parcel in world.answers(conversation)[verb] for frame in parcel.frames()]
            attend(federation, world, verb, honest)
            answered = hub.answers([CLIENT], until=None, enough=None)[CLIENT]
            assert [answer.head for answer in answered] == [p.head for p in world.answers(conversation)[verb]]
            return
        try:
            answered = hub.answers([CLIENT], until=None, enough=None)[CLIENT]
        except RunFailed as error:  # as the client told us
            told_by_client = str(error)
        else:
            return _usable(world, conversation, verb, answered)
    assert len(told_by_client.splitlines()) == 1


def _usable(world: World, conversation: int, verb: int, answered: Sequence[Answer]) -> None:
    """What was taken is what the round loop counts on: the same messages and tensors, all finite."""
    wanted = world.answers(conversation)[verb]
    assert [answer.head.identity for answer in answered] == [parcel.head.identity for parcel in wanted]
    for answer, parcel in zip(answered, wanted, strict=True):
        names = [tensor.name for tensor in parcel.head.tensors]
        assert list(answer.tensors) == names
        assert len(answer.head.done.losses) == len(parcel.head.done.losses)
        for tensor in answer.tensors.values():
            assert torch.isfinite(tensor.double()).all()


def _hello(client: int) -> pb.Hello:
    return pb.Hello(version=VERSION, client=client, instance=INSTANCE)


def attend(federation: Federation, world: World, verb: int, frames: Sequence[pb.FromClient]) -> None:
    """One stream of a client that has done what came before a verb."""
    ready = pb.Ready(
        samples=world.run.sample_counts[CLIENT], going_on=True, round=0, attempt=1, number=max(0, verb - 1)
    )
    stream = [pb.FromClient(hello=_hello(CLIENT)), pb.FromClient(ready=ready), *frames]
    list(federation.Attend(iter(stream), _Context()))  # type: ignore[arg-type]


def stranger_is_refused(world: World, frames: Sequence[pb.FromClient]) -> None:
    """Whatever a stream begins with, it is let in or refused, and nobody else notices."""
    hub, other = world.hub(), Link(lambda: None)
    hub.begin(0, [0, 1], {})
    hub.attach(other, _hello(1), pb.Ready(samples=world.run.sample_counts[1]))
    undisturbed = deepcopy(hub._sessions[1].pending)
    federation = Federation(hub, pb.Plan(), clients=2, secured=False)
    with logged() as records:
        try:
            replies = list(federation.Attend(iter(frames), _Context()))  # type: ignore[arg-type]
        except grpc.RpcError:
            replies = []
    assert all(record.levelno < logging.ERROR for record in records)
    assert all(len(record.getMessage().splitlines()) <= 1 for record in records)
    assert (hub._sessions[1].pending, hub._sessions[CLIENT].link) == (undisturbed, None)
    if hub._sessions[1].instance == INSTANCE and not any(r.WhichOneof("content") == "begin" for r in replies):
        assert hub._sessions[1].link is other


# -- memory


def assembles_within_bounds(world: World, up: bool, frames: Sequence[Any]) -> None:
    """Memory is taken only for what is expected, once; no tensor is made of what is refused.

    Measured: the peak of Python's own allocator (payloads, with NumPy's copies), and the sum of the
    memory of all tensors that are made, each with the step that its codec may need.
    """
    hub = world.hub()
    hub.begin(0, [0], {})
    link = Link(lambda: None)
    hub.attach(link, _hello(CLIENT), pb.Ready(samples=world.run.sample_counts[CLIENT]))
    asked = pb.UploadWeights(part=PARTS[world.uploaded])
    hub.ask(CLIENT, upload_weights=asked, difference=not world.lossless)
    worker = world.worker()
    admit: Any = (lambda frame: hub.admit(link, CLIENT, frame)) if up else worker.admit
    assembler: Assembler[Any] = Assembler(admit)
    most = world.expectations.most_up if up else _most_down(world)
    for frame in frames:
        whole = None
        with Counted() as counted, peak() as taken:
            with suppress(Corrupt):
                whole = assembler.add(frame)
            grown = taken()
        assert counted.calls == 0
        declared = sum(tensor.size for tensor in frame.tensors)
        allowed = declared if declared <= most else 0
        assert grown <= allowed + len(frame.chunk.content) + PLAIN, (grown, declared)
        if whole is not None and whole.size:
            _decodes_within_bounds(world, up, whole)


def _most_down(world: World) -> int:
    sent, kinds = world.expectations.sent_down, []
    parts: Sequence[Part] = ("full", "control") if world.run.control_variates else ("client", "auxiliary")
    for tensors in ((), (pb.Tensor(codec=pb.WEIGHTS_WHOLE),)):
        for difference in (False, True):
            kinds += [sent(part, tensors, difference=difference) for part in parts]
    weights = max(sum(each.codec.largest(each.shape, each.dtype) for each in kind) for kind in kinds)
    return max(weights, 4 * 9 * prod(world.run.smashed_shape) + 1000)


def _decodes_within_bounds(world: World, up: bool, whole: Parcel[Any]) -> None:
    try:
        expected = (
            world.expectations.sent_up(world.uploaded, difference=not world.lossless)
            if up
            else world.worker()._expect(whole.head)
        )
    except Corrupt:
        return
    values = sum(prod(each.shape) for each in expected)
    import_what_counting_needs()
    with Counted() as counted, peak() as taken:
        with suppress(Corrupt):
            decode_tensors(whole, expected)
        grown = taken()
    payload = max((len(each) for each in whole.payloads), default=0)
    assert grown <= 2 * whole.size + payload + PLAIN, (grown, whole.size)
    assert counted.bytes <= 200 * values + PLAIN


# -- plans


@lru_cache
def _composed(overrides: tuple[str, ...]) -> Any:
    with composing():
        return compose_config(list(overrides))


@contextmanager
def composed_once() -> Iterator[None]:
    """What choices compose to is remembered: Hydra takes half a second for it."""
    with (
        mock.patch.object(
            plans_module, "compose_config", lambda overrides: deepcopy(_composed(tuple(overrides)))
        ),
        mock.patch.object(plans_module, "composing", mock.MagicMock()),
    ):
        yield


@lru_cache
def installed_targets() -> frozenset[str]:
    """Every `_target_` of an installed choice."""
    lines = (line for path in CONFIGS.rglob("*.yaml") for line in path.read_text("utf-8").splitlines())
    words = (line.split("#")[0].strip() for line in lines)
    named = {
        word.partition(":")[2].strip() for word in words if word.startswith(("_target_:", "auxiliary: "))
    }
    return frozenset(named - {"${model.auxiliary}"})


def targets(node: object) -> Iterator[object]:
    """Every `_target_` in a configuration."""
    items = node.items() if isinstance(node, dict) else enumerate(node if isinstance(node, list) else ())
    for key, value in items:
        if key == "_target_":
            yield value
        yield from targets(value)


def texts(node: object) -> Iterator[str]:
    """Every text in a configuration."""
    if isinstance(node, str):
        yield node
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        yield from texts(value)


def plan_names_only_what_is_installed(plan: pb.Plan) -> None:
    """A plan is refused, or makes a configuration of installed choices and plain values."""
    before, told = set(sys.modules), ""
    with composed_once():
        try:
            config = configuration(plan).plain()
        except (Corrupt, UserError) as error:
            config, told = {}, str(error)
    assert len(told) < 10_000
    loaded = set(sys.modules) - before
    assert not [name for name in loaded if not name.startswith(("fedsplit", "torch", "hydra"))]
    assert "tests.transport.sentinel" not in sys.modules
    assert set(targets(config)) <= installed_targets()
    assert not [text for text in texts(config) if "${" in text or text == "???"]
    if config:
        own = _composed(())
        for key in ("device", "resume", "progress", "task", "transport", "engine"):
            assert config[key] == plain(own)[key]


# -- what is drawn for each


Drawn: TypeAlias = Callable[[World], st.SearchStrategy[tuple[Any, ...]]]


@st.composite
def _from_server(draw: st.DrawFn, world: World) -> tuple[int, list[pb.FromServer]]:
    conversation = draw(st.integers(0, len(world.conversations) - 1))
    return conversation, draw(strategies.damaged(world.verbs(conversation)))


@st.composite
def _from_client(draw: st.DrawFn, world: World) -> tuple[int, int, list[pb.FromClient]]:
    conversation = draw(st.integers(0, len(world.conversations) - 1))
    answers = world.answers(conversation)
    verb = draw(st.integers(0, len(answers) - 1))
    return conversation, verb, draw(strategies.damaged(answers[verb]))


@st.composite
def _strangers(draw: st.DrawFn, world: World) -> tuple[list[pb.FromClient]]:
    hello = pb.FromClient(hello=_hello(CLIENT))
    ready = pb.FromClient(ready=pb.Ready(samples=world.run.sample_counts[CLIENT]))
    if draw(st.booleans()):
        return (draw(strategies.damaged([Parcel(hello), Parcel(ready)])),)
    return (draw(st.lists(strategies.messages(pb.FromClient.DESCRIPTOR), max_size=3)),)


@st.composite
def _either_way(draw: st.DrawFn, world: World) -> tuple[bool, list[Any]]:
    if draw(st.booleans()):
        *_, answer = world.answers(0)
        kept = Parcel(pb.FromClient.FromString(answer[0].head.SerializeToString()), answer[0].payloads)
        kept.head.identity.number = 1
        return True, draw(strategies.damaged([kept]))
    conversation = draw(st.integers(0, len(world.conversations) - 1))
    return False, draw(strategies.damaged(world.verbs(conversation)))


@lru_cache
def _honest_plan(*overrides: str) -> pb.Plan:
    with composing():
        return choices_and_settings(run_config(compose_config(list(overrides))))


_HONEST = (
    ("algorithm=cse_fsl", "quant=thrifty", "client_optimizer=sgd"),
    ("model=tiny_gpt2", "dataset=e2e_nlg", "adapter=lora"),
)


@st.composite
def _plans(draw: st.DrawFn, world: World) -> tuple[pb.Plan]:
    drawn = draw(strategies.plans)
    kept = pb.Plan()
    if draw(st.booleans()):
        kept.CopyFrom(_honest_plan(*draw(st.sampled_from(_HONEST))))
        if draw(st.booleans()):
            drawn.ClearField("choices")
    if draw(st.booleans()):
        drawn.settings.add(
            key=draw(st.sampled_from(strategies.KEYS)),
            value=draw(
                st.one_of(
                    strategies.messages(pb.Value.DESCRIPTOR),
                    st.integers(0, 20).map(strategies.nested),
                    st.sampled_from(strategies.TEXTS).map(lambda text: pb.Value(text=text)),
                )
            ),
        )
    kept.MergeFrom(drawn)
    return (kept,)


INVARIANTS: dict[str, tuple[Callable[..., None], Drawn, int]] = {
    "client_survives": (client_survives, _from_server, 1),
    "server_survives": (server_survives, _from_client, 2),
    "stranger_is_refused": (stranger_is_refused, _strangers, 2),
    "assembles_within_bounds": (assembles_within_bounds, _either_way, 1),
    "plan_names_only_what_is_installed": (
        lambda world, plan: plan_names_only_what_is_installed(plan),
        _plans,
        1,
    ),
}
"""Invariants by name, each with what is drawn for it and its number of examples relative to others."""
