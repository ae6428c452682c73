from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_UNSPECIFIED: _ClassVar[Codec]
    EXACT: _ClassVar[Codec]
    HALF: _ClassVar[Codec]
    LABELS: _ClassVar[Codec]
    SMASHED: _ClassVar[Codec]
    CUT_GRADIENT: _ClassVar[Codec]
    WEIGHTS_UP: _ClassVar[Codec]
    WEIGHTS_DOWN: _ClassVar[Codec]
    WEIGHTS_WHOLE: _ClassVar[Codec]
    DEVICE: _ClassVar[Codec]

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    FLOAT32: _ClassVar[DataType]
    FLOAT64: _ClassVar[DataType]
    FLOAT16: _ClassVar[DataType]
    BFLOAT16: _ClassVar[DataType]
    INT64: _ClassVar[DataType]
    INT32: _ClassVar[DataType]
    INT16: _ClassVar[DataType]
    INT8: _ClassVar[DataType]
    UINT8: _ClassVar[DataType]
    BOOL: _ClassVar[DataType]

class Part(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PART_UNSPECIFIED: _ClassVar[Part]
    CLIENT: _ClassVar[Part]
    AUXILIARY: _ClassVar[Part]
    FULL: _ClassVar[Part]
    CONTROL: _ClassVar[Part]
CODEC_UNSPECIFIED: Codec
EXACT: Codec
HALF: Codec
LABELS: Codec
SMASHED: Codec
CUT_GRADIENT: Codec
WEIGHTS_UP: Codec
WEIGHTS_DOWN: Codec
WEIGHTS_WHOLE: Codec
DEVICE: Codec
DATA_TYPE_UNSPECIFIED: DataType
FLOAT32: DataType
FLOAT64: DataType
FLOAT16: DataType
BFLOAT16: DataType
INT64: DataType
INT32: DataType
INT16: DataType
INT8: DataType
UINT8: DataType
BOOL: DataType
PART_UNSPECIFIED: Part
CLIENT: Part
AUXILIARY: Part
FULL: Part
CONTROL: Part

class Identity(_message.Message):
    __slots__ = ("run", "client", "round", "attempt", "number", "step")
    RUN_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    run: bytes
    client: int
    round: int
    attempt: int
    number: int
    step: int
    def __init__(self, run: _Optional[bytes] = ..., client: _Optional[int] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ..., number: _Optional[int] = ..., step: _Optional[int] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "codec", "data_type", "shape", "size", "checksum", "values", "signal", "noise")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    name: str
    codec: Codec
    data_type: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    size: int
    checksum: int
    values: int
    signal: float
    noise: float
    def __init__(self, name: _Optional[str] = ..., codec: _Optional[_Union[Codec, str]] = ..., data_type: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., size: _Optional[int] = ..., checksum: _Optional[int] = ..., values: _Optional[int] = ..., signal: _Optional[float] = ..., noise: _Optional[float] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...

class FromServer(_message.Message):
    __slots__ = ("identity", "tensors", "chunk", "welcome", "refusal", "begin", "install", "forward", "backward", "train_local", "upload_weights", "keep", "finish", "request", "logits", "step_tail", "probe", "move")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    INSTALL_FIELD_NUMBER: _ClassVar[int]
    FORWARD_FIELD_NUMBER: _ClassVar[int]
    BACKWARD_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOCAL_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    STEP_TAIL_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    identity: Identity
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    chunk: Chunk
    welcome: Welcome
    refusal: Refusal
    begin: Begin
    install: Install
    forward: Forward
    backward: Backward
    train_local: TrainLocal
    upload_weights: UploadWeights
    keep: Keep
    finish: Finish
    request: Request
    logits: Logits
    step_tail: StepTail
    probe: Probe
    move: Move
    def __init__(self, identity: _Optional[_Union[Identity, _Mapping]] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., begin: _Optional[_Union[Begin, _Mapping]] = ..., install: _Optional[_Union[Install, _Mapping]] = ..., forward: _Optional[_Union[Forward, _Mapping]] = ..., backward: _Optional[_Union[Backward, _Mapping]] = ..., train_local: _Optional[_Union[TrainLocal, _Mapping]] = ..., upload_weights: _Optional[_Union[UploadWeights, _Mapping]] = ..., keep: _Optional[_Union[Keep, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ..., request: _Optional[_Union[Request, _Mapping]] = ..., logits: _Optional[_Union[Logits, _Mapping]] = ..., step_tail: _Optional[_Union[StepTail, _Mapping]] = ..., probe: _Optional[_Union[Probe, _Mapping]] = ..., move: _Optional[_Union[Move, _Mapping]] = ...) -> None: ...

class FromClient(_message.Message):
    __slots__ = ("identity", "tensors", "chunk", "hello", "ready", "upload", "done", "failed", "deployed", "smashed", "measured")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    DEPLOYED_FIELD_NUMBER: _ClassVar[int]
    SMASHED_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    identity: Identity
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    chunk: Chunk
    hello: Hello
    ready: Ready
    upload: Upload
    done: Done
    failed: Failed
    deployed: Deployed
    smashed: Smashed
    measured: Measured
    def __init__(self, identity: _Optional[_Union[Identity, _Mapping]] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., upload: _Optional[_Union[Upload, _Mapping]] = ..., done: _Optional[_Union[Done, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ..., deployed: _Optional[_Union[Deployed, _Mapping]] = ..., smashed: _Optional[_Union[Smashed, _Mapping]] = ..., measured: _Optional[_Union[Measured, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("version", "client", "instance")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    version: int
    client: int
    instance: bytes
    def __init__(self, version: _Optional[int] = ..., client: _Optional[int] = ..., instance: _Optional[bytes] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("server", "plan")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    server: bytes
    plan: Plan
    def __init__(self, server: _Optional[bytes] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason", "for_good")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FOR_GOOD_FIELD_NUMBER: _ClassVar[int]
    reason: str
    for_good: bool
    def __init__(self, reason: _Optional[str] = ..., for_good: _Optional[bool] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("choices", "settings", "classes", "num_classes", "images", "texts", "frozen_weights")
    class ChoicesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    NUM_CLASSES_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    FROZEN_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    choices: _containers.ScalarMap[str, str]
    settings: _containers.RepeatedCompositeFieldContainer[Setting]
    classes: _containers.RepeatedScalarFieldContainer[str]
    num_classes: int
    images: Images
    texts: Texts
    frozen_weights: str
    def __init__(self, choices: _Optional[_Mapping[str, str]] = ..., settings: _Optional[_Iterable[_Union[Setting, _Mapping]]] = ..., classes: _Optional[_Iterable[str]] = ..., num_classes: _Optional[int] = ..., images: _Optional[_Union[Images, _Mapping]] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ..., frozen_weights: _Optional[str] = ...) -> None: ...

class Images(_message.Message):
    __slots__ = ("channels", "side", "scale", "shift")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    SHIFT_FIELD_NUMBER: _ClassVar[int]
    channels: int
    side: int
    scale: _containers.RepeatedScalarFieldContainer[float]
    shift: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, channels: _Optional[int] = ..., side: _Optional[int] = ..., scale: _Optional[_Iterable[float]] = ..., shift: _Optional[_Iterable[float]] = ...) -> None: ...

class Texts(_message.Message):
    __slots__ = ("vocabulary", "context", "tokenizer")
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    vocabulary: int
    context: int
    tokenizer: str
    def __init__(self, vocabulary: _Optional[int] = ..., context: _Optional[int] = ..., tokenizer: _Optional[str] = ...) -> None: ...

class Setting(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: Value
    def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("truth", "whole", "real", "text", "list", "nothing", "map")
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    NOTHING_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    truth: bool
    whole: int
    real: float
    text: str
    list: List
    nothing: bool
    map: Map
    def __init__(self, truth: _Optional[bool] = ..., whole: _Optional[int] = ..., real: _Optional[float] = ..., text: _Optional[str] = ..., list: _Optional[_Union[List, _Mapping]] = ..., nothing: _Optional[bool] = ..., map: _Optional[_Union[Map, _Mapping]] = ...) -> None: ...

class List(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, items: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Map(_message.Message):
    __slots__ = ("items",)
    class ItemsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.MessageMap[str, Value]
    def __init__(self, items: _Optional[_Mapping[str, Value]] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("samples", "states", "going_on", "round", "attempt", "number")
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    GOING_ON_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    samples: int
    states: _containers.RepeatedScalarFieldContainer[int]
    going_on: bool
    round: int
    attempt: int
    number: int
    def __init__(self, samples: _Optional[int] = ..., states: _Optional[_Iterable[int]] = ..., going_on: _Optional[bool] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class Begin(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: int
    def __init__(self, after: _Optional[int] = ...) -> None: ...

class Install(_message.Message):
    __slots__ = ("part", "difference")
    PART_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    part: Part
    difference: bool
    def __init__(self, part: _Optional[_Union[Part, str]] = ..., difference: _Optional[bool] = ...) -> None: ...

class Forward(_message.Message):
    __slots__ = ("evaluating",)
    EVALUATING_FIELD_NUMBER: _ClassVar[int]
    evaluating: bool
    def __init__(self, evaluating: _Optional[bool] = ...) -> None: ...

class Backward(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Probe(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Move(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StepTail(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TrainLocal(_message.Message):
    __slots__ = ("train_head", "upload_interval", "skip_first_upload")
    TRAIN_HEAD_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIRST_UPLOAD_FIELD_NUMBER: _ClassVar[int]
    train_head: bool
    upload_interval: int
    skip_first_upload: bool
    def __init__(self, train_head: _Optional[bool] = ..., upload_interval: _Optional[int] = ..., skip_first_upload: _Optional[bool] = ...) -> None: ...

class UploadWeights(_message.Message):
    __slots__ = ("part", "observed")
    PART_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    part: Part
    observed: bool
    def __init__(self, part: _Optional[_Union[Part, str]] = ..., observed: _Optional[bool] = ...) -> None: ...

class Keep(_message.Message):
    __slots__ = ("rounds", "needed", "durable")
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    NEEDED_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    rounds: int
    needed: int
    durable: bool
    def __init__(self, rounds: _Optional[int] = ..., needed: _Optional[int] = ..., durable: _Optional[bool] = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Upload(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Done(_message.Message):
    __slots__ = ("losses", "samples", "difference")
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    losses: _containers.RepeatedScalarFieldContainer[float]
    samples: _containers.RepeatedScalarFieldContainer[int]
    difference: bool
    def __init__(self, losses: _Optional[_Iterable[float]] = ..., samples: _Optional[_Iterable[int]] = ..., difference: _Optional[bool] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("what", "not_finite")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    NOT_FINITE_FIELD_NUMBER: _ClassVar[int]
    what: str
    not_finite: bool
    def __init__(self, what: _Optional[str] = ..., not_finite: _Optional[bool] = ...) -> None: ...

class Deployed(_message.Message):
    __slots__ = ("precision", "file_bytes", "memory_before")
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BEFORE_FIELD_NUMBER: _ClassVar[int]
    precision: str
    file_bytes: int
    memory_before: int
    def __init__(self, precision: _Optional[str] = ..., file_bytes: _Optional[int] = ..., memory_before: _Optional[int] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("batch",)
    BATCH_FIELD_NUMBER: _ClassVar[int]
    batch: int
    def __init__(self, batch: _Optional[int] = ...) -> None: ...

class Smashed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Logits(_message.Message):
    __slots__ = ("seconds",)
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    def __init__(self, seconds: _Optional[float] = ...) -> None: ...

class Measured(_message.Message):
    __slots__ = ("client_seconds", "journey_seconds", "correct", "peak_memory", "checksum")
    CLIENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    JOURNEY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    client_seconds: float
    journey_seconds: float
    correct: int
    peak_memory: int
    checksum: int
    def __init__(self, client_seconds: _Optional[float] = ..., journey_seconds: _Optional[float] = ..., correct: _Optional[int] = ..., peak_memory: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...
