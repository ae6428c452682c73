"""Checks a composed configuration without importing anything heavy."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, get_type_hints

from fedsplit.config.choices import names_of
from fedsplit.config.signature import signature, unknown_target
from fedsplit.config.task_traits import TaskTraits, task_traits, traits_of_choice
from fedsplit.config.values import (
    LARGEST,
    BelowOne,
    Fraction,
    HalfPrecision,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    allowed,
    fits,
)
from fedsplit.errors import UserError

_CUT, _WEIGHTS = ("smashed", "cut_gradient"), ("up", "down", "whole")
CODECS = (*(f"quant.{kind}" for kind in _CUT), *(f"quant.weights.{way}" for way in _WEIGHTS))
"""Where a codec is chosen: `quant.smashed=sign` means `codec@quant.smashed=sign`."""
_DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d?))?")
Device: TypeAlias = Annotated[
    str, Range("auto, cpu, cuda or cuda:N", lambda value: _DEVICE.fullmatch(value) is not None)
]
Level: TypeAlias = Annotated[int, Range("a level of zstandard, 1 to 22", lambda v: 1 <= v <= 22)]
WeightBits: TypeAlias = Annotated[int, Range("one of 16, 8, 4, 2, 1", lambda v: v in (16, 8, 4, 2, 1))]
Threads: TypeAlias = Annotated[int, Range("a whole number from 1 to 1024", lambda v: 1 <= v <= 1024)]


@dataclass(frozen=True)
class Settings:
    """The keys at the top level; `hydra_config/config.yaml` says what each means."""

    seed: NonNegativeInt
    threads: Threads
    device: Device
    rounds: PositiveInt
    num_clients: PositiveInt
    cohort_size: PositiveInt | None
    local_epochs: PositiveInt
    batch_size: PositiveInt
    eval_batch_size: PositiveInt
    eval_interval: PositiveInt
    comm_threshold_mb: PositiveFloat | None
    time_limit_s: PositiveFloat | None
    target_accuracy: Fraction | None
    checkpoint_interval: PositiveInt
    resume: str | None
    run: str | None
    trust: bool
    progress: bool
    precision: Literal["fp32", "tf32", "bf16"]
    compile: bool
    cuda_graphs: bool
    qat: bool
    weight_bits: WeightBits | None
    measure_gradient_error: bool


@dataclass(frozen=True)
class AlignmentSettings:
    """Keys of the `auxiliary` group that are about alignment, not about the auxiliary model."""

    align_epochs: PositiveInt
    align_batch_size: PositiveInt
    max_dataset_size: PositiveInt
    memory_mb: PositiveFloat | None
    align_tolerance: BelowOne | None
    optimizer: dict[str, Any]


@dataclass(frozen=True)
class ModelSettings:
    """Keys of the `model` group that are about splitting, not about the model."""

    cut: str | PositiveInt | None
    stages: list[str] | None
    untie: bool
    auxiliary: str


@dataclass(frozen=True)
class ClientSettings:
    """Keys of `client`."""

    stateless: bool
    id: NonNegativeInt | None
    directory: str | None
    model: str | None
    memory_mb: PositiveFloat | None


@dataclass(frozen=True)
class SweepSettings:
    """Keys of `sweep`."""

    skip_finished: bool


@dataclass(frozen=True)
class CodecSettings:
    """Keys of a codec in the `quant` group that are not the codec's own."""

    zstd: Level | None


SETTINGS = get_type_hints(Settings, include_extras=True)
_OWN_KEYS: dict[str, dict[str, Any]] = {
    "auxiliary": get_type_hints(AlignmentSettings, include_extras=True),
    "model": get_type_hints(ModelSettings, include_extras=True),
}
_CLIENT_KEYS = get_type_hints(ClientSettings, include_extras=True)
_SWEEP_KEYS = get_type_hints(SweepSettings, include_extras=True)
_CODEC_KEYS = get_type_hints(CodecSettings, include_extras=True)

_DATASET_KEYS: dict[str, Any] = {"root": str | None, "download": bool | None}
"""Of the machine of a client."""

GROUPS = (
    "task",
    "algorithm",
    "model",
    "auxiliary",
    "estimator",
    "dataset",
    "distribution",
    "optimizer",
    "scheduler",
    "engine",
    "transport",
    "tracker",
    "network",
)
OPTIONAL_GROUPS = ("client_optimizer", "server_optimizer")


