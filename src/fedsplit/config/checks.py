"""Checks the keys of a composed configuration, each and together, without importing anything heavy."""

from collections.abc import Mapping

from fedsplit.config.choices import names_of
from fedsplit.config.settings import (
    CODECS,
    GROUPS,
    OPTIONAL_GROUPS,
    QUANT_CODECS,
    TOPICS,
    WEIGHTS_CODECS,
    CodecChoice,
    ConfigFields,
    keys_of,
)
from fedsplit.config.signature import signature, unknown_target
from fedsplit.config.traits import TaskTraits, task_traits, traits_of_choice
from fedsplit.config.values import LARGEST, HalfPrecision, OwnPath, Plain, describe_allowed, fits
from fedsplit.errors import UserError

SETTINGS = {key: kind for topic in TOPICS.values() if not topic.PLACE for key, kind in keys_of(topic).items()}
"""The keys at the top level, and what each may be."""
_OWN_KEYS = {topic.PLACE: keys_of(topic) for topic in TOPICS.values() if topic.PLACE}
_CODEC_KEYS = {"zstd": keys_of(CodecChoice)["zstd"]}

_JOINED_KEYS: dict[str, dict[str, object]] = {
    "dataset": {"root": str | None, "tokenizer_files": str | None, "download": bool | None},
    "model": {"name": OwnPath | None},
}
"""Keys that a client's machine sets itself within the groups that a server chooses."""

RESUMABLE = (
    "rounds",
    "comm_threshold_mb",
    "time_limit_s",
    "target_accuracy",
    "target_perplexity",
    "device",
    "cuda_graphs",
    "progress",
    "tracker",
    "cluster",
    "trust",
    "dataset.root",
    "dataset.tokenizer_files",
)
"""Keys that may be given anew beside `resume`, with all keys below them."""
OF_NO_CONSEQUENCE = (
    *RESUMABLE,
    *(
        "choices.tracker",
        "choices.cluster",
        "resume",
        "dataset.download",
        "transport.listen",
        "transport.tls",
    ),
)
"""Keys in which a resumed run may differ from its checkpoint, with all keys below them."""


_SAID_FOR_EVERY_MODEL = {"untie": False, "auxiliary": "fedsplit.models.auxiliary.LinearAuxiliary"}
"""Defaults of `model.*` in `hydra_config/config.yaml`; those of other keys are null."""


def check_keys(config: Plain) -> None:
    """Check every key of a composed configuration by itself; `UserError` says what is allowed."""
    task = task_traits(config)
    for key, annotation in SETTINGS.items():
        if not (task.deploys and key == "precision"):
            _check_presence(key, config, annotation)
    if task.deploys:
        _check_deployment(config.get("precision"))
    if task.joins:
        for group, keys in _JOINED_KEYS.items():
            _check_joining_client(group, config.get(group), keys)
    _check_groups(config, task)
    _check_quant(config.get("quant"))
    _check_plain("client", config.get("client"), _OWN_KEYS["client"])
    if "sweep" in config:  # a run's own configuration is without
        _check_plain("sweep", config["sweep"], _OWN_KEYS["sweep"])
    for group, node in config.items():
        if isinstance(node, Mapping) and "_target_" in node:
            _check_node(group, node, own_keys(group))
    _check_run(task, config["run"])


def _check_groups(config: Plain, task: TaskTraits) -> None:
    """Check that all groups are there, and nothing else."""
    needed = [group for group in GROUPS if not (task.joins and group in _JOINED_KEYS)]
    for group in (*needed, *(side for side in OPTIONAL_GROUPS if config.get(side) is not None)):
        if not isinstance(config.get(group), Mapping):
            raise UserError(group, config.get(group), "must be a choice of this group")
        if "_target_" not in config[group]:
            raise UserError(f"{group}._target_", None, "is missing: the dotted path of a class or function")
    known = (*SETTINGS, *GROUPS, *OPTIONAL_GROUPS, "quant", "client", "sweep")
    for key in config:
        if key not in known:
            raise UserError(key, config[key], f"no such key; known: {', '.join(known)}")


def _check_run(task: TaskTraits, run: str | None) -> None:
    """Check the key `run`, which asks for the trained models of a run."""
    if task.models_of_run == "needed" and run is None:
        raise UserError("run", None, "must be the directory of a trained run, as run=saves/...")
    if task.models_of_run == "refused" and run is not None:
        takers = [name for name in names_of("task") if traits_of_choice(name).models_of_run != "refused"]
        raise UserError(
            "run", run, f"must be null: only task={' or '.join(takers)} takes the models of a run"
        )


def _check_deployment(given: object) -> None:
    """The precisions of client halves: one or a list."""
    precisions = given if isinstance(given, list | tuple) else [given]
    for precision in precisions:
        _check_value("precision", precision, HalfPrecision)
    if not precisions or len(set(precisions)) < len(precisions):
        raise UserError("precision", given, "must hold at least one, and each only once")


def _check_joining_client(group: str, node: object, own: Mapping[str, object]) -> None:
    """Check the data set or model of a client of another machine's run, which says only what is its own."""
    if not isinstance(node, Mapping):
        raise UserError(group, node, f"must hold {', '.join(own)}")
    for key, value in node.items():
        if key in own_keys(group) and value == _SAID_FOR_EVERY_MODEL.get(key):
            continue  # a default, which says nothing
        if key not in own:
            message = f"is the server's to say; of this machine are {', '.join(own)}"
            raise UserError(f"{group}.{key}", value, message)
        _check_value(f"{group}.{key}", value, own[key])


