"""Ridge regression from smashed data to pixels, in closed form."""

from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.randomness import generator
from fedsplit.tasks.attack.inversion import Inversion, Reconstruct

_STRENGTHS = tuple(10.0**power for power in range(-8, 3))
"""Strengths of the penalty that are tried, in units of the mean diagonal element of the Gram matrix."""


class LinearAttack(Inversion):
    """Linear least squares with a penalty on the squared weights; a fifth of the images chooses its strength.

    Solved in the dual where there are fewer images than values: `x = K(z, Z) (K(Z, Z) + lambda I)^-1 X`, with
    centred `Z` and `X` and `K` their inner products. Nothing is drawn but which images the fifth is.
    """

    name = "linear"

    @override
    def learn(self, z: Tensor, x: Tensor, *, seed: int) -> Reconstruct:
        return _Ridge(z, x, seed)


class _Ridge(Reconstruct):
    def __init__(self, z: Tensor, x: Tensor, seed: int) -> None:
        self._shape, self._seed = x.shape[1:], seed
        features, pixels = z.double().flatten(1), x.double().flatten(1)
        self._feature_mean, self._pixel_mean = features.mean(0), pixels.mean(0)
        self._features, self._pixels = features - self._feature_mean, pixels - self._pixel_mean

    @override
    def __call__(self, z: Tensor) -> Tensor:
        features = z.double().flatten(1) - self._feature_mean
        pixels = self._inner(features) @ self._solution + self._pixel_mean
        return pixels.to(z.dtype).view(-1, *self._shape)

    @override
    def adapt(self, z: Tensor, x: Tensor, *, seed: int) -> Reconstruct:
        return _Ridge(z, x, seed)

    @property
    def _in_dual(self) -> bool:
        return len(self._features) <= self._features.shape[1]

    def _inner(self, features: Tensor) -> Tensor:
        """Factors of the solution: inner products in the dual, else the features themselves."""
        return features @ self._features.T if self._in_dual else features

    @cached_property
    def _solution(self) -> Tensor:
        if self._in_dual:
            gram = self._features @ self._features.T
            return _solve(gram, self._pixels, self._strength_in_dual(gram))
        return _solve(*self._normal_equations(slice(None)), self._strength_in_primal())

    def _strength_in_dual(self, gram: Tensor) -> float:
        held, rest = self._division
        inner, between, pixels = gram[rest][:, rest], gram[held][:, rest], self._pixels[rest]

        def error(strength: float) -> float:
            # solved for the few held-out rows, and not for the many pixels
            weights = _solve(inner, between.T, strength)
            return float((weights.T @ pixels - self._pixels[held]).square().mean())

        return min(_STRENGTHS, key=error)

    def _strength_in_primal(self) -> float:
        held, rest = self._division
        gram, right = self._normal_equations(rest)

        def error(strength: float) -> float:
            predicted = self._features[held] @ _solve(gram, right, strength)
            return float((predicted - self._pixels[held]).square().mean())

        return min(_STRENGTHS, key=error)

    def _normal_equations(self, some: Tensor | slice) -> tuple[Tensor, Tensor]:
        features = self._features[some]
        return features.T @ features, features.T @ self._pixels[some]

    @property
    def _division(self) -> tuple[Tensor, Tensor]:
        """Held-out images, a fifth, and the rest."""
        order = torch.randperm(len(self._features), generator=generator(self._seed, "held-out fifth"))
        order = order.to(self._features.device)
        return order[: len(order) // 5], order[len(order) // 5 :]


def _solve(gram: Tensor, right: Tensor, strength: float) -> Tensor:
    """The solution of a penalised system, `(gram + lambda I)^-1 right`."""
    penalty = max(strength * float(gram.diagonal().mean()), torch.finfo(gram.dtype).tiny)
    penalised = gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve(right, torch.linalg.cholesky(penalised))
