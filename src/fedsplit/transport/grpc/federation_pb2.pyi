from collections.abc import Iterable as _Iterable
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar

from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper

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

CODEC_UNSPECIFIED: Codec
EXACT: Codec
HALF: Codec
LABELS: Codec
SMASHED: Codec
CUT_GRADIENT: Codec
WEIGHTS_UP: Codec
WEIGHTS_DOWN: Codec
WEIGHTS_WHOLE: Codec
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

class Identity(_message.Message):
    __slots__ = ("attempt", "client", "number", "round", "run", "step")
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
    def __init__(
        self,
        run: bytes | None = ...,
        client: int | None = ...,
        round: int | None = ...,
        attempt: int | None = ...,
        number: int | None = ...,
        step: int | None = ...,
    ) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("checksum", "codec", "data_type", "name", "noise", "shape", "signal", "size", "values")
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
    def __init__(
        self,
        name: str | None = ...,
        codec: Codec | str | None = ...,
        data_type: DataType | str | None = ...,
        shape: _Iterable[int] | None = ...,
        size: int | None = ...,
        checksum: int | None = ...,
        values: int | None = ...,
        signal: float | None = ...,
        noise: float | None = ...,
    ) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: bytes | None = ...) -> None: ...

class FromServer(_message.Message):
    __slots__ = (
        "backward",
        "begin",
        "chunk",
        "finish",
        "forward",
        "identity",
        "install",
        "keep",
        "refusal",
        "tensors",
        "train_local",
        "upload_weights",
        "welcome",
    )
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
    def __init__(
        self,
        identity: Identity | _Mapping | None = ...,
        tensors: _Iterable[Tensor | _Mapping] | None = ...,
        chunk: Chunk | _Mapping | None = ...,
        welcome: Welcome | _Mapping | None = ...,
        refusal: Refusal | _Mapping | None = ...,
        begin: Begin | _Mapping | None = ...,
        install: Install | _Mapping | None = ...,
        forward: Forward | _Mapping | None = ...,
        backward: Backward | _Mapping | None = ...,
        train_local: TrainLocal | _Mapping | None = ...,
        upload_weights: UploadWeights | _Mapping | None = ...,
        keep: Keep | _Mapping | None = ...,
        finish: Finish | _Mapping | None = ...,
    ) -> None: ...

class FromClient(_message.Message):
    __slots__ = ("chunk", "done", "failed", "hello", "identity", "ready", "tensors", "upload")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    identity: Identity
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    chunk: Chunk
    hello: Hello
    ready: Ready
    upload: Upload
    done: Done
    failed: Failed
    def __init__(
        self,
        identity: Identity | _Mapping | None = ...,
        tensors: _Iterable[Tensor | _Mapping] | None = ...,
        chunk: Chunk | _Mapping | None = ...,
        hello: Hello | _Mapping | None = ...,
        ready: Ready | _Mapping | None = ...,
        upload: Upload | _Mapping | None = ...,
        done: Done | _Mapping | None = ...,
        failed: Failed | _Mapping | None = ...,
    ) -> None: ...

