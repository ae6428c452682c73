"""Neither end is harmed by what the other sends; see `invariants`."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from fedsplit.building.run import run_of_member
from fedsplit.data.batches import batch_slices
from fedsplit.quant.message import Corrupt, Message
from fedsplit.transport.grpc.client.client import TrainingClient
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import OPTIONS, VERSION, Parcel, announcement
from fedsplit.transport.grpc.server.listening import start
from fedsplit.transport.grpc.server.meeting import Link, StreamRefused
from fedsplit.transport.grpc.server.server import Federation
from tests.transport.invariants import CLIENT, INVARIANTS, RUN, World, attend, logged, server_survives

TRIED = ("none", "mixed", "texts", "control", "seeds", "tail")
PLANS = "plan_names_only_what_is_installed"


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    """One for each of `TRIED`."""
    return {quant: World(quant, tmp_path_factory.mktemp(quant)) for quant in TRIED}


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        *((name, quant) for name in INVARIANTS if name != PLANS for quant in TRIED),
        (PLANS, "none"),  # has nothing to do with tensors
    ],
)
def test_invariant_holds_whatever_the_other_end_sends(
    name: str, quant: str, worlds: dict[str, World]
) -> None:
    holds, drawn, share = INVARIANTS[name]
    world = worlds[quant]

    @settings(max_examples=share * settings().max_examples, suppress_health_check=list(HealthCheck))
    @given(drawn(world))
    def check(case: tuple[Any, ...]) -> None:
        holds(world, *case)

    check()


ANSWERS = {
    "done before its uploads": (2, 2, [{"done": pb.Done()}]),
    "an upload that was not asked for": (0, 1, [{"upload": pb.Upload()}]),
    "an upload without tensors": (2, 2, [{"upload": pb.Upload(), "step": 2}]),
    "losses of no batches": (0, 0, [{"done": pb.Done(losses=[1.0], samples=[8])}]),
    "losses and no samples": (0, 0, [{"done": pb.Done(losses=[1.0])}]),
    "another step": (0, 0, [{"done": pb.Done(), "step": 1}]),
    "a difference to nothing": (0, 0, [{"done": pb.Done(difference=True)}]),
    "weights that are not there": (0, 3, [{"done": pb.Done()}]),
    "a second greeting": (0, 0, [{"ready": pb.Ready(samples=44)}]),
    "tensors in what carries none": (0, 0, [{"done": pb.Done(), "tensors": [pb.Tensor(name="z", size=4)]}]),
    "tensors in a failure": (0, 0, [{"failed": pb.Failed(what="x"), "tensors": [pb.Tensor(size=4)]}]),
    "much that is late": (
        0,
        0,
        [{"done": pb.Done(), "attempt": 9, "tensors": [pb.Tensor(size=2**64 - 1)] * 9}],
    ),
}
"""Conversation and verb, and what no client answers to it."""


@pytest.mark.parametrize("name", ANSWERS)
def test_server_ends_the_stream_of_an_answer_that_is_not_due(name: str, worlds: dict[str, World]) -> None:
    conversation, verb, answers = ANSWERS[name]
    frames = []
    for answer in answers:
        said = dict(answer)
        identity = pb.Identity(run=RUN, client=CLIENT, attempt=1, number=verb)
        for field in ("step", "attempt"):
            if field in said:
                setattr(identity, field, said.pop(field))
        frames.append(pb.FromClient(identity=identity, **said))  # type: ignore[arg-type]
    world = worlds["mixed"]
    hub = world.hub()
    hub.begin(0, [CLIENT], {})
    for each in world.conversations[conversation][:verb]:
        hub.ask(CLIENT, **each)
    with logged() as records:
        attend(Federation(hub, pb.Plan(), clients=2, secured=False), world, verb, frames)
    closed = [record for record in records if "closed the stream" in record.getMessage()]
    assert len(closed) == 1
    assert not hub._sessions[CLIENT].pending.done  # type: ignore[union-attr]
    assert hub._sessions[CLIENT].pending.answers == []  # type: ignore[union-attr]
    server_survives(world, conversation, verb, frames)


@pytest.mark.parametrize("samples", [0, 43, 2**41, 2**64 - 1])
def test_hub_refuses_a_client_with_another_number_of_samples(samples: int, worlds: dict[str, World]) -> None:
    for known in (44, 0):
        hub = worlds["none"].hub()
        hub._sample_counts = [known, known]
        if known or not 0 < samples <= 2**40:
            with pytest.raises(StreamRefused):
                hub.attach(Link(lambda: None), pb.Hello(client=CLIENT), pb.Ready(samples=samples))


def test_expectations_of_steps_are_the_batches_of_a_client(worlds: dict[str, World]) -> None:
    expectations = worlds["none"].expectations
    for size in (1, 2, 3, 8):
        expectations._batch_size = size
        for samples in range(1, 40):
            sizes = [piece.stop - piece.start for piece in batch_slices(samples, size)]
            assert expectations.steps(samples) == len(sizes)
            assert [expectations.batch(samples, step) for step in range(len(sizes))] == sizes
    expectations._batch_size = 8


class _Raw:
    """A server on loopback that says, stream by stream, what it is given to say, as bytes."""

    def __init__(self, streams: list[list[bytes]]) -> None:
        self.streams, self.begun = streams, 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def attend(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            self.begun += 1
            next(requests)
            yield from self.streams[self.begun - 1]

        return grpc.stream_stream_rpc_method_handler(attend)


def test_client_dials_again_whatever_it_was_sent_until_the_run_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    garbage, finish = b"\xff" * 100, pb.FromServer(finish=pb.Finish())
    welcome = pb.FromServer(identity=pb.Identity(client=CLIENT), welcome=pb.Welcome())
    said = [[garbage], [], [pb.FromServer(begin=pb.Begin())], [pb.FromServer(chunk=pb.Chunk())], [welcome]]
    said += [[pb.FromServer(refusal=pb.Refusal(reason="later\n" * 1000))], [finish]]
    written = [
        [each if isinstance(each, bytes) else each.SerializeToString() for each in one] for one in said
    ]
    raw, pauses = _Raw(written), []
    monkeypatch.setattr("fedsplit.transport.grpc.client.dialling.time.sleep", pauses.append)
    with ThreadPoolExecutor(4) as pool, logged() as records:
        server = grpc.server(pool, handlers=[raw])  # type: ignore[list-item]
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            TrainingClient(
                server=f"127.0.0.1:{port}", client=CLIENT, tls=None, folder=None, own={}, build=run_of_member
            ).attend()
        finally:
            server.stop(None).wait()
    assert raw.begun == len(said)
    assert len(pauses) == len(said) - 1
    assert all(len(record.getMessage().splitlines()) == 1 for record in records)
    assert all(len(record.getMessage()) < 500 for record in records)


def test_server_ends_only_the_stream_of_bytes_that_are_no_message(
    worlds: dict[str, World], caplog: pytest.LogCaptureFixture
) -> None:
    world, other = worlds["none"], Link(lambda: None)
    hub = world.hub()
    hub.begin(0, [0, 1], {})
    hub.attach(other, pb.Hello(client=1), pb.Ready(samples=world.run.sample_counts[1]))
    hello = pb.FromClient(hello=pb.Hello(version=VERSION, client=CLIENT, instance=b"i" * 16))
    ready = pb.FromClient(ready=pb.Ready(samples=world.run.sample_counts[CLIENT]))
    honest = [hello.SerializeToString(), ready.SerializeToString()]
    deep = b"\x0a\x02\x12\x00" * 1000
    bad = [
        [b"\xff" * 50],
        [b""],
        [honest[0], b"\xff"],
        [*honest, b"\xff\xff"],
        [*honest, deep],
        [*honest, honest[0]],
    ]
    server, port = start(Federation(hub, pb.Plan(), clients=2, secured=False), listen="127.0.0.1:0", tls=None)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel, logged() as records:
            for sent in bad:
                call = channel.stream_stream("/fedsplit.Federation/Attend")(iter(sent), timeout=300)
                try:
                    replies = [pb.FromServer.FromString(each).WhichOneof("content") for each in call]
                except grpc.RpcError:
                    continue
                assert replies in ([], ["welcome"], ["welcome", "begin"])
    finally:
        hub.finish(tell=False)
        server.stop(None).wait()
    assert hub._sessions[1].link is other
    assert hub._sessions[CLIENT].pending.answers == []  # type: ignore[union-attr]
    assert all(record.levelno < logging.ERROR for record in records)
    assert not [record for record in caplog.records if record.name.startswith("grpc")]


@pytest.mark.parametrize(("samples", "due"), [(0, False), (1, True), (8, True), (9, True), (10, False)])
def test_cut_gradient_is_of_a_batch_that_one_sample_may_have_joined(
    samples: int, due: bool, worlds: dict[str, World]
) -> None:
    expectations = worlds["none"].expectations
    expectations._batch_size = 8
    announced = [pb.Tensor(shape=[samples, *worlds["none"].run.smashed_shape])]
    if due:
        (expected,) = expectations.cut_gradient(announced)
        assert expected.shape == tuple(announced[0].shape)
    else:
        with pytest.raises(Corrupt, match=f"no batch of this run has {samples} samples"):
            expectations.cut_gradient(announced)


def test_upload_that_comes_twice_is_taken_once_and_ends_no_stream(worlds: dict[str, World]) -> None:
    world, conversation, verb = worlds["none"], 2, 2
    hub = world.hub()
    hub.begin(0, [CLIENT], {})
    for each in world.conversations[conversation][:verb]:
        hub.ask(CLIENT, **each)
    honest = world.answers(conversation)[verb]
    frames = [frame for parcel in (honest[0], *honest) for frame in parcel.frames()]
    with logged() as records:
        attend(Federation(hub, pb.Plan(), clients=2, secured=False), world, verb, frames)
    assert [record.getMessage() for record in records if "closed" in record.getMessage()] == []
    answered = hub.answers([CLIENT], until=None, enough=None)[CLIENT]
    assert [answer.head for answer in answered] == [parcel.head for parcel in honest]
    assert hub._ledger.repeated_bytes(0) == {"up": honest[0].size, "down": 0}


SEEDS, SLOPES = torch.tensor([1, 2, 3], dtype=torch.int32), torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"slopes": SLOPES}, "1 tensors came, and 2 were expected"),
        ({"seeds": SEEDS[:2], "slopes": SLOPES}, r"'seeds' must have shape \(3,\) and type torch.int32"),
        ({"seeds": SEEDS.long(), "slopes": SLOPES}, "'seeds' must have shape"),
        ({"seeds": SEEDS, "slopes": SLOPES[:2]}, "'slopes' must have shape"),
        ({"seeds": -SEEDS, "slopes": SLOPES}, "a seed is below 0"),
        ({"seeds": SEEDS, "slopes": SLOPES / 0.0}, "not finite"),
    ],
    ids=lambda each: each if isinstance(each, str) else " ".join(each),
)
def test_client_refuses_seeds_and_scalars_that_no_server_sends(
    tensors: dict[str, torch.Tensor], told: str, worlds: dict[str, World]
) -> None:
    """At a step whose seeds it has not answered."""
    packed = []
    for name, each in tensors.items():
        message = Message.seal(each.numpy().tobytes(), tuple(each.shape), each.dtype)
        packed.append((announcement(name, pb.EXACT, message), message.payload))
    head = pb.FromServer(identity=pb.Identity(step=4), move=pb.Move(), tensors=[each for each, _ in packed])
    worker, verb = worlds["seeds"].worker(), Parcel(head, [payload for _, payload in packed])
    worker.run.engine.enter([CLIENT])
    with pytest.raises(Corrupt, match=told):
        worker.answer(verb)
    with pytest.raises(Corrupt, match="clients of this run answer no seeds"):
        worlds["none"].worker().answer(verb)
