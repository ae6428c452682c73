"""The ways in which smashed data can travel: the run's own, other codecs, and deployed client models."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.building.quantization import codec_at_cut
from fedsplit.config.choices import names_of
from fedsplit.config.compose import composed, composing, run_config
from fedsplit.config.settings import QuantSettings
from fedsplit.inference.deploying import Deploying
from fedsplit.inference.subject import Subject
from fedsplit.tasks.attack.channel import FULL, Channel, CodedChannel, DeviceChannel
from fedsplit.tasks.attack.victim import Victim


def quant_settings(name: str) -> QuantSettings:
    """The codecs of a preset of `quant`, or one codec for both directions at the cut."""
    if name in names_of("quant"):
        overrides = [f"quant={name}"]
    else:
        overrides = [f"codec@quant.smashed={name}", f"codec@quant.cut_gradient={name}"]
    with composing():
        return run_config(composed(overrides)).quant


@dataclass(frozen=True)
class Channels:
    """Makes the ways in which smashed data of a victim travel.

    Args:
        own: the codecs of the run.
        codecs: codecs by name; None where only the run's own are asked for.
        precisions: of client models; for `fp32` there is a way for each codec, for another a single one.
        deploying: how client models are converted.
    """

    own: QuantSettings
    codecs: dict[str, QuantSettings] | None
    precisions: Sequence[str]
    deploying: Deploying

    def of(self, victim: Victim) -> list[Channel]:
        """All that are asked for; `UserError` where a codec or precision cannot be had for this model."""
        return [way for name in self.precisions for way in self._at(name, victim)]

    def of_the_run(self, victim: Victim) -> CodedChannel:
        """That of the run itself."""
        codecs = self.codecs or {}
        name = next((name for name, quant in codecs.items() if self._is_own(quant)), None)
        return self._coded(name or _own_name(victim), self.own, victim)

    def _at(self, precision: str, victim: Victim) -> list[Channel]:
        if precision != FULL:
            deployed = self.deploying.converted(_subject(victim), [precision])[precision]
            return [DeviceChannel("device", precision, False, deployed)]
        if self.codecs is None:
            return [self.of_the_run(victim)]
        return [self._coded(name, quant, victim) for name, quant in self.codecs.items()]

    def _coded(self, name: str, quant: QuantSettings, victim: Victim) -> CodedChannel:
        smashed, cut_gradient = (
            codec_at_cut(choice, victim.smashed_shape, lambda: victim.coded_shape)
            for choice in (quant.smashed, quant.cut_gradient)
        )
        return CodedChannel(name, FULL, self._is_own(quant), smashed, cut_gradient)

    def _is_own(self, quant: QuantSettings) -> bool:
        return quant.smashed == self.own.smashed


def _own_name(victim: Victim) -> str:
    """The name of the run's codec of smashed data, as it was chosen."""
    choices = victim.run.config.choices
    return choices.get("codec@quant.smashed") or choices.get("quant") or "own"


def _subject(victim: Victim) -> Subject:
    """The split model as one that is deployed."""
    run = victim.run
    return Subject(
        data=run.data,
        client=victim.client.to("cpu").eval(),
        server=victim.server,
        cut=victim.cut,
        smashed_shape=victim.smashed_shape,
        architecture=ClientArchitecture.of_run(run.config, victim.cut, run.dataset.sizes),
    )
