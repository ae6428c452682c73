"""SGLR: what it is without its two ideas, a plain loop with them, and what its broadcasts count."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations, count, zip_longest

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsplit.algorithms.minibatch_sfl import MinibatchSfl
from fedsplit.algorithms.round_load import shares_of_largest
from fedsplit.algorithms.sglr import Sglr
from fedsplit.data.batches import batch_slices
from fedsplit.errors import UserError
from fedsplit.state.weights import Weights, average
from fedsplit.training.experiment import Experiment
from tests.algorithms.test_methods import C, M, N, Z, assert_close, terms_of
from tests.conftest import Build, Configure
from tests.oracles.plain_loops import PlainLoop, sgd

ALPHA = 0.7


def receivers(run: Experiment, t: int) -> list[int]:
    """The clients that share a gradient in a round, two of the three."""
    assert isinstance(run.algorithm, Sglr)
    found = run.algorithm.draw_receivers(t, run.transport.cohort(t, range(M)))  # type: ignore[attr-defined]
    assert len(found) == 2
    return sorted(found)


def test_sglr_without_its_two_ideas_is_minibatch_sfl_bit_for_bit(tiny: Build) -> None:
    ours = tiny("algorithm=sglr", "algorithm.phi=0", "algorithm.alpha=0")
    theirs = tiny("algorithm=minibatch_sfl")
    for t in range(2):
        assert ours.run_round(t).bytes == theirs.run_round(t).bytes
    full, expected = ours.algorithm.full_weights(), theirs.algorithm.full_weights()
    assert [name for name, tensor in full.items() if not torch.equal(tensor, expected[name])] == []


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_sglr_steps_a_faster_server_and_gives_drawn_clients_the_mean_of_their_gradients(
    tiny: Build, engine: str
) -> None:
    run = tiny("algorithm=sglr", f"algorithm.alpha={ALPHA}", "optimizer=sgd", f"engine={engine}")
    reference = PlainLoop(run)
    for t in range(2):
        run.run_round(t)
        drawn = receivers(run, t)
        for client in reference.clients:
            client.load_state_dict(reference.client.state_dict())
        rounds = [list(reference.batches(t, client)) for client in range(M)]
        for step in count():
            present = [c for c, each in enumerate(rounds) if step < len(each)]
            if not present:
                break
            smashed = {c: reference.clients[c](rounds[c][step][1]) for c in present}
            leaves = {c: z.detach().requires_grad_() for c, z in smashed.items()}
            y = {c: rounds[c][step][2] for c in present}
            together = torch.cat([leaves[c] for c in present]), torch.cat([y[c] for c in present])
            stepper = torch.optim.SGD(reference.server.parameters(), lr=1e-2 * len(present) ** ALPHA)
            stepper.zero_grad()
            loss = F.cross_entropy(reference.server(together[0]), together[1])
            loss.backward()
            dz = {c: z.grad * len(together[1]) / len(y[c]) for c, z in leaves.items() if z.grad is not None}
            stepper.step()
            for c, own in with_means(dz, [c for c in present if c in drawn]).items():
                stepper = sgd(reference.clients[c])
                stepper.zero_grad()
                smashed[c].backward(own)
                stepper.step()
        states, counts = [each.state_dict() for each in reference.clients], reference.counts
        mean = {k: sum(n * s[k] for n, s in zip(counts, states, strict=True)) / N for k in states[0]}
        reference.client.load_state_dict(mean)
        assert_close(run.algorithm.client_weights, mean, 1e-10)
        assert_close(run.algorithm.server.weights(), dict(reference.server.state_dict()), 1e-10)


def with_means(dz: Mapping[int, Tensor], drawn: Sequence[int]) -> dict[int, Tensor]:
    """Cut gradients by client; of drawn ones, row by row the mean over those that have the row."""
    found = dict(dz)
    for c in drawn:
        rows = [[dz[d][j] for d in drawn if j < len(dz[d])] for j in range(len(dz[c]))]
        found[c] = torch.stack([torch.stack(each).mean(0) for each in rows])
    return found


def test_broadcast_counts_once_and_what_a_network_without_one_sends_is_kept_apart(tiny: Build) -> None:
    run = tiny("algorithm=sglr", "dataset.max_train=131")  # 44, 44 and 43 samples
    load = 0
    for t in range(3):
        record, drawn = run.run_round(t), receivers(run, t)
        counts = run.parts.sample_counts
        longest = max(counts[c] for c in drawn)
        own = sum(n for c, n in enumerate(counts) if c not in drawn)
        assert record.bytes["down"]["cut_gradient"] == (own + longest) * Z
        assert record.copies == longest * Z
        assert record.row()["broadcast_copies"] == record.copies
        load += 2 * M * C + 131 * Z + 131 + record.bytes["down"]["cut_gradient"]
        assert record.load == load


def test_clients_that_share_a_gradient_are_drawn_anew_every_round(tiny: Build) -> None:
    run = tiny("algorithm=sglr")
    drawn = [frozenset(receivers(run, t)) for t in range(20)]
    assert set(drawn) == set(map(frozenset, combinations(range(M), 2)))
    assert receivers(tiny("algorithm=sglr"), 7) == sorted(drawn[7])


def test_closed_form_is_the_mean_over_all_draws_of_clients_that_share_a_gradient(tiny: Build) -> None:
    run = tiny("algorithm=sglr", "dataset.max_train=131", "distribution=dirichlet", "distribution.alpha=0.3")
    counts = run.parts.sample_counts
    assert len(set(counts)) == M
    loads = []
    for drawn in combinations(range(M), 2):
        sizes = [[piece.stop - piece.start for piece in batch_slices(counts[c], 8)] for c in drawn]
        longest = [max(step) for step in zip_longest(*sizes, fillvalue=0)]
        own = sum(n for c, n in enumerate(counts) if c not in drawn)
        loads.append(2 * M * C + 131 * Z + 131 + (own + sum(longest)) * Z)
    assert Sglr.round_load(terms_of(run), phi=2 / 3) == pytest.approx(sum(loads) / len(loads), rel=1e-12)
    assert Sglr.round_load(terms_of(run), phi=0) == MinibatchSfl.round_load(terms_of(run))


def test_shares_of_the_largest_of_some_drawn_values_are_those_among_all_draws() -> None:
    values = [3, 8, 8, 5, 0]
    draws = [max(each) for each in combinations(values, 3)]
    shares = shares_of_largest({0: 1, 3: 1, 5: 1, 8: 2}, 3)
    assert shares == {value: Fraction(draws.count(value), len(draws)) for value in shares}


def test_round_of_a_broadcast_takes_as_long_as_one_of_gradients_of_the_same_size(tiny: Build) -> None:
    settings = ["dataset.max_train=120", "network=wifi"]
    ours, theirs = tiny("algorithm=sglr", *settings), tiny("algorithm=minibatch_sfl", *settings)
    assert ours.run_round(0).simulated_seconds == theirs.run_round(0).simulated_seconds


def test_fraction_of_clients_that_share_a_gradient_is_from_0_to_1(configured: Configure) -> None:
    with pytest.raises(UserError, match=r"algorithm\.phi=1\.5: must be a number from 0 to 1"):
        configured("algorithm=sglr", "algorithm.phi=1.5")


def test_sglr_with_models_of_clients_own_sends_none_and_differs_by_the_average_alone(tiny: Build) -> None:
    averaged, own = tiny("algorithm=sglr"), tiny("algorithm=sglr", "algorithm.average_clients=false")
    first, record = averaged.run_round(0), own.run_round(0)
    clients = len(own.parts.sample_counts)
    models = own.algorithm.models(clients)
    client_models = [{name: each[name] for name in own.algorithm.client_weights} for each in models]
    assert_close(average(client_models, own.parts.sample_counts), averaged.algorithm.client_weights, 1e-6)
    assert not torch.equal(client_models[0]["conv1.weight"], client_models[1]["conv1.weight"])
    for direction, kinds in record.bytes.items():
        assert kinds["client_weights"] == 0
        assert kinds == first.bytes[direction] | {"client_weights": 0}
        assert first.bytes[direction]["client_weights"] > 0
    assert record.observed > 0
    again = tiny("algorithm=sglr", "algorithm.average_clients=false")
    own.records.append(record)
    again.restore(own.checkpoint())
    own.run_round(1)
    again.run_round(1)
    for one, other in zip(own.algorithm.models(clients), again.algorithm.models(clients), strict=True):
        assert_same_weights(one, other)
    with pytest.raises(UserError, match=r"client\.stateless=True: must be false with this algorithm"):
        tiny("algorithm=sglr", "algorithm.average_clients=false", "client.stateless=true")


def assert_same_weights(one: Weights, other: Weights) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
