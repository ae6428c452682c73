"""Scenes that attackers look at: images, what is received of them, and what is known of the way between."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log10, sqrt

import torch
from torch import Tensor

from fedsplit.data.images import Images
from fedsplit.randomness import seed_of
from fedsplit.tasks.attack.channel import FULL, Channel
from fedsplit.tasks.attack.measures import distance_correlation
from fedsplit.tasks.attack.victim import AttackedRun, ImageBatch, Mode, Victim


@dataclass(frozen=True)
class ExposedImages:
    """Images, and what the server receives of them, batch by batch.

    Args:
        inputs: inputs of the client model, `(n, c, h, w)`.
        x: pixels from 0 to 1, of the same shape, before normalisation.
        y: labels, `(n,)`.
        z: smashed data as the client model gives them, `(n, ...)`.
        received: smashed data as the server decodes them, of the same shape; `z` itself where nothing changes
            them.
        size: bytes of their payload.
    """

    inputs: Tensor
    x: Tensor
    y: Tensor
    z: Tensor
    received: Tensor
    size: int


@dataclass(frozen=True)
class Setting:
    """One way in which smashed data travel, and what is known of it without an attack.

    Args:
        model: trained or untrained.
        cut: name of the cut.
        recut: True if the run trained with another cut.
        precision: precision of the client model.
        defence: defence of clients, its name.
        codec: name of the codec; `device` where a deployed client model sends what it computes.
        mode: train or eval, of the client model.
        sent: True if the run itself sent smashed data like this.
        bytes_per_sample: bytes per sample of the payload.
        smashed_std: standard deviation of all values of the targets' exact smashed data.
        sqnr: signal to noise of what is received, dB; None where it is exact, or nothing is.
        distance_correlation: distance correlation of pixels and what is received, squared and bias-corrected.
        test_accuracy: test accuracy of the server half on what it receives of all test images, in evaluation
            mode.
        test_accuracy_se: standard error of `test_accuracy`.
        known: the attacker's images.
        targets: images that are attacked.
    """

    model: str
    cut: str
    recut: bool
    precision: str
    defence: str
    codec: str
    mode: Mode
    sent: bool
    bytes_per_sample: float
    smashed_std: float
    sqnr: float | None
    distance_correlation: float
    test_accuracy: float
    test_accuracy_se: float
    known: int
    targets: int

    @property
    def title(self) -> str:
        """The way in a few words, without the cut."""
        way = self.precision if self.codec == "device" else self.codec
        if self.defence != "none":
            way = f"{self.defence}, {way}" if way != "none" else self.defence
        return f"{way}, untrained" if self.model == "untrained" else way


@dataclass(frozen=True)
class Scene:
    """One model, cut at one place, whose smashed data travel in one way.

    Args:
        victim: the halves, and all that their run is made of.
        channel: the way.
        known: the attacker's own images, none of them a target.
        targets: images that clients train on.
        adapted: settings to try: with True, attackers that learn from smashed data learn from received ones,
            with False from exact ones.
    """

    victim: Victim
    channel: Channel
    setting: Setting
    known: ExposedImages
    targets: ExposedImages
    adapted: Sequence[bool]


@dataclass(frozen=True)
class Scenes:
    """Makes scenes of victims of a run.

    Args:
        run: run that the scenes are of.
        mode: mode of client models.
        adapted: see `Scene`.
        known: indices of test images.
        targets: indices of training images.
    """

    run: AttackedRun
    mode: Mode
    adapted: Sequence[bool]
    known: Tensor
    targets: Tensor

    def of(self, victim: Victim, channels: Sequence[Channel]) -> Iterator[Scene]:
        """A scene for each channel."""
        accuracies = self._accuracies(victim, channels)
        test, train = self.run.dataset.test, self.run.dataset.train
        of_known = self._pass(victim, "known", test, self.known)
        of_targets = self._pass(victim, "targets", train, self.targets)
        for channel, accuracy in zip(channels, accuracies, strict=True):
            known = self._send(channel, "known", *of_known)
            targets = self._send(channel, "targets", *of_targets)
            setting = self._setting(victim, channel, targets, accuracy)
            yield Scene(victim, channel, setting, known, targets, self.adapted)

    def _pass(
        self, victim: Victim, purpose: str, images: Images, index: Tensor
    ) -> tuple[list[ImageBatch], list[Tensor]]:
        """Batches of images, and what the client model makes of each."""
        batches = list(self.run.batches(images, index, self.mode, purpose))
        seeds = (victim.dropout_seed(purpose, step) for step in range(len(batches)))
        passed = [
            victim.smash(batch.x, self.mode, seed=seed) for batch, seed in zip(batches, seeds, strict=True)
        ]
        return batches, passed

    def _send(
        self, channel: Channel, purpose: str, batches: Sequence[ImageBatch], passed: Sequence[Tensor]
    ) -> ExposedImages:
        delivered = [
            channel.deliver(batch.x, z, seed=self._rounding(purpose, step))
            for step, (batch, z) in enumerate(zip(batches, passed, strict=True))
        ]
        unchanged = all(way.z is z for way, z in zip(delivered, passed, strict=True))
        z = torch.cat(list(passed))
        return ExposedImages(
            inputs=torch.cat([batch.x for batch in batches]),
            x=torch.cat([batch.pixels for batch in batches]),
            y=torch.cat([batch.y for batch in batches]),
            z=z,
            received=z if unchanged else torch.cat([way.z for way in delivered]),
            size=sum(way.size for way in delivered),
        )

    def _rounding(self, purpose: str, step: int) -> int:
        return seed_of(self.run.seed, f"rounding, {purpose}", step=step)

    def _accuracies(self, victim: Victim, channels: Sequence[Channel]) -> list[float]:
        """Accuracies of the server half on what it receives of all test images, as in inference."""
        test, hits = self.run.dataset.test, [0] * len(channels)
        for step, batch in enumerate(self.run.batches(test, torch.arange(len(test)), "eval", "test")):
            z = victim.smash(batch.x, "eval", seed=0)
            for number, channel in enumerate(channels):
                received = channel.deliver(batch.x, z, seed=self._rounding("test", step)).z
                hits[number] += int((victim.logits(received).argmax(1) == batch.y).sum())
        return [found / len(test) for found in hits]

    def _setting(self, victim: Victim, channel: Channel, targets: ExposedImages, accuracy: float) -> Setting:
        run, count = self.run, len(targets.x)
        recut = victim.cut != run.cut
        return Setting(
            model="trained" if victim.trained else "untrained",
            cut=victim.cut,
            recut=recut,
            precision=channel.precision,
            defence=channel.defence,
            codec=channel.codec,
            mode=self.mode if channel.precision == FULL else "eval",
            sent=channel.own and not recut and victim.trained and run.uploads_smashed_data,
            bytes_per_sample=targets.size / count,
            smashed_std=float(targets.z.double().std()),
            sqnr=_sqnr(targets),
            distance_correlation=distance_correlation(targets.x, targets.received),
            test_accuracy=accuracy,
            test_accuracy_se=sqrt(accuracy * (1 - accuracy) / len(run.dataset.test)),
            known=len(self.known),
            targets=count,
        )


def _sqnr(exposed: ExposedImages) -> float | None:
    if exposed.received is exposed.z:
        return None
    signal = float(exposed.z.double().square().sum())
    noise = float((exposed.received.double() - exposed.z.double()).square().sum())
    return 10 * log10(signal / noise) if signal and noise else None
