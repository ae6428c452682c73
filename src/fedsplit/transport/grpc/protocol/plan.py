"""Plan of a run as a client is sent it: choices of its own groups, and plain values for their keys.

No class or function is ever named over the wire: a client composes its configuration from what it has
installed itself, and refuses all else.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch

from fedsplit.config.choices import file_of, user_directory
from fedsplit.config.component import Component
from fedsplit.config.compose import compose_config, composing, run_config
from fedsplit.config.dotted_keys import below
from fedsplit.config.run_config import RunConfig, leaves
from fedsplit.config.settings import CODECS
from fedsplit.config.values import LARGEST
from fedsplit.data.dataset import Dataset, Sizes
from fedsplit.data.images import ImageDataset, Images, Normalisation
from fedsplit.data.texts import TextDataset
from fedsplit.errors import UserError
from fedsplit.quant.message import Corrupt
from fedsplit.transport.grpc.protocol import federation_pb2 as pb

GROUPS = (
    "algorithm",
    "model",
    "adapter",
    "auxiliary",
    "estimator",
    "dataset",
    "distribution",
    "optimizer",
    "client_optimizer",
    "server_optimizer",
    "optimizer@auxiliary.optimizer",
    "local_rule@algorithm.local_rule",
    "scheduler",
    "quant",
    "defence",
    *(f"codec@{path}" for path in CODECS),
)
"""Groups that a server decides for its clients; the other groups are each party's own."""
OWN = (
    "device",
    "progress",
    "resume",
    "run",
    "trust",
    "task",
    "transport",
    "engine",
    "tracker",
    "network",
    "generation",
    "choices",
    "sweep",
    "client.id",
    "client.directory",
    "client.min_noise",
    "client.model",
    "client.memory_mb",
)
"""Keys that are each party's own, and all below them."""
_FILES = ("dataset.root", "dataset.tokenizer_files", "dataset.download")
_CLASSES = ("model.auxiliary",)
_CHOICE = re.compile(r"[A-Za-z0-9_]{1,100}")
_KEY = re.compile(r"[A-Za-z0-9_.]{1,200}")
_LONGEST = 4096
"""Most characters of a text value."""


_OF_ONES_OWN = "clients compose choices of their own: with transport=grpc make it a file of its group"


def _is_installed(group: str, choice: str) -> bool:
    return file_of(group.partition("@")[0], choice) is not None


def _is_own(key: str, config: RunConfig) -> bool:
    named = any(part.startswith("_") for part in key.split("."))
    return named or key in (*_CLASSES, *_paths(config)) or below(key, OWN)


def _paths(config: RunConfig) -> set[str]:
    """Keys that say where files are, or whether to fetch them: a server opens nothing at its clients."""
    return {*_FILES, *config.of_this_machine()}


def _settings(config: RunConfig) -> dict[str, object]:
    """Values by dotted key; an argument that takes a mapping is one of them."""
    components = [each for each in vars(config).values() if isinstance(each, Component)]
    whole = [
        f"{component.key}.{name}"
        for component in components
        for name, value in component.arguments.items()
        if isinstance(value, Mapping) and "_target_" not in value
    ]
    return dict(leaves(config.plain(), whole=whole))


def choices_and_settings(config: RunConfig) -> pb.Plan:
    """The plan of a run, without what is known of its data.

    Raises:
        UserError: the configuration is not made of choices and plain values alone.
    """
    values = _settings(config)
    chosen = {group: choice for group, choice in config.choices.items() if group in GROUPS and choice}
    for group, choice in chosen.items():
        if not _is_installed(group, choice):
            place = group.partition("@")[2] or group
            key = f"{place}._target_"
            raise UserError(key, values[key], _OF_ONES_OWN)
    plan = pb.Plan(choices=chosen)
    for key, value in values.items():
        if not _is_own(key, config):
            try:
                plan.settings.append(pb.Setting(key=key, value=_pack(value)))
            except (TypeError, ValueError) as error:  # ValueError: beyond 64 bits, or no Unicode
                raise UserError(key, value, "cannot be sent to clients with transport=grpc") from error
    again, own = _settings(configuration(plan)), (*OWN, *_paths(config))
    for key, value in values.items():
        if not below(key, own) and (key not in again or again[key] != value):
            raise UserError(key, value, _OF_ONES_OWN)
    return plan


