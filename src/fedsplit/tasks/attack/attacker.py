"""Attackers, what they may look at, and what they leave: one class for each that can be chosen."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from fedsplit.tasks.attack.measures import SampleMean
from fedsplit.tasks.attack.scene import Scene


@dataclass(frozen=True)
class Finding:
    """Findings of an attacker; None stands where it does not look for that.

    Args:
        attacker: name of the attacker.
        adapted: True if it learned from what went through defence and codec.
        way: variant of the attacker, if it has several.
        epochs: number of epochs of its training; 0 where it has a closed form.
        psnr: PSNR of reconstructed targets, dB.
        ssim: the same.
        reidentified: fraction of reconstructions whose nearest target is the right one.
        label_accuracy: fraction of labels of targets that it tells.
        label_auc: mean over classes of the area under its ROC curves.
        others: further measures of its own, by name.
        images: reconstructions of all targets, `(n, c, h, w)`.
    """

    attacker: str
    adapted: bool | None = None
    way: str = ""
    epochs: int = 0
    psnr: SampleMean | None = None
    ssim: SampleMean | None = None
    reidentified: SampleMean | None = None
    label_accuracy: SampleMean | None = None
    label_auc: float | None = None
    others: dict[str, float] = field(default_factory=dict)
    images: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def title(self) -> str:
        """The attacker, its way, and whether it did not adapt, in a few words."""
        return ", ".join(
            filter(None, (self.attacker, self.way, "not adapted" if self.adapted is False else ""))
        )


class Attacker(ABC):
    """An attack on what a client sends."""

    name: ClassVar[str]
    of_a_run: ClassVar[bool] = False
    """True if it attacks the run once, as it was trained, and not each way in which smashed data travel."""

    @abstractmethod
    def attack(self, scene: Scene) -> Iterator[Finding]:
        """Attack; an attacker with several ways gives a finding of each.

        Raises:
            NotExposed: clients of this algorithm send nothing that it could use.
        """


class NotExposed(Exception):
    """An attack has nothing to work on; says why in one line."""
