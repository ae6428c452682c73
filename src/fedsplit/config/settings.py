"""The shape of a configuration: a dataclass for each topic, whose annotations values are held against.

A key is written once, as the name of a field: a topic with a `PLACE` holds keys below it, one without holds
keys at the top level. `hydra_config/config.yaml` says what each key means.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, TypeAlias, get_args, get_type_hints

from fedsplit.config.component import Component
from fedsplit.config.values import (
    BelowOne,
    Fraction,
    HalfPrecision,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
)

_DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d?))?")
Device: TypeAlias = Annotated[
    str, Range("auto, cpu, cuda or cuda:N", lambda value: _DEVICE.fullmatch(value) is not None)
]
Level: TypeAlias = Annotated[int, Range("a level of zstandard, 1 to 22", lambda v: 1 <= v <= 22)]
WeightBits: TypeAlias = Literal[16, 8, 4, 2, 1]
Threads: TypeAlias = Annotated[int, Range("a whole number from 1 to 1024", lambda v: 1 <= v <= 1024)]


class Topic:
    """Plain keys that are read together."""

    PLACE: ClassVar[str] = ""
    """The key that they are below; empty at the top level."""


@dataclass(frozen=True)
class TrainingSettings(Topic):
    """Local training of a round, and the seed of everything that is drawn."""

    seed: NonNegativeInt
    local_epochs: PositiveInt
    batch_size: PositiveInt


@dataclass(frozen=True)
class PopulationSettings(Topic):
    """Number of clients, and of those that take part in a round."""

    num_clients: PositiveInt
    cohort_size: PositiveInt | None

    @property
    def cohort(self) -> int:
        """Number of clients in a round."""
        return self.cohort_size or self.num_clients


@dataclass(frozen=True)
class BudgetSettings(Topic):
    """Limits of a run, which stops at the first that is reached."""

    rounds: PositiveInt
    comm_threshold_mb: PositiveFloat | None
    time_limit_s: PositiveFloat | None
    target_accuracy: Fraction | None
    target_perplexity: PositiveFloat | None


@dataclass(frozen=True)
class ComputationSettings(Topic):
    """Settings of the computation of passes through models."""

    device: Device
    threads: Threads
    precision: Literal["fp32", "tf32", "bf16"]
    compile: bool
    cuda_graphs: bool


@dataclass(frozen=True)
class RoundingSettings(Topic):
    """Settings of the rounding of client models' weights and activations in training."""

    qat: bool
    weight_bits: WeightBits | None


@dataclass(frozen=True)
class EvaluationSettings(Topic):
    """Measurements of the model, and when they are taken."""

    eval_batch_size: PositiveInt
    eval_interval: PositiveInt
    measure_gradient_error: bool


@dataclass(frozen=True)
class RecordingSettings(Topic):
    """Checkpoints of a run and the progress that it shows."""

    checkpoint_interval: PositiveInt
    progress: bool


@dataclass(frozen=True)
class OriginSettings(Topic):
    """Earlier runs that this one takes something from, and whether their files may name code."""

    resume: str | None
    run: str | None
    trust: bool


@dataclass(frozen=True)
class AlignmentSettings(Topic):
    """Settings of auxiliary models' fits: keys of `auxiliary` that are no arguments of the model."""

    PLACE = "auxiliary"
    align_epochs: PositiveInt
    align_batch_size: PositiveInt
    max_dataset_size: PositiveInt
    keep_clients: PositiveInt | None
    memory_mb: PositiveFloat | None
    align_tolerance: BelowOne | None
    optimizer: Component


@dataclass(frozen=True)
class LocalStepSettings(Topic):
    """Rule of a client's local step: a key of `algorithm` that is no argument of the algorithm."""

    PLACE = "algorithm"
    local_rule: Component


@dataclass(frozen=True)
class SplittingSettings(Topic):
    """Settings of the cut of the model: keys of `model` that are no arguments of the model."""

    PLACE = "model"
    cut: str | PositiveInt | None
    tail_cut: str | None
    stages: list[str] | None
    untie: bool
    norm: Literal["group"] | None
    auxiliary: str


