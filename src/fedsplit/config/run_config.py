"""The configuration of a run: parsed once from plain values, and written back as it was."""

from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, TypeVar, get_type_hints

from fedsplit.config.checks import check_keys, check_together, own_keys
from fedsplit.config.component import Component
from fedsplit.config.settings import (
    GROUPS,
    OPTIONAL_GROUPS,
    QUANT_CODECS,
    TOPICS,
    WEIGHTS_CODECS,
    CodecChoice,
    ConfigFields,
    QuantSettings,
    Topic,
    WeightsCodecChoices,
)
from fedsplit.config.signature import own_paths
from fedsplit.config.traits import task_traits
from fedsplit.config.values import Plain

Read = TypeVar("Read", bound=Topic)
_OF_THE_MACHINE = ("root", "tokenizer_files", "download")
"""Arguments of a dataset that say where its files are on this machine."""
_KINDS = {
    topic: {key: kind for key, kind in get_type_hints(topic).items() if key != "PLACE"}
    for topic in TOPICS.values()
}
"""Types of the fields of each topic."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(ConfigFields):
    """Checked configuration of a run; nothing heavy is imported to make one.

    What is decided later, as the device that `device=auto` stands for, gives another one
    (`dataclasses.replace`).

    Args:
        written: the plain values that it was parsed from, whose order `plain` keeps.
    """

    written: Plain = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, plain: Plain, choices: Mapping[str, str | None] | None = None) -> Self:
        """Check plain values, composed and resolved, and read them.

        Args:
            plain: plain values by key, as `plain` writes them.
            choices: names of what was chosen of each group; None takes them from `plain`, if it has them.

        Raises:
            UserError: names the key, its value and what is allowed.
        """
        values = deepcopy(dict(plain))
        names = values.pop("choices", {}) if choices is None else choices
        check_keys(values)
        precisions: list[Any] = []
        if task_traits(values).deploys:
            given = values["precision"]
            precisions = list(given) if isinstance(given, list | tuple) else [given]
        topics = {name: _read(topic, values) for name, topic in TOPICS.items()}
        groups = {name: _component(name, values) for name in (*GROUPS, *OPTIONAL_GROUPS)}
        config: Any = {**topics, **groups, "quant": _quant(values["quant"])}
        if precisions:
            config["computation"] = replace(config["computation"], precision="fp32")
        parsed = cls(**config, client_precisions=tuple(precisions), choices=dict(names), written=values)
        check_together(parsed)
        return parsed

    def plain(self) -> dict[str, Any]:
        """Plain values, which `parse` reads."""
        values: dict[str, Any] = {}
        for name, topic in TOPICS.items():
            if (read := getattr(self, name)) is not None:
                node = values.setdefault(topic.PLACE, {}) if topic.PLACE else values
                node.update({each.name: _write(getattr(read, each.name)) for each in fields(read)})
        for name in (*GROUPS, *OPTIONAL_GROUPS):
            component: Component | None = getattr(self, name)
            if component is None:
                values[name] = None
            else:
                values.setdefault(name, {}).update(component.plain())
        values["quant"] = {
            **{kind: getattr(self.quant, kind).plain() for kind in QUANT_CODECS},
            "weights": {way: getattr(self.quant.weights, way).plain() for way in WEIGHTS_CODECS},
            "continue_from_decoded": self.quant.continue_from_decoded,
        }
        if self.client_precisions:
            values["precision"] = list(self.client_precisions)
        ordered: dict[str, Any] = deepcopy(_in_order(values, self.written))
        return {**ordered, "choices": dict(self.choices)} if self.choices else ordered

    def with_changes(self, values: Mapping[str, object]) -> "RunConfig":
        """A copy of this configuration with other values at dotted keys, checked as by `parse`."""
        plain = self.plain()
        for key, value in values.items():
            *path, name = key.split(".")
            node: Any = plain
            for part in path:
                node = node[part]
            node[name] = value
        return type(self).parse(plain)

    def with_keys_of(self, other: "RunConfig", keys: Collection[str]) -> "RunConfig":
        """A copy of this configuration with another's values at top-level keys, checked as by `parse`."""
        values = {key: value for key, value in other.plain().items() if key in keys}
        choices = {key: choice for key, choice in other.choices.items() if key in keys}
        return type(self).parse({**self.plain(), **values, "choices": {**self.choices, **choices}})

    def choice(self, group: str) -> str:
        """The name of what was chosen of a group; the dotted path of its target where nobody knows it."""
        component: Component = getattr(self, group)
        return self.choices.get(group) or component.target

    @property
    def dataset_root(self) -> str | None:
        """Folder of the images; None where the dataset has no files of its own, or in the usual place."""
        root = self.dataset.arguments.get("root")
        return None if root is None else str(root)

    def of_this_machine(self) -> dict[str, object]:
        """Values that belong to this machine, by dotted key: device, places of data and models."""
        data, model = self.dataset.arguments, self.model.arguments
        own = {f"dataset.{key}": data[key] for key in _OF_THE_MACHINE if key in data}
        paths = own_paths(self.model.target) if self.model.target else model
        own |= {f"model.{key}": model[key] for key in paths if key in model}
        return {"device": self.computation.device, **own}


def leaves(node: Plain, prefix: str = "", whole: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values, lists among them, and the mappings at the keys `whole`."""
    for name, value in node.items():
        if isinstance(value, Mapping) and f"{prefix}{name}" not in whole:
            yield from leaves(value, f"{prefix}{name}.", whole)
        else:
            yield f"{prefix}{name}", value


def _read(topic: type[Read], values: Plain) -> Read | None:
    """A topic, from checked values; None where they have nothing of it, as of a sweep."""
    node = values.get(topic.PLACE) if topic.PLACE else values
    if node is None:
        return None
    read: dict[str, Any] = {key: node.get(key) for key in _KINDS[topic]}
    for key, kind in _KINDS[topic].items():
        if kind is Component:
            read[key] = Component.of(f"{topic.PLACE}.{key}", read[key])
    return topic(**read)


def _component(group: str, values: Plain) -> Component | None:
    node = values.get(group)
    return None if node is None else Component.of(group, node, own_keys(group))


def _quant(node: Plain) -> QuantSettings:
    weights = {way: CodecChoice.of(f"quant.weights.{way}", node["weights"][way]) for way in WEIGHTS_CODECS}
    codecs: Any = {kind: CodecChoice.of(f"quant.{kind}", node[kind]) for kind in QUANT_CODECS}
    return QuantSettings(
        **codecs,
        weights=WeightsCodecChoices(**weights),
        continue_from_decoded=node["continue_from_decoded"],
    )


def _write(value: object) -> object:
    return value.plain() if isinstance(value, Component) else value


def _in_order(values: Plain, like: object) -> dict[str, Any]:
    """Values in the order of the keys of `like`, those that it lacks last."""
    order = list(like) if isinstance(like, Mapping) else []
    keys = [*(key for key in order if key in values), *(key for key in values if key not in order)]
    return {
        key: _in_order(values[key], like.get(key) if isinstance(like, Mapping) else None)
        if isinstance(values[key], Mapping)
        else values[key]
        for key in keys
    }
