"""Algorithms whose clients have models of their own: bytes, evaluation, what is kept, one client's model."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from fedsplit.building.trained import TrainedRun
from fedsplit.building.trained_start import TrainedStart
from fedsplit.errors import UserError
from fedsplit.inference.subject import subject_of
from fedsplit.recording.ledger import DIRECTIONS, KINDS
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.state.weights import Weights, average
from fedsplit.training.experiment import Experiment
from fedsplit.training.resume import resumed_config
from tests.algorithms.test_methods import C, M, N, S, Z, assert_close, ran, terms_of
from tests.conftest import Build
from tests.oracles.plain_loops import PlainLoop, sgd
from tests.transport import runs

OWN = ("splitfed_v3", "fed_per")


@pytest.mark.parametrize(
    ("algorithm", "expected", "observed"),
    [
        (
            "splitfed_v3",
            {("up", "smashed"): N * Z, ("up", "labels"): N, ("down", "cut_gradient"): N * Z},
            M * C,
        ),
        ("fed_per", {(direction, "client_weights"): M * C for direction in DIRECTIONS}, M * S),
    ],
)
def test_bytes_are_the_closed_form_without_what_is_not_averaged(
    algorithm: str, expected: dict[tuple[str, str], int], observed: int
) -> None:
    run = ran(f"algorithm={algorithm}")
    for record in run.records:
        counted = {(d, kind): record.bytes[d][kind] for d in DIRECTIONS for kind in KINDS}
        assert counted == dict.fromkeys(counted, 0) | expected
        assert record.observed == observed
    assert type(run.algorithm).round_load(terms_of(run)) == sum(expected.values())


@pytest.mark.usefixtures("float64")
def test_splitfed_v3_averages_server_copies_of_clients_that_go_on_from_their_own_models(tiny: Build) -> None:
    run = tiny("algorithm=splitfed_v3", "optimizer=sgd")
    reference = PlainLoop(run, sgd)
    for t in range(2):
        run.run_round(t)
        for c, server in enumerate(reference.servers):
            server.load_state_dict(reference.server.state_dict())
            for _, x, y in reference.batches(t, c):
                for stepper in (reference.client_steppers[c], reference.server_steppers[c]):
                    stepper.zero_grad()
                F.cross_entropy(server(reference.clients[c](x)), y).backward()
                for stepper in (reference.client_steppers[c], reference.server_steppers[c]):
                    stepper.step()
        reference.server.load_state_dict(
            average([dict(server.state_dict()) for server in reference.servers], reference.counts)
        )
    assert_close(run.algorithm.server.weights(), dict(reference.server.state_dict()), 1e-10)
    for c, client in enumerate(reference.clients):
        assert_close(run.algorithm.own_weights[c], dict(client.state_dict()), 1e-10)


@pytest.mark.usefixtures("float64")
def test_fed_per_averages_bodies_of_clients_that_go_on_from_their_own_heads(tiny: Build) -> None:
    run = tiny("algorithm=fed_per", "optimizer=sgd")
    reference = PlainLoop(run, sgd)
    for t in range(2):
        run.run_round(t)
        for c, (client, head) in enumerate(zip(reference.clients, reference.servers, strict=True)):
            client.load_state_dict(reference.client.state_dict())
            for _, x, y in reference.batches(t, c):
                for stepper in (reference.client_steppers[c], reference.server_steppers[c]):
                    stepper.zero_grad()
                F.cross_entropy(head(client(x)), y).backward()
                for stepper in (reference.client_steppers[c], reference.server_steppers[c]):
                    stepper.step()
        reference.client.load_state_dict(
            average([dict(client.state_dict()) for client in reference.clients], reference.counts)
        )
    assert_close(run.algorithm.client_weights, dict(reference.client.state_dict()), 1e-10)
    for c, head in enumerate(reference.servers):
        assert_close(run.algorithm.own_weights[c], dict(head.state_dict()), 1e-10)


@pytest.mark.parametrize("algorithm", OWN)
def test_accuracies_are_means_over_clients_of_each_on_all_and_on_its_own_samples(
    tiny: Build, algorithm: str
) -> None:
    """Two of three clients take part; the third is measured with the half that it began with."""
    settings = ("dataset.local_test_fraction=0.3", "distribution=dirichlet", "distribution.alpha=0.5")
    run = tiny(f"algorithm={algorithm}", *settings, "cohort_size=2")
    initial = run.algorithm.full_weights()
    record = run.run_round(0)
    (absent,) = set(range(M)) - set(run.algorithm.own_weights)
    shared = run.algorithm.full_weights()
    half = set(next(iter(run.algorithm.own_weights.values())))
    whole = [shared | run.algorithm.own_weights.get(c, {k: initial[k] for k in half}) for c in range(M)]
    halves, data = run.parts.models.halves, run.parts.data
    local = data.local_test
    assert local is not None
    accuracies, losses, locals_ = [], [], []
    for client, weights in enumerate(whole):
        for part in halves.modules:
            part.load_state_dict({name: weights[name] for name in part.state_dict()})
            part.eval()
        with torch.no_grad():
            test = data.dataset.test
            logits = halves.server(halves.client(test.inputs_at(slice(None))))
            y = test.labels_at(slice(None))
            accuracies.append(float((logits.argmax(1) == y).double().mean()))
            losses.append(float(F.cross_entropy(logits, y)))
            own = torch.as_tensor(local[client])
            if len(own):
                found = halves.server(halves.client(data.dataset.train.inputs_at(own))).argmax(1)
                locals_.append(float((found == data.dataset.train.labels_at(own)).double().mean()))
    assert record.test_accuracy == pytest.approx(sum(accuracies) / M)
    assert record.test_loss == pytest.approx(sum(losses) / M, rel=1e-5)
    assert record.local_accuracy is not None
    assert record.local_accuracy.mean == pytest.approx(sum(locals_) / len(locals_))
    assert record.local_accuracy.worst == pytest.approx(min(locals_))
    assert len(set(accuracies)) > 1
    assert absent not in run.algorithm.own_weights


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("algorithm", OWN)
def test_vectorized_engine_gives_what_the_sequential_one_gives(tiny: Build, algorithm: str) -> None:
    settings = [f"algorithm={algorithm}", "optimizer=sgd", "dataset.max_train=60", "cohort_size=2"]
    both = [tiny(*settings, f"engine={engine}") for engine in ("sequential", "vectorized")]
    for t in range(3):
        ours, theirs = (run.run_round(t) for run in both)
        assert ours.test_loss == pytest.approx(theirs.test_loss, abs=1e-10)
        assert (ours.bytes, ours.observed) == (theirs.bytes, theirs.observed)
    for client, own in both[0].algorithm.own_weights.items():
        assert_close(own, both[1].algorithm.own_weights[client], 1e-12)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Directories of a run of each algorithm, straight and stopped after two of three rounds and resumed."""
    from tests.configurations import configuration  # noqa: PLC0415  (as the fixture `tiny`)
    from tests.conftest import TINY  # noqa: PLC0415

    found = {}
    for algorithm in OWN:
        folder = tmp_path_factory.mktemp(algorithm)
        settings = (*TINY, f"algorithm={algorithm}", "cohort_size=2", "quant=int8", "checkpoint_interval=1")
        settings += ("model.tail_cut=relu3",) if algorithm == "splitfed_v3" else ()
        whole = runs.ran(Experiment(configuration(*settings, "rounds=3")), folder / "whole")
        stopped = runs.ran(Experiment(configuration(*settings, "rounds=2")), folder / "stopped")
        directory = RunDirectory.existing(stopped)
        experiment = Experiment(resumed_config(directory, {"rounds": 3}))
        checkpoint = directory.latest_checkpoint()
        assert checkpoint is not None
        experiment.restore(checkpoint)
        experiment.run(directory)
        found[algorithm] = (whole, stopped)
    return found


