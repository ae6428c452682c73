"""HO-SFL: its closed form with a linear client, one model at all clients, and what it sends."""

from collections import OrderedDict
from itertools import count, product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedsplit.algorithms.ho_sfl import HoSfl
from fedsplit.building.client_cost import build_client_cost
from fedsplit.data.batches import batch_slices
from fedsplit.errors import UserError
from fedsplit.parties.local_rule import standard_normal
from fedsplit.training.experiment import Experiment
from tests.algorithms.test_methods import NORMED, C, M, Z, assert_close, terms_of
from tests.conftest import Build
from tests.oracles.plain_loops import PlainLoop, sgd

PROBES, RATE = 3, 1e-2
FEW = [f"algorithm.probes={PROBES}", "optimizer=sgd"]


def linear(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """Linear in its weights before the cut, and not behind it."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(channels * image_size**2, 6),
            relu=nn.ReLU(),
            fc2=nn.Linear(6, num_classes),
        )
    )


LINEAR = (f"model._target_={__name__}.linear", "model.cut=fc1", "auxiliary=linear")


def hosfl(run: Experiment) -> HoSfl:
    assert isinstance(run.algorithm, HoSfl)
    return run.algorithm


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_ho_sfl_over_a_linear_client_is_its_closed_form(tiny: Build, engine: str) -> None:
    """The mean over directions of `<u, G> u`, with the gradient G of the mean loss of all batches."""
    run = tiny("algorithm=ho_sfl", *FEW, "algorithm.mu=0.5", *LINEAR, f"engine={engine}")
    algorithm, reference = hosfl(run), PlainLoop(run)
    parameters = list(reference.client.parameters())
    for t in range(2):
        run.run_round(t)
        rounds = [list(reference.batches(t, client)) for client in range(M)]
        for step in count():
            batches = [each[step][1:] for each in rounds if step < len(each)]
            if not batches:
                break
            x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
            stepper = sgd(reference.client, reference.server)
            stepper.zero_grad()
            F.cross_entropy(reference.server(reference.client(x)), y).backward()
            true = [p.grad.clone() for p in parameters if p.grad is not None]
            for p in parameters:
                assert p.grad is not None
                p.grad.zero_()
            for probe in range(PROBES):
                drawn = standard_normal(parameters, algorithm.probe_seed(t, step, probe), 0)
                slope = sum((u * each).sum() for u, each in zip(drawn, true, strict=True))
                for p, u in zip(parameters, drawn, strict=True):
                    assert p.grad is not None
                    p.grad += slope * u / PROBES
            stepper.step()
        assert_close(algorithm.client_weights, dict(reference.client.state_dict()), 1e-10)
        assert_close(algorithm.server.weights(), dict(reference.server.state_dict()), 1e-10)


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adam"],
        ["optimizer=sgd", "cohort_size=2", "quant=int8"],
        ["optimizer=adam", "cohort_size=2", "client.stateless=true"],
    ],
    ids=" ".join,
)
def test_all_clients_of_a_round_hold_the_model_of_the_server_bit_for_bit(
    tiny: Build, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    """Those that join late too; they alone are sent weights."""
    run = tiny("algorithm=ho_sfl", "algorithm.probes=2", "engine=sequential", *overrides)
    before: set[int] = set()
    forget = run.rounds.forget
    monkeypatch.setattr(run.rounds, "forget", lambda: None)  # it comes below, once clients were looked at
    for t in range(4):
        record = run.run_round(t)
        cohort = list(run.parts.cohort_of(t))
        held = run.parts.engine.weights("client", cohort)
        own = run.algorithm.client_weights
        assert all(torch.equal(each[name], tensor) for each in held for name, tensor in own.items())
        joined = set(cohort) if "client.stateless=true" in overrides else set(cohort) - before
        assert record.bytes["down"]["client_weights"] == C * len(joined)
        assert record.bytes["up"]["client_weights"] == 0
        before = set(cohort)
        forget()


def test_bytes_of_seeds_and_scalars_are_four_of_each_for_a_probe_client_and_step(tiny: Build) -> None:
    settings = ["distribution=dirichlet", "distribution.alpha=0.3", "seed=1"]
    run = tiny("algorithm=ho_sfl", *FEW, *settings)
    steps = [len(batch_slices(samples, 8)) for samples in run.parts.sample_counts]
    assert len(set(steps)) == M
    loads = []
    for t in range(2):
        record = run.run_round(t)
        loads.append(record.load)
        assert record.bytes["up"]["scalars"] == 4 * PROBES * sum(steps)
        for kind in ("seeds", "scalars"):
            assert record.bytes["down"][kind] == 4 * PROBES * M * max(steps)  # to clients without a step too
    assert HoSfl.round_load(terms_of(run), probes=PROBES) == loads[1] - loads[0]


def test_every_probe_step_and_round_has_a_direction_of_its_own(tiny: Build) -> None:
    algorithm = hosfl(tiny("algorithm=ho_sfl", *FEW))
    seeds = {algorithm.probe_seed(t, step, probe) for t, step, probe in product(range(3), repeat=3)}
    assert len(seeds) == 27
    assert 0 <= min(seeds) <= max(seeds) < 2**31


def test_client_keeps_its_inputs_and_smashed_data_alone_until_its_slopes_are_asked_for(tiny: Build) -> None:
    small, large = (
        build_client_cost(tiny("algorithm=ho_sfl", f"batch_size={size}").parts, trains_head=False)
        for size in (4, 10)
    )
    assert large.waiting - small.waiting == (10 - 4) * (4 * 64 + Z)
    assert large.memory - small.memory == large.waiting - small.waiting


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (list(NORMED), r"^model=\S+ has norm1\.running_mean before the cut, which no seed moves"),
        (["cohort_size=2"], "^client_optimizer=Adam: keeps a state, which clients left out"),
        (["defence=gaussian", "defence.clip=1"], "defence=gaussian: must be none: it protects smashed"),
        (
            ["algorithm.local_rule=prox"],
            "algorithm.local_rule=prox: must be plain: clients of algorithm=ho_sfl",
        ),
    ],
)
def test_ho_sfl_refuses_what_its_scalars_cannot_carry(tiny: Build, overrides: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        tiny("algorithm=ho_sfl", *overrides)


def test_round_takes_two_round_trips_a_step_and_a_forward_pass_a_probe(tiny: Build) -> None:
    network = ["network.up_mbps=8", "network.down_mbps=4", "network.latency_s=0.25", "network.client_gmacs=1"]
    settings = ["num_clients=1", "dataset.max_train=24", "network=custom", "network.server_gmacs=2", *network]
    run = tiny("algorithm=ho_sfl", *FEW, *settings)
    record, samples, steps = run.run_round(0), 24, 3
    assert run.parts.clock is not None
    work = run.parts.clock.work
    up, down = (sum(record.bytes[d].values()) / 1e6 for d in ("up", "down"))
    computed = samples * (work.client * (1 + PROBES) / 1e9 + 3 * work.server / 2e9)
    trips = 0.25 * (1 + 4 * steps)  # weights; then smashed data, gradients, slopes and their sum
    assert record.simulated_seconds == pytest.approx(up + 2 * down + computed + trips)
