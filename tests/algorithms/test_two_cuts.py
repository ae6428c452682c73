"""Split learning with the tail of the model at the clients: bytes, identities, engines, resume, refusals."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from fedsplit.building.client_cost import build_client_cost
from fedsplit.errors import UserError
from fedsplit.models.zoo.digits_cnn import digits_cnn
from fedsplit.quant.message import Corrupt
from fedsplit.recording.ledger import DIRECTIONS, KINDS
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.state.weights import Weights
from fedsplit.training.experiment import Experiment
from fedsplit.training.resume import resumed_config
from fedsplit.transport.grpc.client.worker import Worker
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.expectations import Expectations
from fedsplit.transport.grpc.protocol.frames import Parcel
from fedsplit.transport.grpc.server.streams import PendingVerb, expected_tensors
from tests.algorithms.test_methods import NORMED, M, N, Z, assert_close, ran, terms_of
from tests.algorithms.test_methods import C as BODY
from tests.conftest import Build, Configure
from tests.oracles.plain_loops import PlainLoop, sgd
from tests.transport import runs

TAIL = ("model.tail_cut=relu3",)
H, T = 4 * 64, 4 * (64 * 10 + 10)
"""Bytes of a sample's trunk output and of the tail behind `relu3`."""
METHODS = ("splitfed_v1", "splitfed_v2", "vanilla_sl")
WITHOUT_PARAMETERS = ("model._target_=tests.algorithms.test_two_cuts.softened",)


def softened(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """The default model, with nothing to learn behind its last layer; the loss and its gradients stay."""
    model = digits_cnn(num_classes=num_classes, channels=channels, image_size=image_size)
    assert isinstance(model, nn.Sequential)
    return nn.Sequential(OrderedDict([*model.named_children(), ("softened", nn.LogSoftmax(1))]))


@pytest.mark.parametrize("algorithm", METHODS)
def test_bytes_are_the_closed_form_of_four_tensors_a_step_and_no_labels(algorithm: str) -> None:
    run = ran(f"algorithm={algorithm}", *TAIL)
    expected = {(d, "client_weights"): M * (BODY + T) for d in DIRECTIONS}
    expected |= {("up", "smashed"): N * Z, ("down", "smashed"): N * H}
    expected |= {("up", "cut_gradient"): N * H, ("down", "cut_gradient"): N * Z}
    for record in run.records:
        counted = {(d, kind): record.bytes[d][kind] for d in DIRECTIONS for kind in KINDS}
        assert counted == dict.fromkeys(counted, 0) | expected
    assert type(run.algorithm).round_load(terms_of(run)) == sum(expected.values())


def test_codecs_of_the_first_cut_are_those_of_the_second() -> None:
    run = ran("algorithm=splitfed_v1", *TAIL, "quant=int8", "engine=sequential")
    last = run.records[-1]
    assert type(run.algorithm).round_load(terms_of(run)) == last.load - run.records[-2].load
    for kind in ("smashed", "cut_gradient"):
        for direction in DIRECTIONS:
            bits, sqnr = last.bits[direction][kind], last.sqnr[direction][kind]
            assert bits is not None
            assert sqnr is not None
            assert bits < 16
            assert 20 < sqnr < 100


@pytest.mark.parametrize("algorithm", METHODS)
def test_tail_without_parameters_leaves_the_bits_of_the_weights(algorithm: str) -> None:
    settings = (f"algorithm={algorithm}", *WITHOUT_PARAMETERS)
    plain, cut = ran(*settings), ran(*settings, "model.tail_cut=fc2")
    for ours, theirs in zip(cut.records, plain.records, strict=True):
        assert ours.bytes["up"] == {**theirs.bytes["up"], "labels": 0, "cut_gradient": N * 40}
        assert ours.train_loss == theirs.train_loss
        assert (ours.test_loss, ours.test_accuracy) == (theirs.test_loss, theirs.test_accuracy)
    found, expected = (run.algorithm.full_weights() for run in (cut, plain))
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_splitfed_v1_with_any_tail_has_the_bits_of_fed_avg() -> None:
    ours, theirs = (
        ran(f"algorithm={name}", "engine=sequential", *more).algorithm.full_weights()
        for name, more in (("splitfed_v1", TAIL), ("fed_avg", ()))
    )
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("algorithm", METHODS)
def test_one_client_with_a_tail_is_centralised_training(tiny: Build, algorithm: str) -> None:
    run = tiny(f"algorithm={algorithm}", *TAIL, "num_clients=1", "dataset.max_train=50", "optimizer=sgd")
    reference, tail = PlainLoop(run), run.parts.models.halves.tail
    assert tail is not None
    stepper = sgd(reference.client, reference.server, tail)
    for t in range(2):
        run.run_round(t)
        for _, x, y in reference.batches(t, 0):
            stepper.zero_grad()
            F.cross_entropy(tail(reference.server(reference.client(x))), y).backward()
            stepper.step()
    expected: Weights = {**reference.full_weights(), **tail.state_dict()}
    assert_close(run.algorithm.full_weights(), expected, 1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("settings", [NORMED, (*TAIL, "algorithm.local_rule=prox")])
def test_vectorized_engine_gives_what_the_sequential_one_gives(
    tiny: Build, settings: tuple[str, ...]
) -> None:
    """Batch normalisation and dropout in the tail, or a rule that corrects its steps too."""
    settings = ("algorithm=splitfed_v1", *settings, "optimizer=sgd", "dataset.max_train=60")
    if NORMED[0] in settings:
        settings += ("model.tail_cut=fc1",)
    settings += ("distribution=dirichlet", "distribution.alpha=0.5")
    both = [tiny(*settings, f"engine={engine}") for engine in ("sequential", "vectorized")]
    for t in range(2):
        ours, theirs = (run.run_round(t) for run in both)
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-12)
        assert ours.bytes == theirs.bytes
    assert_close(*(run.algorithm.full_weights() for run in both), 1e-12)


def test_vectorized_engine_codes_the_second_cut_as_the_sequential_one(tiny: Build) -> None:
    both = [
        tiny("algorithm=splitfed_v1", *TAIL, "quant=int8", f"engine={e}")
        for e in ("sequential", "vectorized")
    ]
    ours, theirs = (run.run_round(0) for run in both)
    assert ours.bytes == theirs.bytes
    assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-4)


