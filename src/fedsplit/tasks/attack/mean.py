"""The mean image: what an attacker has who receives nothing."""

from collections.abc import Iterator

from torch import Tensor
from typing_extensions import override

from fedsplit.tasks.attack.attacker import Finding
from fedsplit.tasks.attack.inversion import Inversion, Reconstruct
from fedsplit.tasks.attack.scene import Scene


class MeanImage(Inversion):
    """Gives the mean of the attacker's images for every target: the floor of all measures."""

    name = "mean"
    adapts = False

    @override
    def attack(self, scene: Scene) -> Iterator[Finding]:
        """Find the floor once for each model and cut, as it is the same whatever the way of smashed data."""
        if scene.victim not in self._learned:
            yield from super().attack(scene)

    @override
    def learn(self, z: Tensor, x: Tensor, *, seed: int) -> Reconstruct:
        return _Constant(x.mean(0))


class _Constant(Reconstruct):
    def __init__(self, image: Tensor) -> None:
        self._image = image

    @override
    def __call__(self, z: Tensor) -> Tensor:
        return self._image.expand(len(z), *self._image.shape)

    @override
    def adapt(self, z: Tensor, x: Tensor, *, seed: int) -> Reconstruct:
        return self
