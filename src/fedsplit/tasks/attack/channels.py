"""The ways in which smashed data can travel: the run's own, other codecs or defences, and deployed models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.building.quantization import codec_at_cut
from fedsplit.config.choices import names_of
from fedsplit.config.component import Component
from fedsplit.config.compose import compose_config, composing, run_config
from fedsplit.config.run_config import RunConfig
from fedsplit.config.settings import QuantSettings
from fedsplit.errors import UserError
from fedsplit.inference.deploying import Deploying
from fedsplit.inference.subject import Subject
from fedsplit.privacy.defence import Defence
from fedsplit.tasks.attack.channel import FULL, Channel, CodedChannel, DeviceChannel
from fedsplit.tasks.attack.victim import Victim


def quant_settings(name: str) -> QuantSettings:
    """The codecs of a preset of `quant`, or one codec for both directions at the cut."""
    if name in names_of("quant"):
        overrides = [f"quant={name}"]
    else:
        overrides = [f"codec@quant.smashed={name}", f"codec@quant.cut_gradient={name}"]
    with composing():
        return run_config(compose_config(overrides)).quant


def defence_asked_for(given: str | Mapping[str, Mapping[str, object]]) -> tuple[str, Component]:
    """Title and component of a choice of the group `defence`.

    Args:
        given: name of a defence, which leaves all keys as by default, or its name with some keys.

    Raises:
        UserError: there is no such name or key, or the key has no such value.
    """
    named = {given: {}} if isinstance(given, str) else given
    name, keys = next(iter(named.items()), ("", {}))
    names = names_of("defence")
    if len(named) != 1 or name not in names or not isinstance(keys, Mapping):
        example = "{gaussian: {sigma: 0.1}}"
        message = f"each one of {', '.join(names)}, or one of them with its keys, as {example}"
        raise UserError("task.defences", given, message)
    with composing():
        config = run_config(compose_config([f"defence={name}"]))
    for key in keys:
        if key not in config.defence.arguments:
            known = ", ".join(config.defence.arguments) or "none, for it has no keys"
            raise UserError("task.defences", f"{name}.{key}", f"a key of defence={name}: {known}")
    title = " ".join([name, *(f"{key}={'null' if value is None else value}" for key, value in keys.items())])
    return title, config.with_changes({f"defence.{key}": value for key, value in keys.items()}).defence


@dataclass(frozen=True)
class Channels:
    """Makes the ways in which smashed data of a victim travel.

    Args:
        config: configuration of the run.
        codecs: codecs by name; None where only the run's own are asked for.
        defences: defences of clients, by name; None where only the run's own is asked for.
        precisions: precisions of client models; for `fp32` there is a way for each defence and codec, for
            another one.
        deploying: settings for the conversion of client models.
    """

    config: RunConfig
    codecs: Mapping[str, QuantSettings] | None
    defences: Mapping[str, Component] | None
    precisions: Sequence[str]
    deploying: Deploying

    def of(self, victim: Victim) -> list[Channel]:
        """All that are asked for; `UserError` where a codec or precision cannot be had for this model."""
        return [way for name in self.precisions for way in self._at(name, victim)]

    def of_the_run(self, victim: Victim) -> CodedChannel:
        """Channel of the run itself."""
        return self._code(self._own_codec, self._own_defence, victim)

    @property
    def _own_codec(self) -> tuple[str, QuantSettings]:
        choices, own = self.config.choices, self.config.quant
        chosen = choices.get("codec@quant.smashed") or choices.get("quant") or "own"
        known = (name for name, quant in (self.codecs or {}).items() if quant.smashed == own.smashed)
        return next(known, chosen), own

    @property
    def _own_defence(self) -> tuple[str, Component]:
        return self.config.choice("defence"), self.config.defence

    def _at(self, precision: str, victim: Victim) -> list[Channel]:
        if precision != FULL:
            deployed = self.deploying.convert(_subject(victim), [precision])[precision]
            return [DeviceChannel("device", "none", precision, False, deployed)]
        codecs = [self._own_codec] if self.codecs is None else list(self.codecs.items())
        defences = [self._own_defence] if self.defences is None else list(self.defences.items())
        return [self._code(codec, defence, victim) for defence in defences for codec in codecs]

    def _code(
        self, codec: tuple[str, QuantSettings], defence: tuple[str, Component], victim: Victim
    ) -> CodedChannel:
        (name, quant), (defence_name, component) = codec, defence
        smashed, cut_gradient = (
            codec_at_cut(choice, victim.smashed_shape, lambda: victim.coded_shape)
            for choice in (quant.smashed, quant.cut_gradient)
        )
        own = quant.smashed == self.config.quant.smashed and component == self.config.defence
        release = component.build(Defence)
        return CodedChannel(name, defence_name, FULL, own, release, smashed, cut_gradient)


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
