"""Distance correlation and its gradient: closed forms, slow loops, autograd through everything."""

from math import asin, pi, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsplit.privacy.defences.nopeek import NoPeek
from fedsplit.privacy.distance_correlation import distance_correlation
from tests.conftest import Build
from tests.oracles.plain_loops import PlainLoop, sgd

STRENGTH = 0.7


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def slowly(x: Tensor, z: Tensor) -> float:
    """Distance correlation by its definition, in loops."""

    def centred(points: list[Tensor]) -> list[list[float]]:
        distances = [[float((a - b).square().sum()) ** 0.5 for b in points] for a in points]
        rows = [sum(row) / len(row) for row in distances]
        mean = sum(rows) / len(rows)
        return [
            [distances[i][j] - rows[i] - rows[j] + mean for j in range(len(rows))] for i in range(len(rows))
        ]

    a, b = centred(list(x.flatten(1))), centred(list(z.flatten(1)))

    def product(p: list[list[float]], q: list[list[float]]) -> float:
        return sum(u * v for row, other in zip(p, q, strict=True) for u, v in zip(row, other, strict=True))

    return sqrt(product(a, b) / sqrt(product(a, a) * product(b, b)))


def test_distance_correlation_is_that_of_its_definition_and_one_of_rotated_copies() -> None:
    x, z = drawn(7, 2, 3), drawn(7, 4, seed=1)
    assert float(distance_correlation(x, z)) == pytest.approx(slowly(x, z), abs=1e-12)
    rotation = torch.linalg.qr(drawn(6, 6, seed=2)).Q
    assert float(distance_correlation(x, 3 * x.flatten(1) @ rotation + 5)) == pytest.approx(1, abs=1e-9)
    assert float(distance_correlation(x, torch.ones(7, 4, dtype=torch.float64))) == 0
    assert float(distance_correlation(x[:1], z[:1])) == 0


def test_distance_correlation_of_normals_approaches_the_closed_form() -> None:
    """Szekely, Rizzo and Bakirov, 2007, Theorem 7."""
    rho = 0.6
    x, noise = drawn(2000, 1), drawn(2000, 1, seed=1)
    x = (x - x.mean()) / x.std()
    noise = noise - noise.mean()
    noise = noise - x * (x * noise).sum() / (x * x).sum()  # so that the sample is correlated exactly so
    noise = noise / noise.std()
    square = float(distance_correlation(x, rho * x + sqrt(1 - rho**2) * noise)) ** 2
    expected = rho * asin(rho) + sqrt(1 - rho**2) - rho * asin(rho / 2) - sqrt(4 - rho**2) + 1
    assert square == pytest.approx(expected / (1 + pi / 3 - sqrt(3)), abs=0.02)


def test_extra_gradient_is_that_of_finite_differences() -> None:
    x, z = drawn(5, 3), drawn(5, 2, seed=1)
    found = NoPeek(strength=STRENGTH).extra_gradient(x, z)
    for place in range(z.numel()):
        moved = torch.zeros_like(z).view(-1)
        moved[place] = 1e-6
        up, down = (distance_correlation(x, z + sign * moved.view_as(z)) for sign in (1, -1))
        assert float(found.view(-1)[place]) == pytest.approx(STRENGTH * float(up - down) / 2e-6, abs=1e-7)


@pytest.mark.parametrize("samples", [1, 3])
def test_extra_gradient_of_samples_that_are_the_same_is_zero(samples: int) -> None:
    found = NoPeek(strength=STRENGTH).extra_gradient(
        drawn(samples, 3), torch.ones(samples, 2, dtype=torch.float64)
    )
    assert torch.equal(found, torch.zeros(samples, 2, dtype=torch.float64))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_client_with_nopeek_descends_the_whole_loss(tiny: Build, engine: str) -> None:
    """What is added to the cut gradient is what autograd makes of the term, through the client model."""
    settings = ["num_clients=1", "dataset.max_train=26", "optimizer=sgd", f"engine={engine}"]
    run = tiny("algorithm=splitfed_v1", *settings, "defence=nopeek", f"defence.strength={STRENGTH}")
    reference = PlainLoop(run)
    stepper = sgd(reference.client, reference.server)
    run.run_round(0)
    for _, x, y in reference.batches(0, 0):
        stepper.zero_grad()
        z = reference.client(x)
        (F.cross_entropy(reference.server(z), y) + STRENGTH * distance_correlation(x, z)).backward()
        stepper.step()
    for name, tensor in run.algorithm.full_weights().items():
        torch.testing.assert_close(tensor, reference.full_weights()[name], rtol=0, atol=1e-12, msg=name)