@pytest.mark.parametrize("algorithm", OWN)
def test_run_that_was_killed_goes_on_with_the_same_bits_and_leaves_each_clients_model(
    left: dict[str, tuple[Path, Path]], algorithm: str
) -> None:
    whole, stopped = left[algorithm]
    runs.assert_same(whole, stopped)
    own = runs.state(whole)["algorithm"]["own"]
    half = "client" if algorithm == "splitfed_v3" else "server"
    files = {path.stem for path in (whole / "model").iterdir()}
    assert files == {*(f"{half}-{client}" for client in own), {"client": "server", "server": "client"}[half]}
    for client, weights in own.items():
        written = load_file(whole / "model" / f"{half}-{client}.safetensors")
        assert written.keys() == weights.keys()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in written.items())
    first, second = list(own.values())[:2]
    assert any(not torch.equal(tensor, second[name]) for name, tensor in first.items())
    results = json.loads((whole / "results.json").read_text())
    assert results["auc"] is not None


def test_model_of_one_client_is_deployed_with_what_all_share(left: dict[str, tuple[Path, Path]]) -> None:
    path, _ = left["fed_per"]
    for client in sorted(map(int, runs.state(path)["algorithm"]["own"])):
        trained = TrainedRun(path, device="cpu", threads=1, client=client)
        own = load_file(path / "model" / f"server-{client}.safetensors")
        assert all(torch.equal(tensor, own[name]) for name, tensor in trained.server.state_dict().items())
        shared = load_file(path / "model" / "client.safetensors")
        assert all(torch.equal(tensor, shared[name]) for name, tensor in trained.client.state_dict().items())
        assert [tuple(z.shape) for z, _ in trained.test_outputs(trained.client)] == [(60, 10)]


