from typing import Any

import pytest
import torch
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsplit.quant.codec import Quantizer
from fedsplit.quant.codecs.affine import affine
from fedsplit.quant.codecs.float8 import Float8
from fedsplit.quant.codecs.float16 import Float16
from fedsplit.quant.codecs.sign import Sign
from fedsplit.quant.codecs.topk import TopK
from fedsplit.quant.codecs.zstd import Zstd
from fedsplit.quant.message import Corrupt, Message

INNER: dict[str, Quantizer[Any]] = {
    "float16": Float16(),
    "float8": Float8(granularity="channel"),
    "affine4": affine(bits=4, granularity="channel"),
    "auto": affine(bits="auto", budget=2.0, granularity="channel"),
    "sign": Sign(),
    "topk": TopK(fraction=0.1),
}
SHAPE = (40, 50)
PLAIN, COMPRESSED = b"\0", b"\1"


def _sparse() -> Tensor:
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return torch.where(x.abs() > 2, x, 0)


def _dense() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def _message(payload: bytes, shape: tuple[int, ...] = SHAPE) -> Message:
    return Message.seal(payload, shape, torch.float32)


def _check_refused(codec: Zstd[Any], payload: bytes, shape: tuple[int, ...] = SHAPE) -> None:
    with pytest.raises(Corrupt):
        codec.decode(_message(payload, shape))


def _compressed(content: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(content)


@pytest.mark.parametrize("level", [1, 3, 19])
@pytest.mark.parametrize("name", INNER)
def test_zstd_decodes_to_the_values_of_the_codec_within(name: str, level: int) -> None:
    inner = INNER[name]
    codec: Zstd[Any] = Zstd(inner, level)
    for x in (_sparse(), _dense()):
        assert torch.equal(codec.decode(codec.encode(x, seed=2)), inner.decode(inner.encode(x, seed=2)))
        assert torch.equal(codec.error_bound(x), inner.error_bound(x))
        assert len(codec.encode(x).payload) <= 1 + len(inner.encode(x).payload)


def test_zstd_payload_is_plain_where_compression_would_not_make_it_smaller() -> None:
    inner: Quantizer[Any] = affine(bits=8, granularity="tensor")
    noise = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2))
    assert Zstd(inner, 3).encode(noise).payload == PLAIN + inner.encode(noise).payload


def test_zstd_payload_is_the_smaller_of_plain_and_compressed_even_by_one_byte() -> None:
    inner = Float16()
    for length in (9, 50):
        for zeros in range(length):
            x = torch.randn(length, generator=torch.Generator().manual_seed(0))
            x[:zeros] = 0
            plain = inner.encode(x).payload
            frame = zstandard.ZstdCompressor(level=3, write_checksum=False).compress(plain)
            smaller = COMPRESSED + frame if len(frame) < len(plain) else PLAIN + plain
            assert Zstd(inner, 3).encode(x).payload == smaller


@pytest.mark.parametrize("name", ["float16", "float8", "affine4", "sign"])
def test_zstd_payload_is_a_zstandard_frame_where_that_is_smaller(name: str) -> None:
    payload, plain = Zstd(INNER[name], 3).encode(_sparse()).payload, INNER[name].encode(_sparse()).payload
    assert payload[:1] == COMPRESSED
    assert len(payload) < len(plain)
    assert zstandard.ZstdDecompressor().decompress(payload[1:]) == plain


def test_zstd_payload_of_a_higher_level_is_smaller() -> None:
    x = _dense().repeat(20, 1)
    sizes = [len(Zstd(INNER["affine4"], level).encode(x).payload) for level in (1, 19)]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("name", INNER)
def test_zstd_decodes_plain_payloads_and_frames_of_other_levels(name: str) -> None:
    codec, inner = Zstd(INNER[name], 3), INNER[name]
    message = inner.encode(_sparse())
    for payload in (PLAIN + message.payload, COMPRESSED + _compressed(message.payload, level=19)):
        assert torch.equal(codec.decode(_message(payload)), inner.decode(message))


@pytest.mark.parametrize("name", INNER)
def test_zstd_refuses_a_first_byte_other_than_plain_or_compressed_and_missing_content(name: str) -> None:
    codec: Zstd[Any] = Zstd(INNER[name], 3)
    content = codec.encode(_sparse()).payload[1:]
    for kind in range(2, 256):
        _check_refused(codec, bytes([kind]) + content)
    _check_refused(codec, b"")
    _check_refused(codec, PLAIN)
    _check_refused(codec, COMPRESSED)


@pytest.mark.parametrize("name", INNER)
def test_zstd_refuses_frames_that_declare_more_than_the_largest_size(name: str) -> None:
    codec: Zstd[Any] = Zstd(INNER[name], 3)
    limit = INNER[name].max_size(SHAPE)
    for size in (limit + 1, 10 * limit, 1 << 28):
        bomb = _compressed(bytes(size))
        assert len(bomb) < 20_000
        _check_refused(codec, COMPRESSED + bomb)