class Hello(_message.Message):
    __slots__ = ("client", "instance", "version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    version: int
    client: int
    instance: bytes
    def __init__(
        self, version: int | None = ..., client: int | None = ..., instance: bytes | None = ...
    ) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("plan", "server")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    server: bytes
    plan: Plan
    def __init__(self, server: bytes | None = ..., plan: Plan | _Mapping | None = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("for_good", "reason")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FOR_GOOD_FIELD_NUMBER: _ClassVar[int]
    reason: str
    for_good: bool
    def __init__(self, reason: str | None = ..., for_good: bool | None = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = (
        "choices",
        "classes",
        "image_shape",
        "normalisation_scale",
        "normalisation_shift",
        "num_classes",
        "settings",
    )
    class ChoicesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: str | None = ..., value: str | None = ...) -> None: ...

    CHOICES_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    NORMALISATION_SCALE_FIELD_NUMBER: _ClassVar[int]
    NORMALISATION_SHIFT_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SHAPE_FIELD_NUMBER: _ClassVar[int]
    NUM_CLASSES_FIELD_NUMBER: _ClassVar[int]
    choices: _containers.ScalarMap[str, str]
    settings: _containers.RepeatedCompositeFieldContainer[Setting]
    normalisation_scale: _containers.RepeatedScalarFieldContainer[float]
    normalisation_shift: _containers.RepeatedScalarFieldContainer[float]
    classes: _containers.RepeatedScalarFieldContainer[str]
    image_shape: _containers.RepeatedScalarFieldContainer[int]
    num_classes: int
    def __init__(
        self,
        choices: _Mapping[str, str] | None = ...,
        settings: _Iterable[Setting | _Mapping] | None = ...,
        normalisation_scale: _Iterable[float] | None = ...,
        normalisation_shift: _Iterable[float] | None = ...,
        classes: _Iterable[str] | None = ...,
        image_shape: _Iterable[int] | None = ...,
        num_classes: int | None = ...,
    ) -> None: ...

class Setting(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: Value
    def __init__(self, key: str | None = ..., value: Value | _Mapping | None = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("list", "nothing", "real", "text", "truth", "whole")
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    NOTHING_FIELD_NUMBER: _ClassVar[int]
    truth: bool
    whole: int
    real: float
    text: str
    list: List
    nothing: bool
    def __init__(
        self,
        truth: bool | None = ...,
        whole: int | None = ...,
        real: float | None = ...,
        text: str | None = ...,
        list: List | _Mapping | None = ...,
        nothing: bool | None = ...,
    ) -> None: ...

class List(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, items: _Iterable[Value | _Mapping] | None = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("attempt", "going_on", "number", "round", "samples", "states")
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
    def __init__(
        self,
        samples: int | None = ...,
        states: _Iterable[int] | None = ...,
        going_on: bool | None = ...,
        round: int | None = ...,
        attempt: int | None = ...,
        number: int | None = ...,
    ) -> None: ...

class Begin(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: int
    def __init__(self, after: int | None = ...) -> None: ...

class Install(_message.Message):
    __slots__ = ("difference", "part")
    PART_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    part: Part
    difference: bool
    def __init__(self, part: Part | str | None = ..., difference: bool | None = ...) -> None: ...

class Forward(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Backward(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TrainLocal(_message.Message):
    __slots__ = ("skip_first_upload", "train_head", "upload_interval")
    TRAIN_HEAD_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIRST_UPLOAD_FIELD_NUMBER: _ClassVar[int]
    train_head: bool
    upload_interval: int
    skip_first_upload: bool
    def __init__(
        self,
        train_head: bool | None = ...,
        upload_interval: int | None = ...,
        skip_first_upload: bool | None = ...,
    ) -> None: ...

class UploadWeights(_message.Message):
    __slots__ = ("part",)
    PART_FIELD_NUMBER: _ClassVar[int]
    part: Part
    def __init__(self, part: Part | str | None = ...) -> None: ...

class Keep(_message.Message):
    __slots__ = ("durable", "needed", "rounds")
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    NEEDED_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    rounds: int
    needed: int
    durable: bool
    def __init__(
        self, rounds: int | None = ..., needed: int | None = ..., durable: bool | None = ...
    ) -> None: ...

class Finish(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Upload(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Done(_message.Message):
    __slots__ = ("difference", "losses", "samples")
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    losses: _containers.RepeatedScalarFieldContainer[float]
    samples: _containers.RepeatedScalarFieldContainer[int]
    difference: bool
    def __init__(
        self,
        losses: _Iterable[float] | None = ...,
        samples: _Iterable[int] | None = ...,
        difference: bool | None = ...,
    ) -> None: ...

class Failed(_message.Message):
    __slots__ = ("not_finite", "what")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    NOT_FINITE_FIELD_NUMBER: _ClassVar[int]
    what: str
    not_finite: bool
    def __init__(self, what: str | None = ..., not_finite: bool | None = ...) -> None: ...
