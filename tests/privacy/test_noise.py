"""Noise: its distribution, what it is a function of, and where its secret is kept."""

from collections.abc import Callable
from math import erf, exp, sqrt
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedsplit.errors import UserError
from fedsplit.privacy.clipping import clip_samples
from fedsplit.privacy.defences.gaussian import Gaussian
from fedsplit.privacy.defences.laplace import Laplace
from fedsplit.privacy.noise import Noise, Secrets
from fedsplit.privacy.secret_file import client_secret

MANY = torch.zeros(200_001, dtype=torch.float64)
"""Zeros so many that a distribution function is within 0.004 of its own (Kolmogorov, 1 in 10^9)."""
NOISE = Noise(b"a key")


def test_samples_are_clipped_to_the_norm_and_smaller_ones_are_left() -> None:
    x = (
        torch.randn(64, 3, 5, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-3, 3, 64)[:, None, None]
    )
    found = clip_samples(x, 2.0)
    norms = x.flatten(1).norm(dim=1)
    assert float(found.flatten(1).norm(dim=1).max()) <= 2 * (1 + 1e-6)
    assert torch.equal(found[norms < 2], x[norms < 2])
    large = norms > 2
    torch.testing.assert_close(found[large], x[large] * (2 / norms[large])[:, None, None])
    assert torch.equal(clip_samples(torch.zeros(2, 3), 1.0), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("draw", "distribution"),
    [
        (NOISE.uniform, lambda x: x),
        (NOISE.normal, lambda x: (1 + erf(x / sqrt(2))) / 2),
        (NOISE.laplace, lambda x: exp(sqrt(2) * x) / 2 if x < 0 else 1 - exp(-sqrt(2) * x) / 2),
    ],
    ids=["uniform", "normal", "laplace"],
)
def test_numbers_have_their_distribution(
    draw: Callable[[Tensor], Tensor], distribution: Callable[[float], float]
) -> None:
    found = draw(MANY).sort().values
    expected = torch.tensor([distribution(x) for x in found[::100].tolist()], dtype=torch.float64)
    ranks = torch.arange(0, len(found), 100, dtype=torch.float64) / len(found)
    assert float((ranks - expected).abs().max()) < 0.004 + 1e-4
    if distribution(0.0) == 0.5:
        assert float(found.mean()) == pytest.approx(0, abs=0.015)
        assert float(found.var()) == pytest.approx(1, abs=0.03)
        pairs = draw(MANY)[:-1].view(2, -1)
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.02


@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_released_samples_are_clipped_ones_with_noise_of_sigma_times_the_clip(
    kind: type[Gaussian] | type[Laplace],
) -> None:
    z = torch.randn(50, 2000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    arguments = {"delta": 1e-5, "unit": "replace"} if kind is Gaussian else {}
    added = kind(sigma=0.3, clip=5.0, **arguments).release(z, NOISE) - clip_samples(z, 5.0)
    assert float(added.std()) == pytest.approx(1.5, rel=0.01)
    assert float(added.mean()) == pytest.approx(0, abs=0.02)
    as_it_is = kind(sigma=0.3, clip=None, **arguments).release(z, NOISE) - z
    assert float(as_it_is.std()) == pytest.approx(0.3, rel=0.01)
    assert torch.equal(kind(sigma=0.0, clip=None, **arguments).release(z, NOISE), z)


def test_noise_is_a_function_of_secret_client_round_and_step() -> None:
    like = torch.zeros(8)

    def drawn(
        secrets: Secrets, purpose: str = "a", client: int = 0, round: int = 0, step: int = 0
    ) -> tuple[float, ...]:
        return tuple(secrets.noise(purpose, client=client, round=round, step=step).normal(like).tolist())

    assert drawn(Secrets(1)) == drawn(Secrets(1))
    others = [drawn(Secrets(1)), drawn(Secrets(2)), drawn(Secrets(1), "b")]
    others += [drawn(Secrets(1), client=1), drawn(Secrets(1), round=1), drawn(Secrets(1), step=1)]
    others += [drawn(Secrets(1, own=bytes(32))), drawn(Secrets(1, own=bytes(31) + b"\1"))]
    assert len(set(others)) == len(others)
    assert drawn(Secrets(1, own=bytes(32))) == drawn(Secrets(2, own=bytes(32)))


def test_noise_of_an_own_secret_is_another_for_a_second_answer_with_other_values() -> None:
    """With the same noise a server that asks twice would see the difference exactly."""
    z, other = torch.zeros(8), torch.ones(8)
    bound, free = (Secrets(0, own).noise("a", client=0, round=0, step=0) for own in (bytes(32), None))
    assert torch.equal(bound.normal(z), bound.normal(z.clone()))
    assert not torch.equal(bound.normal(z), bound.normal(other))
    assert torch.equal(free.normal(z), free.normal(other))


def test_secret_of_a_client_is_random_kept_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    one, other = client_secret(tmp_path / "one"), client_secret(tmp_path / "other")
    assert len(one) == 32
    assert one != other
    path = tmp_path / "one" / "secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert client_secret(tmp_path / "one") == one == path.read_bytes()
    assert [each.name for each in path.parent.iterdir()] == ["secret"]
    path.chmod(0o640)
    with pytest.raises(UserError, match="others may read its file secret: chmod 600"):
        client_secret(tmp_path / "one")
    path.chmod(0o600)
    path.write_bytes(one[:-1])
    with pytest.raises(UserError, match="damaged"):
        client_secret(tmp_path / "one")