def test_prox_moves_a_tail_by_its_own_weights_and_those_it_was_sent(tiny: Build) -> None:
    moved = []
    for rule in ((), ("algorithm.local_rule=prox", "algorithm.local_rule.mu=10")):
        run = tiny("algorithm=splitfed_v2", *TAIL, "optimizer=sgd", "num_clients=1", *rule)
        before = run.algorithm.full_weights()["fc2.weight"]
        run.run_round(0)
        moved.append(float((run.algorithm.full_weights()["fc2.weight"] - before).norm()))
    assert moved[1] < 0.8 * moved[0]


def test_run_that_was_killed_goes_on_with_the_same_bits(tiny: Build, tmp_path: Path) -> None:
    settings = ("algorithm=splitfed_v1", *TAIL, "quant=int8", "cohort_size=2", "checkpoint_interval=1")
    whole = runs.ran(tiny(*settings, "rounds=3"), tmp_path / "whole")
    stopped = runs.ran(tiny(*settings, "rounds=2"), tmp_path / "stopped")
    directory = RunDirectory.existing(stopped)
    experiment = Experiment(resumed_config(directory, {"rounds": 3}))
    checkpoint = directory.latest_checkpoint()
    assert checkpoint is not None
    experiment.restore(checkpoint)
    experiment.run(directory)
    runs.assert_same(whole, stopped)
    left = load_file(whole / "model" / "client.safetensors")
    assert {"conv1.weight", "fc2.weight"} <= left.keys()
    assert "fc1.weight" not in left


def test_client_holds_body_and_tail_and_waits_with_what_the_body_saved(tiny: Build) -> None:
    plain, cut = (
        build_client_cost(run.parts, trains_head=run.algorithm.trains_head)
        for run in (tiny("algorithm=splitfed_v2"), tiny("algorithm=splitfed_v2", *TAIL))
    )
    assert cut.waiting == plain.waiting
    tails = cut.memory - plain.memory - 4 * T - 2 * 4  # weights, gradient and slots of Adam, two counts
    assert 0 <= tails <= 9 * (2 * H + 3 * 4 * 10 + 8) + 8  # of 9 samples: outputs, logits, labels