def _check_plain(path: str, node: object, annotations: Mapping[str, object]) -> None:
    if not isinstance(node, Mapping):
        raise UserError(path, node, f"must hold {', '.join(annotations)}")
    for key, value in node.items():
        if key not in annotations:
            raise UserError(f"{path}.{key}", value, f"no such key; known: {', '.join(annotations)}")
    for key, annotation in annotations.items():
        _check_presence(f"{path}.{key}", node, annotation)


def _check_quant(quant: object) -> None:
    for path, codecs, others in (
        ("quant", QUANT_CODECS, ("weights", "continue_from_decoded")),
        ("quant.weights", WEIGHTS_CODECS, ()),
    ):
        node = quant if path == "quant" else quant.get("weights")  # type: ignore[attr-defined]
        if not isinstance(node, Mapping):
            raise UserError(path, node, "must be a choice of this group")
        for key, value in node.items():
            if key not in (*codecs, *others):
                known = ", ".join((*codecs, *others))
                raise UserError(f"{path}.{key}", value, f"no such key; known: {known}")
        for key in codecs:
            _check_codec(f"{path}.{key}", node.get(key))
    _check_value("quant.continue_from_decoded", quant.get("continue_from_decoded"), bool)  # type: ignore[attr-defined]


def _check_codec(path: str, node: object) -> None:
    if not isinstance(node, Mapping):
        raise UserError(path, node, "must be a codec")
    _check_node(path, node, own_keys(path))


def own_keys(path: str) -> dict[str, object]:
    """Keys at `path` that are not arguments of the `_target_` there, by name."""
    if path in CODECS or path.startswith("task.codecs."):
        return _CODEC_KEYS
    return _OWN_KEYS.get(path, {})


def _check_node(path: str, node: Plain, own: Mapping[str, object]) -> None:
    target = node.get("_target_")
    if not isinstance(target, str) or unknown_target(target):
        raise UserError(f"{path}._target_", target, "must be the dotted path of a class or function")
    known = signature(target)
    for key in own:
        if key not in node:
            raise UserError(f"{path}.{key}", None, f"is missing; must be {describe_allowed(own[key])}")
    for key, value in node.items():
        if isinstance(value, Mapping) and ("_target_" in value or own.get(key) == dict[str, object]):
            _check_node(f"{path}.{key}", value, {})
        elif path == "task" and key == "codecs" and isinstance(value, Mapping):
            for name, codec in value.items():
                _check_codec(f"task.codecs.{name}", codec)
        elif path == "task" and key == "options" and isinstance(value, Mapping):
            for name, each in value.items():
                _check_node(f"task.options.{name}", each if isinstance(each, Mapping) else {}, {})
        elif key in own:
            _check_value(f"{path}.{key}", value, own[key])
        elif known is not None and not key.startswith("_"):
            if key not in known.annotations and not known.open:
                raise UserError(f"{path}.{key}", value, f"no such key; known: {', '.join(known.annotations)}")
            _check_value(f"{path}.{key}", value, known.annotations.get(key))


def _check_presence(path: str, node: Plain, annotation: object) -> None:
    """A value that must not be left out, even where it may be null."""
    key = path.rpartition(".")[2]
    if key not in node:
        raise UserError(path, None, f"is missing; must be {describe_allowed(annotation)}")
    _check_value(path, node[key], annotation)


def _check_value(key: str, value: object, annotation: object) -> None:
    if annotation is not None and not fits(annotation, value):
        limit = f", up to {LARGEST:g}" if isinstance(value, int | float) and abs(value) > LARGEST else ""
        raise UserError(key, value, f"must be {describe_allowed(annotation)}{limit}")


_VECTORIZED = "fedsplit.parties.vectorized.Vectorized"


def check_together(config: ConfigFields) -> None:
    """Check keys against each other, once each is allowed by itself; `UserError` names one of two."""
    size, clients = config.population.cohort_size, config.population.num_clients
    if size is not None and size > clients:
        raise UserError("cohort_size", size, f"must be at most num_clients, {clients}")
    if config.computation.cuda_graphs and config.computation.compile:
        raise UserError("cuda_graphs", True, "must be false with compile=true")
    if (config.rounding.qat or config.rounding.weight_bits is not None) and not config.client_precisions:
        _check_rounding(config)


def _check_rounding(config: ConfigFields) -> None:
    """Refuse what does not go with rounding the client model while it trains."""
    qat, bits, computation = config.rounding.qat, config.rounding.weight_bits, config.computation
    asked = "qat=true" if qat else f"weight_bits={bits}"
    if qat and bits == 16:
        message = "must be 8, 4, 2, 1 or null with qat=true: its layers compute in int8"
        raise UserError("weight_bits", 16, message)
    if computation.precision != "fp32":
        message = f"must be fp32 with {asked}: others round it away"
        raise UserError("precision", computation.precision, message)
    if config.engine.target == _VECTORIZED:
        raise UserError("engine", "vectorized", f"must be auto or sequential with {asked}")
    if computation.cuda_graphs:
        raise UserError("cuda_graphs", True, f"must be false with {asked}: never tried on a GPU")
