"""Algorithms beside the first five: bytes in closed form, both engines alike, and what each is equal to."""

from functools import cache, partial
from itertools import count
from typing import Any
from weakref import finalize

import pytest
import torch
import torch.nn.functional as F

from fedsplit.algorithms.ampere import Ampere
from fedsplit.algorithms.round_load import Population, RoundLoad
from fedsplit.building.process import prepare_process
from fedsplit.errors import NonFinite, UserError
from fedsplit.parties.messages import Upload
from fedsplit.randomness import generator
from fedsplit.recording.ledger import DIRECTIONS, KINDS
from fedsplit.state.weights import Weights
from fedsplit.training.experiment import Experiment
from tests.configurations import configuration
from tests.conftest import METHODS, TINY, Build, Configure
from tests.oracles.plain_loops import PlainLoop, sgd

Z, A = 4 * 256, 4 * (256 * 10 + 10)
C, S = 4 * (8 * 9 + 8 + 16 * 8 * 9 + 16), 4 * (256 * 64 + 64 + 64 * 10 + 10)
M, N = 3, 130
"""Bytes of a sample's smashed data, of auxiliary, client and server model; clients and samples of `TINY`."""

NORMED = (
    "model._target_=tests.parties.test_vectorized.normed",
    "model.cut=relu1",
    "auxiliary=linear",
    "dataset.max_train=60",
)
"""A small model with batch normalisation."""


@cache
def ran(*overrides: str) -> Experiment:
    """A tiny run of three rounds that several tests look at."""
    config = configuration(*TINY, *overrides)
    prepare_process(config)
    run = Experiment(config)
    for t in range(3):
        run.records.append(run.run_round(t))
    return run


def assert_close(ours: Weights, theirs: Weights, tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=tolerance, msg=name)


def closed_forms(algorithm: str) -> list[dict[tuple[str, str], int]]:
    """Bytes of each of three rounds, by direction and kind."""
    both = {(d, "client_weights"): M * C for d in DIRECTIONS}
    uploads = {("up", "smashed"): N * Z, ("up", "labels"): N}
    auxiliary = {(d, "auxiliary_weights"): M * A for d in DIRECTIONS}
    full = {(d, "full_weights"): M * (C + S) for d in DIRECTIONS}
    gradients = {("down", "cut_gradient"): N * Z}
    if algorithm == "ampere":
        return [both | auxiliary, uploads | {("down", "client_weights"): M * C}, {}]
    if algorithm == "ho_sfl":  # two probes, six steps
        answers = {(d, "scalars"): M * 6 * 8 for d in DIRECTIONS} | {("down", "seeds"): M * 6 * 8}
        later = uploads | answers | gradients
        return [later | {("down", "client_weights"): M * C}, later, later]
    of_their_own = {
        "scaffold": full | {(d, "control_variates"): M * (C + S) for d in DIRECTIONS},
        # one gradient a step for all; the largest client has 44 samples
        "sglr": both | uploads | {("down", "cut_gradient"): 44 * Z},
        "lgl_sl": both | uploads | auxiliary,
        "heron": both | uploads | auxiliary,
        "splitfed_v3": uploads | gradients,
        "fed_per": both,
    }
    others = full if algorithm.startswith("fed_") else both | uploads | gradients
    return [of_their_own.get(algorithm, others)] * 3


@pytest.mark.parametrize("algorithm", METHODS)
def test_bytes_of_every_round_are_the_closed_form_and_that_of_the_algorithm_itself(algorithm: str) -> None:
    run = ran(f"algorithm={algorithm}", *METHODS[algorithm])
    expected = closed_forms(algorithm)
    for record, each in zip(run.records, expected, strict=True):
        counted = {(d, kind): record.bytes[d][kind] for d in DIRECTIONS for kind in KINDS}
        assert counted == dict.fromkeys(counted, 0) | each
    totals = [sum(each.values()) for each in expected]
    of_settings: dict[str, Any] = {"sglr": {"phi": 1.0}, "ho_sfl": {"probes": 2}}
    load = partial(type(run.algorithm).round_load, **of_settings.get(algorithm, {}))
    assert load(terms_of(run)) == totals[0 if algorithm == "ampere" else -1]


