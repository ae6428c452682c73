"""What attackers that reconstruct images find, where it is known in closed form."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedsplit.tasks.attack.decoder import DecoderAttack, decoder_network
from fedsplit.tasks.attack.linear import LinearAttack
from fedsplit.tasks.attack.scene import ExposedImages


def normals(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def error_of_linear(client: Tensor, noise: float, *, known: int, seed: int = 0) -> float:
    """Mean squared error of each value, of standard normal images that a client `(k, d)` projects."""
    kept, values = client.shape
    x, targets = normals(known, values, seed=seed), normals(20_000, values, seed=seed + 1)
    z, received = (
        each @ client.T + noise * normals(len(each), kept, seed=seed + 2 + number)
        for number, each in enumerate((x, targets))
    )
    reconstruct = LinearAttack().learn(z, x.view(-1, 1, 1, values), seed=seed)
    return float((reconstruct(received).flatten(1) - targets).square().mean())


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_linear_attack_on_orthonormal_rows_has_the_error_of_the_best_estimate(noise: float) -> None:
    """Of d values k come through, with noise: (d - k)/d + (k/d) s^2/(1 + s^2)."""
    values, kept = 12, 5
    client = torch.linalg.qr(normals(values, values, seed=7)).Q[:kept]
    expected = (values - kept) / values + kept / values * noise**2 / (1 + noise**2)
    assert error_of_linear(client, noise, known=20_000) == pytest.approx(expected, rel=0.02)


def test_linear_attack_is_never_easier_on_a_deeper_client_or_with_more_noise() -> None:
    rotation = torch.linalg.qr(normals(12, 12, seed=7)).Q
    deeper = [error_of_linear(rotation[:kept], 0.1, known=5000) for kept in (10, 7, 4, 1)]
    noisier = [error_of_linear(rotation[:6], noise, known=5000) for noise in (0.0, 0.3, 1.0, 3.0)]
    assert deeper == sorted(deeper)
    assert noisier == sorted(noisier)


def test_linear_attack_in_the_dual_gives_what_the_formula_of_the_primal_gives() -> None:
    """Few images of many values: the weights of ridge regression for one of the strengths that are tried."""
    x, z, targets = normals(30, 1, 2, 2, seed=0), normals(30, 50, seed=1), normals(5, 50, seed=2)
    found = LinearAttack().learn(z, x, seed=3)(targets).flatten(1)
    features, pixels = z - z.mean(0), x.flatten(1) - x.flatten(1).mean(0)
    unit = features.square().sum() / 30
    predictions = [
        (targets - z.mean(0))
        @ torch.linalg.solve(
            features.T @ features + 10.0**power * unit * torch.eye(50, dtype=torch.float64),
            features.T @ pixels,
        )
        + x.flatten(1).mean(0)
        for power in range(-8, 3)
    ]
    assert sum(torch.allclose(found, each, atol=1e-5) for each in predictions) == 1


@pytest.mark.parametrize(
    ("smashed", "image"),
    [
        ((4, 4, 4), (3, 16, 16)),
        ((16, 2, 2), (1, 7, 7)),
        ((4, 8, 8), (1, 8, 8)),
        ((10,), (3, 12, 12)),
        ((5, 6), (1, 8, 8)),
    ],
)
def test_decoder_has_the_shape_of_images_for_any_smashed_data(
    smashed: tuple[int, ...], image: tuple[int, ...]
) -> None:
    network = decoder_network(smashed, image, 6).eval()
    assert network(torch.zeros(2, *smashed)).shape == (2, *image)


def test_decoder_learns_and_goes_on_from_where_it_was_and_is_the_same_for_the_same_seed() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(64, 1, 1, 1, generator=draw).expand(64, 1, 4, 4).contiguous()
    attacker = DecoderAttack(channels=8, epochs=6, adapt_epochs=3, batch_size=8, learning_rate=0.02)
    learned = attacker.learn(x, x, seed=1)
    adapted = learned.adapt(x + 0.5, x, seed=1)
    floor = float((x - x.mean(0)).square().mean())
    assert float((learned(x) - x).square().mean()) < 0.3 * floor
    assert float((adapted(x + 0.5) - x).square().mean()) < float((learned(x + 0.5) - x).square().mean())
    assert (learned.epochs, adapted.epochs) == (6, 9)
    assert torch.equal(attacker.learn(x, x, seed=1)(x), learned(x))
    assert not torch.equal(attacker.learn(x, x, seed=2)(x), learned(x))


def shifted(count: int, seed: int) -> ExposedImages:
    """Images that the client sends as they are, and the server receives half as bright."""
    x = torch.rand(count, 1, 7, 7, generator=torch.Generator().manual_seed(seed))
    return ExposedImages(x, x, torch.zeros(count), x, x / 2, 0)


def test_attacker_that_adapts_learns_from_what_is_received_and_the_other_from_exact_data_alone() -> None:
    class Victim(SimpleNamespace):
        __hash__ = object.__hash__

    victim = Victim(seed=0, unflatten=lambda z: z)
    scene: Any = SimpleNamespace(
        victim=victim, known=shifted(200, 0), targets=shifted(50, 1), adapted=(True, False)
    )
    adapted, other = LinearAttack().attack(scene)
    assert (adapted.adapted, other.adapted) == (True, False)
    assert adapted.psnr is not None
    assert other.psnr is not None
    assert adapted.psnr.mean > other.psnr.mean + 15