RESUMABLE = (
    "rounds",
    "comm_threshold_mb",
    "time_limit_s",
    "target_accuracy",
    "device",
    "cuda_graphs",
    "progress",
    "tracker",
    "trust",
    "dataset.root",
)
"""What may be given anew beside `resume`, and all below it."""
OF_NO_CONSEQUENCE = (
    *RESUMABLE,
    *("choices.tracker", "resume", "dataset.download", "transport.listen", "transport.tls"),
)
"""In what the configuration of a resumed run may differ from that of its checkpoint, and all below it."""


def check(config: Mapping[str, Any]) -> None:
    """Check every key of a composed configuration.

    Raises:
        UserError: names the key, its value and what is allowed.
    """
    task = task_traits(config)
    for key, annotation in SETTINGS.items():
        if not (task.deploys and key == "precision"):
            _check_there(key, config, annotation)
    if task.deploys:
        _check_deployed(config.get("precision"))
    if task.joins:
        _check_joined(config.get("dataset"))
    _check_groups(config, task)
    _check_quant(config.get("quant"))
    _check_plain("client", config.get("client"), _CLIENT_KEYS)
    if "sweep" in config:  # a run's own configuration is without
        _check_plain("sweep", config["sweep"], _SWEEP_KEYS)
    for group, node in config.items():
        if isinstance(node, Mapping) and "_target_" in node:
            _check_node(group, node, _own_keys(group))
    _check_run(task, config["run"])
    if config["cohort_size"] is not None and config["cohort_size"] > config["num_clients"]:
        raise UserError("cohort_size", config["cohort_size"], f"at most num_clients, {config['num_clients']}")
    if config["cuda_graphs"] and config["compile"]:
        raise UserError("cuda_graphs", True, "must be false with compile=true")
    if not task.deploys:
        _check_fake_quantization(config)


def _check_groups(config: Mapping[str, Any], task: TaskTraits) -> None:
    """That all groups are there, and nothing else is."""
    needed = [group for group in GROUPS if not (task.joins and group == "dataset")]
    for group in (*needed, *(side for side in OPTIONAL_GROUPS if config.get(side) is not None)):
        if not isinstance(config.get(group), Mapping):
            raise UserError(group, config.get(group), "a choice of this group is needed")
        if "_target_" not in config[group]:
            raise UserError(f"{group}._target_", None, "is missing: the dotted path of a class or function")
    known = (*SETTINGS, *GROUPS, *OPTIONAL_GROUPS, "quant", "client", "sweep")
    for key in config:
        if key not in known:
            raise UserError(key, config[key], f"no such key; known: {', '.join(known)}")


def _check_fake_quantization(config: Mapping[str, Any]) -> None:
    """What rounding of the client model does not go with."""
    qat, weight_bits = config["qat"], config["weight_bits"]
    if not qat and weight_bits is None:
        return
    asked = "qat=true" if qat else f"weight_bits={weight_bits}"
    if qat and weight_bits == 16:
        raise UserError(
            "weight_bits", 16, "must be 8, 4, 2, 1 or null with qat=true: its layers compute in int8"
        )
    if config["precision"] != "fp32":
        raise UserError("precision", config["precision"], f"must be fp32 with {asked}: others round it away")
    if config["engine"]["_target_"] == "fedsplit.parties.vectorized.Vectorized":
        raise UserError("engine", "vectorized", f"must be auto or sequential with {asked}")
    if config["cuda_graphs"]:
        raise UserError("cuda_graphs", True, f"must be false with {asked}: never tried on a GPU")


def _check_run(task: TaskTraits, run: str | None) -> None:
    """What asks for the trained models of a run."""
    if task.models_of_run == "needed" and run is None:
        raise UserError("run", None, "the directory of a trained run is needed: run=saves/...")
    if task.models_of_run == "refused" and run is not None:
        takers = [name for name in names_of("task") if traits_of_choice(name).models_of_run != "refused"]
        raise UserError("run", run, f"goes with task={' or '.join(takers)}, which take its models")