def terms_of(run: Experiment) -> RoundLoad:
    models = run.parts.models
    labels = run.parts.data.dataset.objective.labels()
    population = Population(run.parts.sample_counts, M, 8, 1, 1, 1, labels)
    return RoundLoad(
        population,
        run.parts.quantization,
        models.smashed_shape,
        {name: each for part in models.halves.at_client for name, each in part.state_dict().items()},
        models.halves.server.state_dict(),
        models.auxiliary.state_dict() if models.auxiliary else {},
        models.trunk_shapes and models.trunk_shapes[0],
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("algorithm", [name for name in METHODS if name != "vanilla_sl"])
def test_vectorized_engine_gives_the_losses_and_weights_of_the_sequential_one(
    tiny: Build, algorithm: str
) -> None:
    settings = [f"algorithm={algorithm}", *METHODS[algorithm], "optimizer=sgd", "dataset.max_train=60"]
    settings += ["distribution=dirichlet", "distribution.alpha=0.5"]
    runs = [tiny(*settings, f"engine={engine}") for engine in ("sequential", "vectorized")]
    for t in range(2):
        ours, theirs = (run.run_round(t) for run in runs)
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-12)
        assert ours.bytes == theirs.bytes
    assert_close(*(run.algorithm.full_weights() for run in runs), 1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("algorithm", ["vanilla_sl", "splitfed_v2"])
def test_split_learning_with_one_client_is_centralised_training(tiny: Build, algorithm: str) -> None:
    run = tiny(f"algorithm={algorithm}", "num_clients=1", "dataset.max_train=50", "optimizer=sgd")
    reference = PlainLoop(run)
    stepper = sgd(reference.client, reference.server)
    for t in range(2):
        run.run_round(t)
        for _, x, y in reference.batches(t, 0):
            stepper.zero_grad()
            F.cross_entropy(reference.server(reference.client(x)), y).backward()
            stepper.step()
    assert_close(run.algorithm.full_weights(), reference.full_weights(), 1e-10)


@pytest.mark.usefixtures("float64")
def test_vanilla_sl_is_one_model_that_goes_from_client_to_client(tiny: Build) -> None:
    run = tiny("algorithm=vanilla_sl", "optimizer=sgd")
    reference = PlainLoop(run)
    stepper = sgd(reference.client, reference.server)
    for t in range(2):
        run.run_round(t)
        for client in torch.randperm(M, generator=generator(0, "client order", round=t)).tolist():
            for _, x, y in reference.batches(t, client):
                stepper.zero_grad()
                F.cross_entropy(reference.server(reference.client(x)), y).backward()
                stepper.step()
    assert_close(run.algorithm.full_weights(), reference.full_weights(), 1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("scale", ["own", "union"])
def test_minibatch_sfl_of_one_batch_a_client_is_the_step_on_all_of_them(tiny: Build, scale: str) -> None:
    run = tiny("algorithm=minibatch_sfl", f"algorithm.scale={scale}", "optimizer=sgd", "batch_size=50")
    reference = PlainLoop(run)
    stepper = sgd(reference.client, reference.server)
    start = run.algorithm.client_weights
    run.run_round(0)
    batches = [next(iter(reference.batches(0, client))) for client in range(M)]
    x, y = torch.cat([x for _, x, _ in batches]), torch.cat([y for *_, y in batches])
    F.cross_entropy(reference.server(reference.client(x)), y).backward()
    stepper.step()
    assert_close(run.algorithm.server.weights(), reference.server.state_dict(), 1e-10)
    # a client of n_i samples has n_i / N of the gradient of its own mean, and n_i / N of the average
    shares = [count / N for count in reference.counts] if scale == "union" else [1.0] * M
    mean = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    for (_, own, labels), share, size in zip(batches, shares, reference.counts, strict=True):
        client, server = run.parts.models.halves.client, run.parts.models.halves.server
        loss = F.cross_entropy(server(client(own)), labels) * share
        for name, gradient in zip(
            dict(client.named_parameters()),
            torch.autograd.grad(loss, list(client.parameters())),
            strict=True,
        ):
            mean[name] += size / N * gradient
    assert_close(run.algorithm.client_weights, {k: start[k] - 1e-2 * mean[k] for k in start}, 1e-10)
    if scale == "own":
        assert_close(run.algorithm.client_weights, dict(reference.client.state_dict()), 1e-10)


@pytest.mark.usefixtures("float64")
def test_cycle_sl_steps_the_server_on_shuffled_batches_and_then_gives_gradients(tiny: Build) -> None:
    run = tiny("algorithm=cycle_sl", "optimizer=sgd")
    reference = PlainLoop(run, sgd)
    run.run_round(0)
    for client in reference.clients:
        client.load_state_dict(reference.client.state_dict())
    rounds = [list(reference.batches(0, client)) for client in range(M)]
    for step in count():
        present = [(c, *each[step][1:]) for c, each in enumerate(rounds) if step < len(each)]
        if not present:
            break
        smashed = [reference.clients[c](x) for c, x, _ in present]
        z, y = torch.cat([each.detach() for each in smashed]), torch.cat([y for *_, y in present])
        draw = generator(0, "resampled smashed data", step=step)
        for part in torch.randperm(len(y), generator=draw).tensor_split(len(present)):
            reference.step_server(z[part], y[part])
        for (c, _, labels), out in zip(present, smashed, strict=True):
            reference.client_steppers[c].zero_grad()
            F.cross_entropy(reference.server(out), labels).backward()
            reference.client_steppers[c].step()
    states = [client.state_dict() for client in reference.clients]
    counts = reference.counts
    mean = {k: sum(n * s[k] for n, s in zip(counts, states, strict=True)) / sum(counts) for k in states[0]}
    assert_close(run.algorithm.client_weights, mean, 1e-10)
    assert_close(run.algorithm.server.weights(), dict(reference.server.state_dict()), 1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("algorithm", ["fed_avgm", "fed_adam", "fed_yogi"])
def test_server_optimizer_moves_as_the_formula_says(tiny: Build, algorithm: str) -> None:
    """Two rounds; the same round of FedAvg from the same weights gives the difference."""
    run, plain = tiny(f"algorithm={algorithm}", "optimizer=sgd"), tiny("algorithm=fed_avg", "optimizer=sgd")
    first: Weights = {}
    second: Weights = {}
    for t in range(2):
        before = run.algorithm.full_weights()
        plain.algorithm.client_weights = {name: before[name] for name in plain.algorithm.client_weights}
        plain.algorithm.server.load(before)
        run.run_round(t)
        plain.run_round(t)
        ours, averaged = run.algorithm.full_weights(), plain.algorithm.full_weights()
        for name, weight in before.items():
            d = averaged[name] - weight
            m, v = first.get(name, torch.zeros_like(d)), second.get(name, torch.full_like(d, 1e-6))
            if algorithm == "fed_avgm":
                m = 0.9 * m + d
                step = m
            else:
                m = 0.9 * m + 0.1 * d
                towards = torch.where(v > d * d, -d * d, d * d) if algorithm == "fed_yogi" else d * d - v
                v = v + 0.01 * towards
                step = 0.01 * m / (v.sqrt() + 1e-3)
            first[name], second[name] = m, v
            torch.testing.assert_close(ours[name], weight + step, rtol=0, atol=1e-12, msg=name)


@pytest.mark.usefixtures("float64")
def test_fed_avgm_without_momentum_and_with_a_rate_of_one_is_fed_avg(tiny: Build) -> None:
    still = ["algorithm=fed_avgm", "algorithm.momentum=0", "algorithm.server_lr=1"]
    runs = [tiny(*NORMED, *each) for each in (["algorithm=fed_avg"], still)]
    for t in range(2):
        for run in runs:
            run.run_round(t)
    assert_close(*(run.algorithm.full_weights() for run in runs), 1e-10)


def test_clients_of_lgl_sl_are_those_of_cse_fsl() -> None:
    ours, theirs = ran("algorithm=lgl_sl"), ran("algorithm=cse_fsl")
    for name in ("client_weights", "auxiliary"):
        found, expected = getattr(ours.algorithm, name), getattr(theirs.algorithm, name)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.usefixtures("float64")
def test_server_of_lgl_sl_is_the_average_of_copies_that_step_on_every_batch(tiny: Build) -> None:
    run = tiny("algorithm=lgl_sl", "optimizer=sgd")
    reference = PlainLoop(run, sgd)
    reference.auxiliary_steppers = [sgd(module) for module in reference.auxiliaries]
    run.run_round(0)
    for c, server in enumerate(reference.servers):
        for _, x, y in reference.batches(0, c):
            z = reference.clients[c](x)
            steppers = reference.client_steppers[c], reference.auxiliary_steppers[c]
            for stepper in (*steppers, reference.server_steppers[c]):
                stepper.zero_grad()
            F.cross_entropy(reference.auxiliaries[c](z), y).backward()
            F.cross_entropy(server(z.detach()), y).backward()
            for stepper in (*steppers, reference.server_steppers[c]):
                stepper.step()
    states, counts = [server.state_dict() for server in reference.servers], reference.counts
    mean = {k: sum(n * s[k] for n, s in zip(counts, states, strict=True)) / sum(counts) for k in states[0]}
    assert_close(run.algorithm.server.weights(), mean, 1e-10)


@pytest.mark.usefixtures("float64")
def test_ampere_of_device_rounds_alone_is_fed_avg_of_client_and_auxiliary_model(tiny: Build) -> None:
    run = tiny("algorithm=ampere", "algorithm.device_rounds=2", "optimizer=sgd")
    reference = PlainLoop(run, sgd)
    reference.servers, reference.server = reference.auxiliaries, reference.auxiliary
    reference.server_steppers = [sgd(module) for module in reference.servers]
    before = run.algorithm.server.weights()
    for t in range(2):
        record = run.run_round(t)
        assert record.row()["evaluated_auxiliary"] == 1
        reference.fed_avg(t)
    assert_close(run.algorithm.client_weights, dict(reference.client.state_dict()), 1e-10)
    auxiliary = run.algorithm.auxiliary_weights()["auxiliary"]
    assert_close(auxiliary, dict(reference.auxiliary.state_dict()), 1e-10)
    assert_close(run.algorithm.server.weights(), before, 0)
    test = run.parts.data.dataset.test
    logits = reference.auxiliary(reference.client(test.inputs_at(slice(None))))
    assert record.test_accuracy == float((logits.argmax(1) == test.labels_at(slice(None))).double().mean())


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_ampere_uploads_every_sample_once_as_models_are_evaluated(tiny: Build, engine: str) -> None:
    settings = ["dataset.flip=true", "dataset.crop_padding=1", "local_epochs=2", "cohort_size=2"]
    run = tiny("algorithm=ampere", "algorithm.device_rounds=1", f"engine={engine}", *settings, *NORMED)
    for t in range(5):
        run.run_round(t)
    algorithm, data = run.algorithm, run.parts.data
    assert isinstance(algorithm, Ampere)
    client = run.parts.models.halves.client
    client.load_state_dict(algorithm.client_weights)
    clients: list[int] = []
    for kept in algorithm.uploads.values():
        clients += kept.clients
        samples = torch.cat([torch.as_tensor(data.shards[each]) for each in kept.clients])
        with torch.no_grad():
            expected = client.eval()(data.dataset.train.inputs_at(samples))
        client.train()
        assert len(kept.samples["y"]) == len(samples)
        found = kept.samples["z"].flatten(1)
        far = torch.cdist(found, expected.flatten(1), compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        assert float(far.max()) < 1e-4
    assert sorted(clients) == [0, 1, 2]


def test_minibatch_whose_loss_is_not_finite_blames_no_client(tiny: Build) -> None:
    run = tiny("algorithm=minibatch_sfl", "server_optimizer=sgd", "server_optimizer.lr=1e30", "rounds=1")
    with pytest.raises(NonFinite) as told:
        run.run_round(0)
    assert told.value.client is None or told.value.what != "loss"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("algorithm=minibatch_sfl algorithm.scale=half", "algorithm.scale=half: must be one of own, union"),
        (
            "algorithm=ampere algorithm.device_rounds=0",
            "device_rounds=0: must be a whole number greater than 0",
        ),
        ("algorithm=fed_adam algorithm.tau=0", "algorithm.tau=0: must be a number greater than 0"),
        ("algorithm=fed_yogi algorithm.betas=[0.9,1]", r"algorithm.betas=\[0.9, 1\]: must be"),
        (
            "algorithm=fed_avgm algorithm.momentum=1",
            "algorithm.momentum=1: must be a number from 0 to below 1",
        ),
        (
            "algorithm.align_when=never",
            "algorithm.align_when=never: must be one of interval, error, geometric",
        ),
        ("algorithm.align_error=-1", "algorithm.align_error=-1: must be a number, 0 or greater or null"),
        ("algorithm=vanilla_sl algorithm.scale=own", "algorithm.scale"),
    ],
)
def test_wrong_argument_of_an_algorithm_is_refused(configured: Configure, override: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        configured(*override.split())


def aligned_in(run: Experiment, rounds: int) -> list[int]:
    """Rounds in which any client aligned, from the bytes of auxiliary models."""
    records = [run.run_round(t) for t in range(rounds)]
    return [record.round for record in records if record.bytes["down"]["auxiliary_weights"]]


@pytest.mark.parametrize(
    ("settings", "rounds"),
    [
        (["algorithm.align_when=error", "algorithm.align_error=0"], [0, 1, 2, 3]),
        # one upload a round, which goes before the alignment
        (["algorithm.align_when=error", "algorithm.align_error=0", "batch_size=50"], [0, 1, 2, 3]),
        (["algorithm.align_when=error", "algorithm.align_error=null"], [0]),
        (["algorithm.align_when=error", "algorithm.align_error=1e30"], [0]),
        (["algorithm.align_when=geometric"], [0, 1, 3]),
    ],
)
def test_clients_align_in_the_rounds_that_align_when_says(
    tiny: Build, settings: list[str], rounds: list[int]
) -> None:
    assert aligned_in(tiny("algorithm.server_update_interval=2", *settings), 4) == rounds


def test_alignment_by_error_of_zero_gives_the_bits_of_an_interval_of_one(tiny: Build) -> None:
    zero = tiny("algorithm.align_when=error", "algorithm.align_error=0")
    every = tiny("algorithm.align_interval=1")
    for t in range(2):
        zero.run_round(t)
        every.run_round(t)
    ours, theirs = (run.algorithm.full_weights() for run in (zero, every))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_clients_align_by_error_when_the_error_of_the_round_before_was_larger(tiny: Build) -> None:
    """The error of a round, by the auxiliary model's own gradient and the server's, differentiated here."""
    run = tiny("algorithm.align_when=error", "algorithm.align_error=null", "num_clients=1", "batch_size=26")
    uploads = []
    step = run.algorithm.server.step

    def watched(t: int, upload):  # type: ignore[no-untyped-def]
        uploads.append((upload, run.algorithm.server.weights()))
        return step(t, upload)

    run.algorithm.server.step = watched  # type: ignore[method-assign]
    run.algorithm.server_update_interval = 2  # type: ignore[attr-defined]
    run.run_round(0)
    auxiliary, server = run.parts.models.auxiliary, run.parts.models.halves.server
    assert auxiliary is not None
    auxiliary.load_state_dict(run.algorithm.auxiliary_weights()["auxiliary-0"])
    sums = torch.zeros(2, dtype=torch.float64)
    for upload, weights in uploads[1:]:  # the first went before the alignment
        server.load_state_dict(weights)
        gradients = []
        for module in (auxiliary, server):
            z = upload.z.clone().requires_grad_()
            (dz,) = torch.autograd.grad(F.cross_entropy(module(z), upload.y, reduction="sum"), z)
            gradients.append(dz.double())
        estimate, true = gradients
        sums += torch.stack([(estimate - true).square().sum(), true.square().sum()])
    error = float(sums[0] / sums[1])
    assert run.algorithm._errors == {0: pytest.approx(error, rel=1e-4)}  # type: ignore[attr-defined]
    for most, due in ((error * 1.01, False), (error * 0.99, True)):
        run.algorithm.align_error = most  # type: ignore[attr-defined]
        assert run.algorithm.is_due(0, 1) == due  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("algorithm", "engine", "most"),
    [("cse_fsl", "sequential", 1), ("lgl_sl", "sequential", 1), ("lgl_sl", "vectorized", M + 1)],
)
def test_uploads_of_a_round_are_stepped_on_while_clients_train(
    tiny: Build, monkeypatch: pytest.MonkeyPatch, algorithm: str, engine: str, most: int
) -> None:
    """One batch a client is in memory, of all clients where these are computed at once."""
    q = ["algorithm.server_update_interval=1"] if algorithm == "cse_fsl" else []
    run = tiny(f"algorithm={algorithm}", f"engine={engine}", *q)
    alive: list[int] = []
    held: list[int] = []
    make = Upload.__init__

    def made(upload: Upload, *arguments: Any) -> None:
        make(upload, *arguments)
        alive.append(0)
        held.append(len(alive))
        finalize(upload, alive.pop)

    monkeypatch.setattr(Upload, "__init__", made)
    run.run_round(0)
    assert len(held) >= 3 * 6
    assert max(held) <= 2 * most + 1  # as it was made and as it arrived
