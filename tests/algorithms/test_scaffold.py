"""SCAFFOLD: what its first round is, its rule in the words of the paper, and what it does not go with."""

import pytest
import torch
import torch.nn.functional as F

from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.algorithms.scaffold import Scaffold
from fedsplit.errors import UserError
from fedsplit.recording.ledger import DIRECTIONS
from fedsplit.state.weights import Weights
from tests.algorithms.test_methods import NORMED, terms_of
from tests.conftest import Build
from tests.oracles.plain_loops import PlainLoop, sgd

M, RATE = 3, 1e-2


def test_first_round_of_scaffold_is_that_of_fed_avg_bit_for_bit(tiny: Build) -> None:
    ours, theirs = tiny("algorithm=scaffold"), tiny("algorithm=fed_avg")
    assert ours.run_round(0).train_loss == theirs.run_round(0).train_loss
    full, expected = ours.algorithm.full_weights(), theirs.algorithm.full_weights()
    assert [name for name, tensor in full.items() if not torch.equal(tensor, expected[name])] == []
    ours.run_round(1)
    theirs.run_round(1)
    full, expected = ours.algorithm.full_weights(), theirs.algorithm.full_weights()
    assert not any(torch.equal(tensor, expected[name]) for name, tensor in full.items())


def averaged(of: list[Weights], counts: list[int]) -> Weights:
    total = sum(counts)
    return {k: sum(n / total * each[k] for n, each in zip(counts, of, strict=True)) for k in of[0]}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_scaffold_is_algorithm_1_of_the_paper_with_option_2(tiny: Build, engine: str) -> None:
    """Control variates by differences of weights, over steps and rate; two clients of three a round."""
    run = tiny("algorithm=scaffold", "optimizer=sgd", "cohort_size=2", f"engine={engine}")
    algorithm = run.algorithm
    assert isinstance(algorithm, Scaffold)
    reference = PlainLoop(run)
    halves = reference.client, reference.server
    parameters = {name: p for half in halves for name, p in half.named_parameters()}
    x = {name: p.detach().clone() for name, p in parameters.items()}
    c = {name: torch.zeros_like(p) for name, p in x.items()}
    own = [dict(c) for _ in range(M)]
    for t in range(4):
        run.run_round(t)
        cohort = list(run.parts.cohort_of(t))
        counts = [reference.counts[i] for i in cohort]
        ends, moves = [], []
        for i in cohort:
            for name, p in parameters.items():
                p.data.copy_(x[name])
            steps = list(reference.batches(t, i))
            for _, images, labels in steps:
                stepper = sgd(*halves)
                stepper.zero_grad()
                F.cross_entropy(reference.server(reference.client(images)), labels).backward()
                for name, p in parameters.items():
                    assert p.grad is not None
                    p.grad += c[name] - own[i][name]
                stepper.step()
            y = {name: p.detach().clone() for name, p in parameters.items()}
            new = {k: own[i][k] - c[k] + (x[k] - y[k]) / (len(steps) * RATE) for k in x}
            ends.append(y)
            moves.append({k: new[k] - own[i][k] for k in x})
            own[i] = new
        x, moved = averaged(ends, counts), averaged(moves, counts)
        c = {k: c[k] + len(cohort) / M * moved[k] for k in c}
        for name, tensor in algorithm.full_weights().items():
            torch.testing.assert_close(tensor, x[name], rtol=0, atol=1e-10, msg=name)
            torch.testing.assert_close(algorithm.control[name], c[name], rtol=0, atol=1e-10, msg=name)


def test_bytes_of_control_variates_are_those_of_parameters_without_buffers(tiny: Build) -> None:
    run = tiny("algorithm=scaffold", *NORMED)
    buffers = {
        name
        for half in vars(run.parts.models.halves).values()
        if isinstance(half, torch.nn.Module)
        for name, _ in half.named_buffers()
    }
    assert buffers
    full = run.algorithm.full_weights()
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in full.items()}
    learned = sum(size for name, size in sizes.items() if name not in buffers)
    bytes_of = run.run_round(0).bytes
    for direction in DIRECTIONS:
        assert bytes_of[direction]["full_weights"] == M * sum(sizes.values())
        assert bytes_of[direction]["control_variates"] == M * learned
    terms = terms_of(run)
    terms = RoundLoad(**{**vars(terms), "buffers": buffers})
    assert Scaffold.round_load(terms) == 2 * M * (sum(sizes.values()) + learned)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["client.stateless=true"], "client.stateless=True: must be false: clients of algorithm=scaffold"),
        (
            ["algorithm.local_rule=prox"],
            "algorithm.local_rule=prox: must be plain: clients of algorithm=scaffold",
        ),
    ],
)
def test_scaffold_refuses_clients_that_keep_nothing_or_follow_another_rule(
    tiny: Build, overrides: list[str], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        tiny("algorithm=scaffold", *overrides)


def test_round_of_scaffold_takes_longer_by_what_its_control_variates_take_to_send(tiny: Build) -> None:
    network = ["network=custom", "network.up_mbps=8", "network.down_mbps=4"]
    ours, theirs = (tiny(f"algorithm={each}", *network).run_round(0) for each in ("scaffold", "fed_avg"))
    assert ours.simulated_seconds is not None
    assert theirs.simulated_seconds is not None
    sent = ours.bytes["up"]["control_variates"] / M / 1e6
    assert ours.simulated_seconds - theirs.simulated_seconds == pytest.approx(sent + 2 * sent)