def test_zstd_refuses_frames_that_declare_sizes_beyond_memory() -> None:
    # magic, one segment with eight bytes of content size, the size, and one block of repeated bytes
    for size in (1 << 40, 1 << 62, (1 << 64) - 3):
        bomb = b"\x28\xb5\x2f\xfd" + b"\xe0" + size.to_bytes(8, "little") + b"\x03\x00\x10\x00"
        assert zstandard.get_frame_parameters(bomb).content_size == size
        _check_refused(Zstd(INNER["affine4"], 3), COMPRESSED + bomb)


@pytest.mark.parametrize("name", ["float16", "float8", "affine4", "sign", "topk"])
def test_zstd_refuses_frames_that_declare_less_than_is_needed(name: str) -> None:
    plain = INNER[name].encode(_sparse()).payload
    for content in (b"", plain[:-1], plain[: len(plain) // 2]):
        _check_refused(Zstd(INNER[name], 3), COMPRESSED + _compressed(content))


@pytest.mark.parametrize("name", INNER)
def test_zstd_refuses_frames_that_declare_no_size(name: str) -> None:
    plain = INNER[name].encode(_sparse()).payload
    frame = _compressed(plain, write_content_size=False)
    assert zstandard.get_frame_parameters(frame).content_size == zstandard.CONTENTSIZE_UNKNOWN
    _check_refused(Zstd(INNER[name], 3), COMPRESSED + frame)
    _check_refused(Zstd(INNER[name], 3), COMPRESSED + _compressed(bytes(1 << 24), write_content_size=False))


def test_zstd_refuses_frames_that_hold_another_size_than_they_declare() -> None:
    codec, plain = Zstd(INNER["affine4"], 3), INNER["affine4"].encode(_sparse()).payload
    frame = _compressed(plain)
    declared = len(plain).to_bytes(4, "little")
    at = next(at for at in (5, 6) if int.from_bytes(frame[at : at + 2], "little") + 256 == len(plain))
    assert frame[at : at + 2] == (len(plain) - 256).to_bytes(2, "little"), declared
    for size in (len(plain) - 1, len(plain) // 2, 256):
        _check_refused(codec, COMPRESSED + frame[:at] + (size - 256).to_bytes(2, "little") + frame[at + 2 :])
    bomb = _compressed(bytes(60_000))
    at = next(at for at in (5, 6) if int.from_bytes(bomb[at : at + 2], "little") + 256 == 60_000)
    _check_refused(codec, COMPRESSED + bomb[:at] + (len(plain) - 256).to_bytes(2, "little") + bomb[at + 2 :])


@pytest.mark.parametrize("name", INNER)
def test_zstd_refuses_anything_before_or_after_the_frame(name: str) -> None:
    plain = INNER[name].encode(_sparse()).payload
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"next"
    for more in (b"\0", b"more", _compressed(b""), _compressed(plain), skippable):
        _check_refused(Zstd(INNER[name], 3), COMPRESSED + _compressed(plain) + more)
    for first in (_compressed(b""), skippable):
        _check_refused(Zstd(INNER[name], 3), COMPRESSED + first + _compressed(plain))


@pytest.mark.parametrize("name", INNER)
def test_zstd_refuses_frames_that_need_a_dictionary(name: str) -> None:
    plain = INNER[name].encode(_sparse()).payload
    dictionary = zstandard.ZstdCompressionDict(b"raw content" * 20, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    frame = zstandard.ZstdCompressor(dict_data=dictionary, level=19).compress(b"raw content" * 10 + plain)
    _check_refused(Zstd(INNER[name], 3), COMPRESSED + frame)


@pytest.mark.parametrize("name", INNER)
@given(garbage=st.binary(max_size=80), behind_magic=st.booleans())
def test_zstd_refuses_arbitrary_bytes_as_a_frame(name: str, garbage: bytes, behind_magic: bool) -> None:
    _check_refused(
        Zstd(INNER[name], 3), COMPRESSED + (b"\x28\xb5\x2f\xfd" if behind_magic else b"") + garbage
    )


def test_zstd_largest_size_is_one_byte_more_than_that_of_the_codec_within() -> None:
    for inner in INNER.values():
        codec = Zstd(inner, 3)
        assert codec.max_size(SHAPE) == 1 + inner.max_size(SHAPE)


def test_zstd_around_zstd_decodes_to_the_values_of_the_innermost_codec() -> None:
    inner = INNER["affine4"]
    within: Zstd[Any] = Zstd(inner, 3)
    codec: Zstd[Any] = Zstd(within, 3)
    assert torch.equal(codec.decode(codec.encode(_sparse())), inner.decode(inner.encode(_sparse())))


@pytest.mark.parametrize("name", INNER)
def test_zstd_frame_that_declares_one_byte_too_many_is_refused_with_both_sizes(name: str) -> None:
    limit = INNER[name].max_size(SHAPE)
    payload = COMPRESSED + _compressed(bytes(limit + 1))
    with pytest.raises(Corrupt, match=f"{limit + 1} bytes are declared, and at most {limit} are allowed"):
        Zstd(INNER[name], 3).decode(_message(payload))
