"""What comes over the wire: any message that the protocol can express, and honest ones that were damaged."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from fedsplit.quant.message import Message
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import Parcel
from fedsplit.transport.grpc.protocol.plan import GROUPS

Frame: TypeAlias = pb.FromServer | pb.FromClient

TEXTS = (
    *(
        "",
        ".",
        "..",
        "z",
        "y",
        "dz",
        "sgd",
        "null",
        "~",
        "-1",
        "1e999",
        "\0",
        "a\nb",
        "\x1b[31mred",
        "x" * 100_000,
    ),
    *("os.system", "subprocess.Popen", "tests.transport.sentinel", "tests.transport.sentinel.Sentinel"),
    *("../../etc/passwd", "/etc", "a/b", "sgd\\..", "sgd.yaml", "sgd,adam", "sgd+evil=1", "[sgd]"),
    *("${oc.env:HOME}", "\\${oc.env:HOME}", "${seed}", "a${.b}", "${", "???"),
)
"""Texts that a name, a choice, a key or a value should not be."""
KEYS = (
    *(
        "",
        ".",
        "..",
        "optimizer",
        "optimizer.",
        ".lr",
        "optimizer.lr.x",
        "optimizer..lr",
        "no.such.key",
        "hydra.run.dir",
    ),
    *(
        "_target_",
        "optimizer._target_",
        "model._target_",
        "optimizer._convert_",
        "model._args_",
        "dataset._partial_",
    ),
    *(
        "device",
        "threads.x",
        "progress",
        "resume",
        "task",
        "task.out",
        "transport.tls",
        "transport.listen",
        "engine",
    ),
    *(
        "engine.stack_mb",
        "choices",
        "choices.model",
        "client.id",
        "client.directory",
        "client.id.x",
        "client",
    ),
    *("dataset.root", "dataset.download", "dataset.root.x", "dataset.classes", "model.auxiliary", "Device"),
    *("dataset.tokenizer", "dataset.tokenizer_files", "model.name", "model.sizes", "model.sizes.n_layer"),
    *(
        "optimizer.lr",
        "optimizer.betas",
        "seed",
        "model.cut",
        "num_clients",
        "quant.smashed.bits",
        "batch_size",
    ),
    *(
        "auxiliary.optimizer",
        "auxiliary.optimizer.lr",
        "client_optimizer",
        "scheduler",
        "cohort_size",
        "precision",
    ),
)
"""Keys of settings: what no server says, what nobody has, and some that are fine."""
WHOLE = (0, 1, 2, 3, 7, 8, 9, 1000, 2**31 - 1, 2**31, 2**32 - 1)
LONG = (*WHOLE, 2**32, 2**40, 2**53 + 1, 2**63 - 1)
REAL = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-320, 3.4e38, 1e77, 1e200, 1.7e308, torch.inf, -torch.inf, torch.nan)
SHAPES = (
    *((), (0,), (-1,), (1,), (2**31,), (2**62,), (2**63 - 1,), (-(2**63),)),
    *((2**32, 2**32), (2**21, 2**21, 2**22), (0, 2**63 - 1), (-1, -1), (1,) * 64, (2,) * 1000, (2**31,) * 8),
)
"""Shapes that no message has, and whose sizes overflow."""
PATTERNS = (
    *(b"\xff\xff", b"\x7f\x80", b"\x80\x7f", b"\xc0\x7f", b"\x00\x80", b"\x00\x00\x00\x00"),
    *(
        b"\x00\x00\x80\x7f",
        b"\x00\x00\x80\xff",
        b"\x00\x00\xc0\x7f",
        b"\xff" * 8,
        b"\x80\xbf",
        b"\x28\xb5\x2f\xfd",
    ),
)
"""Bytes that read as infinities, NaN, negative or empty scales, codes beyond the last, headers."""

_INTEGERS = {
    FieldDescriptor.TYPE_UINT32: WHOLE,
    FieldDescriptor.TYPE_FIXED32: WHOLE,
    FieldDescriptor.TYPE_UINT64: (*LONG, 2**64 - 1),
    FieldDescriptor.TYPE_INT64: (*LONG, -1, -(2**63)),
    FieldDescriptor.TYPE_ENUM: (*range(12), 99, 2**31 - 1, -1),
}
_OTHERS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.sampled_from(REAL),
    FieldDescriptor.TYPE_BYTES: st.sampled_from((b"", b"r" * 16, b"s" * 16, b"x" * 15, b"\0" * 5000)),
}


def _scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type in _INTEGERS:
        return st.sampled_from(_INTEGERS[field.type])
    if field.type in _OTHERS:
        return _OTHERS[field.type]
    assert field.type == FieldDescriptor.TYPE_STRING
    if field.containing_type.name == "Setting":
        return st.sampled_from(KEYS)
    if field.containing_type.name == "ChoicesEntry" and field.name == "key":
        return st.sampled_from((*GROUPS, "task", "transport", "experiment", "hydra/launcher", *TEXTS))
    return st.sampled_from(TEXTS)


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> Any:
    """Any message of a kind, whatever its fields may hold."""
    made = GetMessageClass(descriptor)()
    chosen = [field for field in descriptor.fields if field.containing_oneof is None and draw(st.booleans())]
    for oneof in descriptor.oneofs:
        at_end = depth > 10 and oneof.name == "kind"  # a value of values of values
        options = [field for field in oneof.fields if not at_end or field.message_type is None]
        one = draw(st.sampled_from((None, *options)))
        chosen += [one] if one is not None else []
    for field in chosen:
        _fill(draw, made, field, depth)
    return made


def _fill(draw: st.DrawFn, made: Any, field: FieldDescriptor, depth: int) -> None:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        for _ in range(draw(st.integers(0, 2))):
            key, value = (kind.fields_by_name[name] for name in ("key", "value"))
            if value.message_type is None:
                getattr(made, field.name)[draw(_scalars(key))] = draw(_scalars(value))
            else:
                inner = draw(messages(value.message_type, depth + 1))
                getattr(made, field.name)[draw(_scalars(key))].CopyFrom(inner)
    elif field.name == "shape":
        made.shape.extend(draw(st.sampled_from(SHAPES)))
    elif kind is not None and field.is_repeated:
        for _ in range(draw(st.integers(0, 2))):
            getattr(made, field.name).add().CopyFrom(draw(messages(kind, depth + 1)))
    elif kind is not None:
        getattr(made, field.name).CopyFrom(draw(messages(kind, depth + 1)))
    elif field.is_repeated:
        getattr(made, field.name).extend(draw(st.lists(_scalars(field), max_size=3)))
    else:
        setattr(made, field.name, draw(_scalars(field)))


def _one_of(draw: st.DrawFn, items: Sequence[Any]) -> int:
    return draw(st.integers(0, len(items) - 1))


def _announcement(draw: st.DrawFn, frames: list[Frame]) -> None:
    """An announcement says something else, comes twice, not at all, or where none belongs."""
    heads = [frame for frame in frames if frame.tensors] or frames
    head = draw(st.sampled_from(heads))
    tensors = list(head.tensors)
    field = draw(st.sampled_from(("gone", "twice", "turned", "any", "many", *pb.Tensor.DESCRIPTOR.fields)))
    if field == "many":
        tensors += [pb.Tensor(size=2**60)] * 50
    elif not tensors or field == "any":
        tensors.insert(0, draw(messages(pb.Tensor.DESCRIPTOR)))
    elif field == "turned":
        tensors.reverse()
    elif field in ("gone", "twice"):
        place = _one_of(draw, tensors)
        tensors[place : place + 1] = [tensors[place]] * (2 if field == "twice" else 0)
    else:
        _fill_anew(draw, tensors[_one_of(draw, tensors)], field)
    kept = [pb.Tensor.FromString(each.SerializeToString()) for each in tensors]
    del head.tensors[:]
    head.tensors.extend(kept)


def _fill_anew(draw: st.DrawFn, tensor: pb.Tensor, field: FieldDescriptor) -> None:
    size, shape = tensor.size, list(tensor.shape)
    tensor.ClearField(field.name)
    if field.name == "size" and draw(st.booleans()):
        tensor.size = max(0, size + draw(st.sampled_from((-1, 1, 2, 4096))))
    elif field.name == "shape" and shape and draw(st.booleans()):
        shape[_one_of(draw, shape)] += draw(st.sampled_from((-1, 1, 2**33)))
        tensor.shape.extend(shape)
    else:
        _fill(draw, tensor, field, 0)


def _identity(draw: st.DrawFn, frames: list[Frame]) -> None:
    """Another run, client, round, attempt, verb or step, or none."""
    frame = frames[_one_of(draw, frames)]
    field = draw(st.sampled_from(list(pb.Identity.DESCRIPTOR.fields)))
    frame.identity.ClearField(field.name)
    _fill(draw, frame.identity, field, 0)


def _order(draw: st.DrawFn, frames: list[Frame]) -> None:
    """Frames are lost, come twice, or in another order."""
    place, other = _one_of(draw, frames), _one_of(draw, frames)
    match draw(st.sampled_from(("gone", "twice", "later", "swapped", "turned"))):
        case "gone" if len(frames) > 1:
            del frames[place]
        case "twice":
            frames.insert(place, frames[place])
        case "later":
            frames.insert(other, frames.pop(place))
        case "swapped":
            frames[place], frames[other] = frames[other], frames[place]
        case "turned":
            frames.reverse()


def _chunk(draw: st.DrawFn, frames: list[Frame]) -> None:
    """A chunk is empty, short, long, in pieces, or where none was announced."""
    chunks = [place for place, frame in enumerate(frames) if frame.WhichOneof("content") == "chunk"]
    if not chunks:
        frames.append(type(frames[0])(identity=frames[0].identity, chunk=pb.Chunk(content=b"abc")))
        return
    place = draw(st.sampled_from(chunks))
    frame = frames[place]
    content = frame.chunk.content
    cut = draw(st.integers(0, len(content)))
    match draw(st.sampled_from(("empty", "short", "long", "pieces", "huge"))):
        case "empty":
            frames.insert(place, type(frame)(identity=frame.identity, chunk=pb.Chunk()))
        case "short":
            frame.chunk.content = content[:cut]
        case "long":
            frame.chunk.content = content + b"x" * draw(st.sampled_from((1, 2, 1000)))
        case "pieces":
            pieces = [content[:cut], content[cut : cut + 3], content[cut + 3 :]]
            frames[place : place + 1] = [
                type(frame)(identity=frame.identity, chunk=pb.Chunk(content=each)) for each in pieces if each
            ]
        case "huge":
            frame.chunk.content = bytes(1 << 21)


def _content(draw: st.DrawFn, frames: list[Frame]) -> None:
    """What a frame says is said by another, about other things."""
    place, kind = _one_of(draw, frames), type(frames[0])
    drawn = draw(messages(kind.DESCRIPTOR))
    how = draw(st.sampled_from(("before", "instead", "merged", "unknown")))
    if how == "before":
        frames.insert(place, drawn)
    elif how == "instead":
        drawn.identity.CopyFrom(frames[place].identity)
        frames[place] = drawn
    elif how == "merged":
        frames[place].MergeFrom(drawn)
    else:  # of a later version of the protocol: a content that is not known here
        frames[place] = kind.FromString(
            kind(identity=frames[place].identity).SerializeToString() + b"\xa2\x06\x00"
        )


def _serialized(draw: st.DrawFn, frames: list[Frame]) -> None:
    """Bytes of a frame are changed in a way that still parses."""
    place = _one_of(draw, frames)
    written = bytearray(frames[place].SerializeToString())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, min(len(written) - 1, 200))))
        written[at : at + 1] = draw(st.binary(max_size=2))
    try:
        frames[place] = type(frames[place]).FromString(bytes(written))
    except DecodeError:
        frames[place].ClearField("identity")


DAMAGES: Sequence[Callable[[st.DrawFn, list[Any]], None]] = (
    *(_announcement, _identity, _order, _chunk, _content, _serialized),
)


def _damaged_payload(draw: st.DrawFn, parcels: list[Parcel[Any]]) -> list[Parcel[Any]]:
    """Bytes of one payload are overwritten, cut or longer; its announcement may fit them."""
    carrying = [place for place, parcel in enumerate(parcels) if parcel.size]
    if not carrying:
        return parcels
    place = draw(st.sampled_from(carrying))
    head, payloads = type(parcels[place].head)(), list(parcels[place].payloads)
    head.CopyFrom(parcels[place].head)
    which = draw(st.sampled_from([place for place, payload in enumerate(payloads) if len(payload)]))
    payload, tensor = bytearray(payloads[which]), head.tensors[which]
    at = draw(st.one_of(st.integers(0, min(64, len(payload))), st.integers(0, len(payload))))
    match draw(st.sampled_from(("over", "over", "over", "short", "long"))):
        case "over":
            pattern = draw(st.sampled_from(PATTERNS))[: max(1, len(payload) - at)]
            payload[at : at + len(pattern)] = pattern
        case "short":
            del payload[at:]
        case "long":
            payload += bytes(at)
    if draw(st.booleans()):  # as a sender would that means it
        dtype = {pb.FLOAT32: torch.float32, pb.INT64: torch.int64}.get(tensor.data_type, torch.float32)
        tensor.checksum = Message.seal(bytes(payload), tuple(tensor.shape), dtype).checksum
        tensor.size = len(payload)
    payloads[which] = bytes(payload)
    return [*parcels[:place], Parcel(head, payloads), *parcels[place + 1 :]]


@st.composite
def damaged(draw: st.DrawFn, parcels: Sequence[Parcel[Any]]) -> list[Any]:
    """The frames of honest messages, with one to three kinds of damage."""
    sent = list(parcels)
    deep = draw(st.booleans())
    if deep:
        sent = _damaged_payload(draw, sent)
    frames = []
    for parcel in sent:
        for frame in parcel.frames():
            kept = type(frame)()
            kept.CopyFrom(frame)
            frames.append(kept)
    for damage in draw(st.lists(st.sampled_from(DAMAGES), min_size=0 if deep else 1, max_size=2)):
        if frames:
            damage(draw, frames)
    return frames


plans: st.SearchStrategy[pb.Plan] = messages(pb.Plan.DESCRIPTOR)
"""Plans of a server that means harm."""


def nested(depth: int) -> pb.Value:
    """A list in a list in a list."""
    value = pb.Value(whole=1)
    for _ in range(depth):
        value = pb.Value(list=pb.List(items=[value]))
    return value