def test_seconds_are_those_of_the_round_trips_of_both_cuts(tiny: Build) -> None:
    network = ("network=custom", "network.latency_s=1", "num_clients=1", "batch_size=65")
    found = [tiny("algorithm=splitfed_v2", *network, *tail).run_round(0) for tail in ((), TAIL)]
    seconds = [record.simulated_seconds for record in found]
    assert seconds[0] is not None
    assert seconds[1] is not None
    assert seconds[1] - seconds[0] >= 2 * 2  # of two local steps


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        *(
            (f"algorithm={name} model.tail_cut=relu3", f"must be null with algorithm={name}, whose clients")
            for name in ("fed_avg", "cse_fsl", "fsl_sage", "minibatch_sfl", "lgl_sl", "ampere")
        ),
        ("model.tail_cut=conv1", "model.tail_cut=conv1: must be behind model.cut=flatten"),
        ("model.tail_cut=flatten", "must be behind model.cut=flatten"),
        ("model.tail_cut=fc2", "is the end of the model"),
        ("model.tail_cut=fc9", "model.tail_cut=fc9: not a part of this model"),
        ("model.cut=fc1 model.tail_cut=relu3", "nothing between it and model.cut=fc1 learns"),
        ("model.tail_cut=relu3 defence=gaussian", "must be none with model.tail_cut: gradients of"),
        ("model.tail_cut=relu3 qat=true", "must be null: qat and weight_bits round"),
        ("model.tail_cut=3", "model.tail_cut=3"),
    ],
)
def test_tail_that_cannot_be_is_refused_in_one_line(
    tiny: Build, configured: Configure, overrides: str, told: str
) -> None:
    split = [] if "algorithm=" in overrides else ["algorithm=splitfed_v1"]
    with pytest.raises(UserError, match=told) as caught:
        tiny(*split, *overrides.split())
    assert "\n" not in str(caught.value)


def test_deployment_of_a_run_with_a_tail_is_refused(tiny: Build, tmp_path: Path) -> None:
    from fedsplit.building.trained import TrainedRun  # noqa: PLC0415  (imported by tasks alone)

    path = runs.ran(tiny("algorithm=splitfed_v1", *TAIL, "rounds=1"), tmp_path / "run")
    with pytest.raises(UserError, match="must be null in a run whose client model is deployed"):
        TrainedRun(path, device="cpu", threads=1)


def asked(number: int, **content: object) -> pb.FromServer:
    return pb.FromServer(identity=pb.Identity(run=b"r" * 16, number=number), **content)  # type: ignore[arg-type]


def announced(samples: int, *, name: str = "h", width: int = 64) -> pb.Tensor:
    size = 4 * samples * width
    shape = (samples, width)
    return pb.Tensor(
        name=name, codec=pb.EXACT, data_type=pb.FLOAT32, shape=shape, size=size, values=size // 4
    )


def test_client_takes_outputs_of_the_trunk_for_the_batch_that_waits_and_no_others(
    tiny: Build, tmp_path: Path
) -> None:
    run = tiny("algorithm=splitfed_v1", *TAIL).transport.run
    worker = Worker(run, 0, tmp_path, "run")
    with pytest.raises(Corrupt, match="no batch waits"):
        worker.admit(asked(0, step_tail=pb.StepTail(), tensors=[announced(8)]))
    run.engine.enter([0])
    uploads = worker.answer(Parcel(asked(1, forward=pb.Forward())))
    assert [each.name for each in uploads[0].head.tensors] == ["z"]
    assert worker.admit(asked(2, step_tail=pb.StepTail(), tensors=[announced(8)]))
    for wrong in (announced(7), announced(9), announced(8, name="dz"), announced(8, width=65)):
        with pytest.raises(Corrupt):
            worker.admit(asked(2, step_tail=pb.StepTail(), tensors=[wrong]))
    assert worker.expectations.trunk_output(8)[0].shape == (8, 64)
    with pytest.raises(Corrupt, match="not a part of this run"):
        worker.expectations.part(pb.AUXILIARY)
    plain = Expectations(tiny("algorithm=splitfed_v1").transport.run)
    with pytest.raises(Corrupt, match="hold no tail"):
        plain.trunk_output(8)


def test_server_takes_one_loss_and_the_gradient_of_the_batch_that_it_asked_about(tiny: Build) -> None:
    expectations = Expectations(tiny("algorithm=splitfed_v1", *TAIL).transport.run)
    pending = PendingVerb(Parcel(asked(1, step_tail=pb.StepTail())), difference=False)

    def wanted(**done: list[float] | list[int]) -> list[tuple[int, ...]]:
        answer = pb.FromClient(identity=pending.verb.head.identity, done=pb.Done(**done))  # type: ignore[arg-type]
        return [each.shape for each in expected_tensors(pending, answer, expectations, 44)]

    assert wanted(losses=[1.0], samples=[8]) == [(8, 64)]
    for done in ({}, {"losses": [1.0, 1.0], "samples": [8, 8]}, {"losses": [1.0], "samples": [7]}):
        with pytest.raises(Corrupt):
            wanted(**done)