def _check_deployed(given: object) -> None:
    """The precisions of client halves: one or a list."""
    precisions = given if isinstance(given, list | tuple) else [given]
    for precision in precisions:
        _check_value("precision", precision, HalfPrecision)
    if not precisions or len(set(precisions)) < len(precisions):
        raise UserError("precision", given, "at least one, and each once")


def _check_joined(dataset: object) -> None:
    """What a client of another machine's run may say of the data set, which is chosen there."""
    if not isinstance(dataset, Mapping):
        raise UserError("dataset", dataset, f"must hold {', '.join(_DATASET_KEYS)}")
    for key, value in dataset.items():
        if key not in _DATASET_KEYS:
            told = f"is the server's to say; of this machine are {', '.join(_DATASET_KEYS)}"
            raise UserError(f"dataset.{key}", value, told)
        _check_value(f"dataset.{key}", value, _DATASET_KEYS[key])


def _check_plain(path: str, node: object, annotations: Mapping[str, Any]) -> None:
    if not isinstance(node, Mapping):
        raise UserError(path, node, f"must hold {', '.join(annotations)}")
    for key, value in node.items():
        if key not in annotations:
            raise UserError(f"{path}.{key}", value, f"no such key; known: {', '.join(annotations)}")
    for key, annotation in annotations.items():
        _check_there(f"{path}.{key}", node, annotation)


def _check_quant(quant: object) -> None:
    for path, codecs, others in (
        ("quant", _CUT, ("weights", "continue_from_decoded")),
        ("quant.weights", _WEIGHTS, ()),
    ):
        node = quant if path == "quant" else quant.get("weights")  # type: ignore[attr-defined]
        if not isinstance(node, Mapping):
            raise UserError(path, node, "a choice of this group is needed")
        for key, value in node.items():
            if key not in (*codecs, *others):
                known = ", ".join((*codecs, *others))
                raise UserError(f"{path}.{key}", value, f"no such key; known: {known}")
        for key in codecs:
            _check_codec(f"{path}.{key}", node.get(key))
    _check_value("quant.continue_from_decoded", quant.get("continue_from_decoded"), bool)  # type: ignore[attr-defined]


def _check_codec(path: str, node: object) -> None:
    if not isinstance(node, Mapping):
        raise UserError(path, node, "a codec is needed")
    _check_node(path, node, _own_keys(path))


def _own_keys(path: str) -> dict[str, Any]:
    """By name: keys at `path` that are not arguments of the `_target_` there."""
    if path in CODECS or path.startswith("task.codecs."):
        return _CODEC_KEYS
    return _OWN_KEYS.get(path, {})


def arguments(group: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a group's `_target_`: its node without the keys of others."""
    return {key: value for key, value in node.items() if key not in _own_keys(group)}


def _check_node(path: str, node: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    target = node.get("_target_")
    if not isinstance(target, str) or unknown_target(target):
        raise UserError(f"{path}._target_", target, "the dotted path of a class or function")
    known = signature(target)
    for key in own:
        if key not in node:
            raise UserError(f"{path}.{key}", None, f"is missing; must be {allowed(own[key])}")
    for key, value in node.items():
        if isinstance(value, Mapping) and ("_target_" in value or key == "optimizer"):
            _check_node(f"{path}.{key}", value, {})
        elif path == "task" and key == "codecs" and isinstance(value, Mapping):
            for name, codec in value.items():
                _check_codec(f"task.codecs.{name}", codec)
        elif key in own:
            _check_value(f"{path}.{key}", value, own[key])
        elif known is not None and not key.startswith("_"):
            if key not in known.annotations and not known.open:
                raise UserError(f"{path}.{key}", value, f"no such key; known: {', '.join(known.annotations)}")
            _check_value(f"{path}.{key}", value, known.annotations.get(key))


def _check_there(path: str, node: Mapping[str, Any], annotation: Any) -> None:
    """A value that must not be left out, even where it may be null."""
    key = path.rpartition(".")[2]
    if key not in node:
        raise UserError(path, None, f"is missing; must be {allowed(annotation)}")
    _check_value(path, node[key], annotation)


def _check_value(key: str, value: object, annotation: Any) -> None:
    if annotation is not None and not fits(annotation, value):
        limit = f", up to {LARGEST:g}" if isinstance(value, int | float) and abs(value) > LARGEST else ""
        raise UserError(key, value, f"must be {allowed(annotation)}{limit}")