def tell_of_data(plan: pb.Plan, dataset: Dataset) -> None:
    """Add to a plan what a client must know of the data of the run.

    Raises:
        UserError: the name of a class is no text.
    """
    for name in dataset.class_names:
        if name != name.encode("utf-8", "replace").decode("utf-8"):
            message = (
                f"class {name!a} is no UTF-8 and cannot be sent to clients with transport=grpc; rename it"
            )
            raise UserError("dataset", name, message)
    plan.classes.extend(dataset.class_names)
    plan.num_classes = dataset.num_classes
    match dataset:
        case ImageDataset(train=Images(normalise=Normalisation(scale=scale, shift=shift))):
            channels, side, _ = dataset.sizes.shape
            plan.images.CopyFrom(
                pb.Images(channels=channels, side=side, scale=scale.tolist(), shift=shift.tolist())
            )
        case TextDataset(tokenizer=tokenizer):
            plan.texts.CopyFrom(pb.Texts(tokenizer=tokenizer, **_of_texts(dataset.sizes)))


def preparation(plan: pb.Plan) -> Callable[[Dataset], Dataset]:
    """Function that prepares the data of a client as those of the run are.

    It raises `UserError` where the data are not what the run is about.

    Raises:
        Corrupt: the plan does not say how.
    """
    if plan.WhichOneof("data") == "images":
        return partial(_prepared_images, plan, normalisation(plan.images))
    if plan.WhichOneof("data") == "texts":
        return partial(_prepared_texts, plan)
    raise Corrupt("the plan does not describe the data")


def normalisation(images: pb.Images) -> Normalisation:
    """The normalisation that a plan tells.

    Raises:
        Corrupt: it is none.
    """
    scale, shift = images.scale, images.shift
    if not images.channels or not len(scale) == len(shift) == images.channels:
        raise Corrupt("the plan must have a normalisation for each channel")
    if not all(abs(each) <= LARGEST for each in (*scale, *shift)):
        raise Corrupt("the plan has a normalisation that is not finite")
    return Normalisation(torch.tensor(scale, dtype=torch.float64), torch.tensor(shift, dtype=torch.float64))


def _prepared_images(plan: pb.Plan, normalise: Normalisation, dataset: Dataset) -> Dataset:
    shape = (plan.images.side, plan.images.side, plan.images.channels)
    if not isinstance(dataset, ImageDataset):
        raise UserError("dataset.root", "texts", f"the run is about images {shape}")
    found = tuple(dataset.train.pixels.shape[1:])
    if found != shape:
        raise UserError("dataset.root", f"images {found}", f"the run is about images {shape}")
    if dataset.num_classes != plan.num_classes:
        raise UserError("dataset.root", f"{dataset.num_classes} classes", f"the run has {plan.num_classes}")
    device = dataset.train.labels.device
    return dataset.normalise_by(normalise.to(device, torch.get_default_dtype()))


def _prepared_texts(plan: pb.Plan, dataset: Dataset) -> Dataset:
    if not isinstance(dataset, TextDataset):
        raise UserError("dataset.root", "images", "the run is about texts")
    if dataset.tokenizer != plan.texts.tokenizer:
        message = "the run's has other files, or was trained on other texts"
        raise UserError("dataset.tokenizer", dataset.tokenizer[:12], message)
    found = {"classes": dataset.num_classes, **_of_texts(dataset.sizes)}
    wanted = {"classes": plan.num_classes, "vocabulary": plan.texts.vocabulary, "context": plan.texts.context}
    if found != wanted:
        raise UserError("dataset", found, f"the run is about texts of {wanted}")
    return dataset


def _of_texts(sizes: Sizes) -> dict[str, int]:
    return {name: sizes.arguments[name] for name in ("vocabulary", "context")}


def configuration(plan: pb.Plan) -> RunConfig:
    """The configuration that a plan stands for, composed here and checked.

    Raises:
        Corrupt: it names what no server may.
        UserError: this installation has no such choice or key, or a value is not allowed.
    """
    for group, choice in plan.choices.items():
        if group not in GROUPS:
            raise Corrupt(f"the plan sets the group {group[:80]!r}, which no server decides")
        if not _CHOICE.fullmatch(choice):
            raise Corrupt(f"the plan sets the choice {choice[:80]!r}, which is not a name")
        if not _is_installed(group, choice):
            raise UserError(group.removeprefix("codec@"), choice, "this installation has no such choice")
    config = _of_choices(plan.choices)
    known, changes = _settings(config), {}
    for setting in plan.settings:
        key, value = setting.key, _unpack(setting.value)
        if _is_own(key, config) or not _KEY.fullmatch(key):
            raise Corrupt(f"the plan sets the key {key[:80]!r}, which no server decides")
        if key not in known:
            raise UserError(key, value, "this installation has no such key")
        changes[key] = value
    return config.with_changes(changes)