@dataclass(frozen=True)
class ClientSettings(Topic):
    """State that clients keep, and the identity of a client of another machine's run."""

    PLACE = "client"
    stateless: bool
    id: NonNegativeInt | None
    directory: str | None
    min_noise: PositiveFloat | None
    model: str | None
    memory_mb: PositiveFloat | None


@dataclass(frozen=True)
class SweepSettings(Topic):
    """Setting of a sweep that goes on with an earlier one."""

    PLACE = "sweep"
    skip_finished: bool


@dataclass(frozen=True)
class CodecChoice:
    """A codec, and the level of zstandard behind it; None leaves that out."""

    component: Component
    zstd: Level | None

    @classmethod
    def of(cls, key: str, node: Mapping[str, object]) -> "CodecChoice":
        """Read a checked node of a configuration."""
        return cls(Component.of(key, node, ("zstd",)), node["zstd"])  # type: ignore[arg-type]

    def plain(self) -> dict[str, object]:
        """The node that `of` reads."""
        return {**self.component.plain(), "zstd": self.zstd}


@dataclass(frozen=True)
class WeightsCodecChoices:
    """Codecs for weights: differences to the server and to clients, and whole to a client that has none."""

    up: CodecChoice
    down: CodecChoice
    whole: CodecChoice


@dataclass(frozen=True)
class QuantSettings:
    """A codec for each kind of message, and whether clients' heads go on from what the server decodes."""

    smashed: CodecChoice
    cut_gradient: CodecChoice
    weights: WeightsCodecChoices
    continue_from_decoded: bool


@dataclass(frozen=True, kw_only=True)
class ConfigFields:
    """All that a configuration holds.

    Args:
        client_precisions: precisions of client halves, for `task=infer`; empty elsewhere.
        choices: names of what was chosen, by `group` or `group@place`; empty where nobody knows them.
    """

    training: TrainingSettings
    population: PopulationSettings
    budget: BudgetSettings
    computation: ComputationSettings
    rounding: RoundingSettings
    evaluation: EvaluationSettings
    recording: RecordingSettings
    origin: OriginSettings
    client: ClientSettings
    sweep: SweepSettings | None
    alignment: AlignmentSettings
    local_step: LocalStepSettings
    splitting: SplittingSettings
    quant: QuantSettings
    task: Component
    algorithm: Component
    model: Component
    adapter: Component
    auxiliary: Component
    estimator: Component
    dataset: Component
    distribution: Component
    optimizer: Component
    client_optimizer: Component | None
    server_optimizer: Component | None
    scheduler: Component
    engine: Component
    transport: Component
    cluster: Component
    tracker: Component
    network: Component
    generation: Component
    defence: Component
    client_precisions: tuple[HalfPrecision, ...] = ()
    choices: Mapping[str, str | None] = field(default_factory=dict)


def keys_of(topic: type) -> dict[str, object]:
    """The keys of a topic and what each may be; `Component` stands for a choice of a group."""
    hints = get_type_hints(topic, include_extras=True)
    return {
        key: dict[str, object] if kind is Component else kind for key, kind in hints.items() if key != "PLACE"
    }


_FIELDS = get_type_hints(ConfigFields)
GROUPS = tuple(name for name, kind in _FIELDS.items() if kind is Component)
"""Groups of which something must be chosen."""
OPTIONAL_GROUPS = tuple(name for name, kind in _FIELDS.items() if kind == Component | None)
"""Groups of which null may be chosen."""
QUANT_CODECS, WEIGHTS_CODECS = (
    tuple(name for name, kind in get_type_hints(holder).items() if kind is CodecChoice)
    for holder in (QuantSettings, WeightsCodecChoices)
)
CODECS = (*(f"quant.{kind}" for kind in QUANT_CODECS), *(f"quant.weights.{way}" for way in WEIGHTS_CODECS))
"""Keys that choose a codec: `quant.smashed=sign` means `codec@quant.smashed=sign`."""
TOPICS: dict[str, type[Topic]] = {
    name: each
    for name, kind in _FIELDS.items()
    for each in (kind, *get_args(kind))
    if isinstance(each, type) and issubclass(each, Topic)
}