def test_client_that_is_not_named_or_not_there_is_told_in_one_line(
    left: dict[str, tuple[Path, Path]], tiny: Build, tmp_path: Path
) -> None:
    path, _ = left["fed_per"]
    directory = RunDirectory.existing(path, "run")
    with pytest.raises(UserError, match=r"its clients have models of their own: task.client names one of \d"):
        directory.trained_weights()
    with pytest.raises(UserError, match="its clients have models of their own"):
        TrainedStart.of(str(path))
    with pytest.raises(UserError, match=r"task\.client=9: must be one of \d, \d"):
        directory.trained_weights(9)
    shared = runs.ran(tiny("algorithm=fed_avg", "rounds=1"), tmp_path / "shared")
    with pytest.raises(UserError, match=r"task\.client=0: must be null: clients share the model of run="):
        RunDirectory.existing(shared, "run").trained_weights(0)
    with pytest.raises(UserError, match=r"task\.client=0: must be null without run="):
        subject_of(tiny("algorithm=fed_avg").config, 0)


def test_state_with_a_model_of_another_shape_is_refused(left: dict[str, tuple[Path, Path]]) -> None:
    _, stopped = left["fed_per"]
    directory = RunDirectory.existing(stopped)
    checkpoint = directory.latest_checkpoint()
    assert checkpoint is not None
    experiment = Experiment(resumed_config(directory, {"rounds": 4}))
    own = checkpoint.state["algorithm"]["own"]
    client = next(iter(own))
    good: Weights = own[client]
    for bad in (
        {**good, "fc2.bias": torch.zeros(3)},
        {name: each for name, each in good.items() if name != "fc2.bias"},
        {"weights": good},
    ):
        own[client] = bad
        with pytest.raises(UserError, match=r"state\.algorithm\.own"):
            experiment.restore(checkpoint)
    own[client] = good
    own["7"] = good
    with pytest.raises(UserError, match=r"state\.algorithm\.own\.7"):
        experiment.restore(checkpoint)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ("algorithm=splitfed_v3 client.stateless=true", "client.stateless=True: must be false"),
        ("algorithm=fed_per model.tail_cut=relu3", "must be null with algorithm=fed_per, whose clients"),
        ("algorithm=fed_per transport=grpc run=saves/x", "run=saves/x: must be null with this transport"),
    ],
)
def test_what_would_lose_a_clients_own_model_is_refused(tiny: Build, overrides: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        tiny(*overrides.split())


def test_stateless_clients_keep_their_own_heads(tiny: Build) -> None:
    run = tiny("algorithm=fed_per", "client.stateless=true", "optimizer=sgd", "cohort_size=2")
    plain = tiny("algorithm=fed_per", "optimizer=sgd", "cohort_size=2")
    for t in range(3):
        run.run_round(t)
        plain.run_round(t)
    for client, own in run.algorithm.own_weights.items():
        assert all(
            torch.equal(tensor, plain.algorithm.own_weights[client][name]) for name, tensor in own.items()
        )
