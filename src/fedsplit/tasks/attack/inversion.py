"""Attackers that learn to turn smashed data back into images, from images of their own."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar
from weakref import WeakKeyDictionary

from torch import Tensor
from typing_extensions import override

from fedsplit.randomness import seed_of
from fedsplit.tasks.attack.attacker import Attacker, Finding
from fedsplit.tasks.attack.measures import SampleMean, psnr, reidentify, ssim
from fedsplit.tasks.attack.scene import Scene
from fedsplit.tasks.attack.victim import Victim


class Reconstruct(ABC):
    """Function that an attacker has learned: smashed data `(n, ...)` to images `(n, c, h, w)`."""

    epochs: int = 0

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        """Reconstruct images, which may have pixels below 0 or above 1."""

    @abstractmethod
    def adapt(self, z: Tensor, x: Tensor, *, seed: int) -> "Reconstruct":
        """Adapt the attacker: let it also learn from these smashed data of its images."""


class Inversion(Attacker):
    """Learns from exact smashed data of its own images, and then from what the server receives of them."""

    adapts: ClassVar[bool] = True
    """True if its result depends on the smashed data that it learns from."""

    def __init__(self) -> None:
        self._learned: WeakKeyDictionary[Victim, Reconstruct] = WeakKeyDictionary()
        self._unadapted: WeakKeyDictionary[Victim, Reconstruct] = WeakKeyDictionary()

    @abstractmethod
    def learn(self, z: Tensor, x: Tensor, *, seed: int) -> Reconstruct:
        """Learn from smashed data `(n, ...)`, with their channels, of images `(n, c, h, w)`."""

    @override
    def attack(self, scene: Scene) -> Iterator[Finding]:
        exact = scene.known.received is scene.known.z
        for adapted in (None,) if not self.adapts else (True,) if exact else scene.adapted:
            reconstruct = self._unadapted_to(scene) if exact or not adapted else self._adapted_to(scene)
            yield self._finding(reconstruct, scene, adapted)

    def _exactly(self, scene: Scene) -> Reconstruct:
        """Learned from exact smashed data alone."""
        victim, known = scene.victim, scene.known
        if victim not in self._learned:
            self._learned[victim] = self.learn(victim.unflatten(known.z), known.x, seed=self._seed(scene))
        return self._learned[victim]

    def _adapted_to(self, scene: Scene) -> Reconstruct:
        received = scene.victim.unflatten(scene.known.received)
        return self._exactly(scene).adapt(received, scene.known.x, seed=self._seed(scene))

    def _unadapted_to(self, scene: Scene) -> Reconstruct:
        """Learned for as long as one that adapts, and from exact smashed data alone."""
        victim, known = scene.victim, scene.known
        if victim not in self._unadapted:
            learned, z = self._exactly(scene), victim.unflatten(known.z)
            self._unadapted[victim] = learned.adapt(z, known.x, seed=self._seed(scene))
        return self._unadapted[victim]

    def _seed(self, scene: Scene) -> int:
        return seed_of(scene.victim.seed, f"attack, {self.name}")

    def _finding(self, reconstruct: Reconstruct, scene: Scene, adapted: bool | None) -> Finding:
        targets = scene.targets
        images = reconstruct(scene.victim.unflatten(targets.received)).clamp(0, 1)
        return Finding(
            self.name,
            adapted,
            epochs=reconstruct.epochs,
            psnr=SampleMean.of(psnr(targets.x, images)),
            ssim=SampleMean.of(ssim(targets.x, images)),
            reidentified=SampleMean.of(reidentify(targets.x, images)),
            images=images,
        )
