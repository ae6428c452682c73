"""The defence of a client: what it changes of the smashed data that leave it, and of its gradients."""

from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from fedsplit.privacy.noise import Noise

Unit: TypeAlias = Literal["replace", "zero_out"]
"""Difference between two neighbouring data sets: one sample is replaced by another, or by all zeros."""


class Defence:
    """No defence; and what every defence is.

    All methods are for one client and one batch. They change no message's shape: nothing more is sent, and no
    algorithm knows of them. Gradients pass straight through `release`, as they do through a codec.
    """

    perturbs_gradients: ClassVar[bool] = False
    """True if clients descend along clipped gradients of single samples, with noise: `perturb`."""

    def __init__(self) -> None:
        self.gradient_clip: float | None = None
        """Largest Euclidean norm of a sample's gradient; None leaves it."""
        self.delta: float | None = None
        """Delta of the guarantee that is accounted for; None where there is none."""
        self.unit: Unit | None = None

    @property
    def releases(self) -> bool:
        """True if `release` changes smashed data."""
        return False

    @property
    def adds_gradient(self) -> bool:
        """True if `extra_gradient` adds anything."""
        return False

    @property
    def smashed_sigma(self) -> float | None:
        """Noise on smashed data over the norm that they are clipped to; None where nothing bounds them."""
        return None

    def guards(self, *, sends_smashed: bool) -> float:
        """Least noise on what a client sends of its samples, over what it is clipped to.

        Args:
            sends_smashed: True if clients send smashed data; else they send the whole model's weights.
        """
        return (self.smashed_sigma if sends_smashed else self.gradient_sigma) or 0.0

    @property
    def gradient_sigma(self) -> float | None:
        """Noise on gradients over the norm that a sample's is clipped to; None where nothing bounds it."""
        return None

    def release(self, z: Tensor, noise: Noise) -> Tensor:
        """Smashed data `(b, ...)` as they leave the client.

        Args:
            z: exact smashed data.
            noise: noise of this release; a second answer to the same question has the same.
        """
        return z

    def extra_gradient(self, x: Tensor, z: Tensor) -> Tensor:
        """Gradient added to the cut gradient, in the shape of `z (b, ...)`; `x (b, ...)` are the inputs."""
        return torch.zeros_like(z)

    def perturb(self, gradient: Tensor, noise: Noise) -> Tensor:
        """A sum of clipped gradients `(p,)` over all that a client trains, with noise."""
        return gradient