Choices: TypeAlias = tuple[Path | None, *tuple[tuple[str, str], ...]]
"""The directory of the user's own choices, and the choices of a plan by group."""
_COMPOSED: dict[Choices, RunConfig] = {}
"""Configurations that this process has composed, by their choices."""
_MOST_COMPOSED = 64


def _of_choices(choices: Mapping[str, str]) -> RunConfig:
    """Configuration that this installation makes of choices, composed once, as it takes long."""
    named = tuple(sorted(choices.items()))
    key: Choices = (user_directory(), *named)
    if key not in _COMPOSED:
        if len(_COMPOSED) >= _MOST_COMPOSED:
            _COMPOSED.clear()
        with composing():
            _COMPOSED[key] = run_config(compose_config([f"{group}={choice}" for group, choice in named]))
    return _COMPOSED[key]


def compositions() -> Mapping[Choices, RunConfig]:
    """Configurations that this process has composed of plans, for `take_over` in another process."""
    return _COMPOSED


def take_over(composed: Mapping[Choices, RunConfig]) -> None:
    """Let `configuration` find what another process of this installation has composed."""
    _COMPOSED.update(composed)


def configuration_of_client(plan: pb.Plan, client: int, own: Mapping[str, object]) -> RunConfig:
    """The configuration that a plan stands for, in the process of one client.

    Args:
        plan: plan of the run.
        client: number of the client.
        own: keys that are this machine's own, such as `dataset.root`; what a run has no use for is left out.

    Raises:
        Corrupt: the plan names what no server may.
        UserError: this installation has no such choice or key, or the run no such client.
    """
    config = configuration(plan)
    known = config.of_this_machine()
    config = config.with_changes({key: value for key, value in own.items() if key in known})
    if client >= (clients := config.population.num_clients):
        raise UserError("client.id", client, f"below num_clients={clients}")
    if config.choices["distribution"] == "own" and "classes" in config.dataset.arguments:
        arguments = {**config.dataset.arguments, "classes": list(plan.classes)}
        config = replace(config, dataset=replace(config.dataset, arguments=arguments))
    return config


def _is_key(name: object) -> bool:
    """True if a mapping may have such a key; those with a line in front mean something to Hydra."""
    return isinstance(name, str) and bool(_KEY.fullmatch(name)) and not name.startswith("_")


def _checked_key(name: str) -> str:
    if not _is_key(name):
        raise Corrupt("the plan has a mapping with keys that no server sends")
    return name


def _is_plain(text: str) -> bool:
    """True if a text stands for itself: an interpolation would be looked up, also in the environment."""
    return text.isprintable() and len(text) <= _LONGEST and "${" not in text and text != "???"


def _pack(value: object) -> pb.Value:  # noqa: PLR0911  (one return a kind of value)
    match value:
        case None:
            return pb.Value(nothing=True)
        case bool():
            return pb.Value(truth=value)
        case int():
            return pb.Value(whole=value)
        case float():
            return pb.Value(real=value)
        case str() if _is_plain(value):
            return pb.Value(text=value)
        case list() | tuple():
            return pb.Value(list=pb.List(items=[_pack(item) for item in value]))
        case Mapping() if all(map(_is_key, value)):
            return pb.Value(map=pb.Map(items={key: _pack(each) for key, each in value.items()}))
    raise TypeError(type(value))


def _unpack(value: pb.Value, depth: int = 0) -> object:
    kind = value.WhichOneof("kind")
    if kind is None or depth > 8:
        raise Corrupt("the plan has a setting without a value")
    if kind == "nothing":
        return None
    if kind == "list":
        return [_unpack(item, depth + 1) for item in value.list.items]
    if kind == "map":
        return {_checked_key(key): _unpack(each, depth + 1) for key, each in value.map.items.items()}
    if kind == "text" and not _is_plain(value.text):
        raise Corrupt("the plan has a text that would be read as something else")
    return getattr(value, kind)
