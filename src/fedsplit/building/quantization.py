"""The codecs of a run."""

from collections.abc import Callable, Mapping
from functools import reduce
from operator import getitem
from typing import Any

from fedsplit.config.instantiate import make
from fedsplit.errors import UserError
from fedsplit.quant.codec import Codec, Quantizer
from fedsplit.quant.codecs.viewed import Viewed
from fedsplit.quant.quantization import Quantization, WeightsCodecs


def built_quantization(
    config: Mapping[str, Any], smashed_shape: tuple[int, ...], coded_shape: Callable[[], tuple[int, ...]]
) -> Quantization:
    """The codecs that the configuration asks for, for smashed data of these shapes (see `Models`).

    Args:
        config: of the run.
        smashed_shape: of one sample.
        coded_shape: gives that as codecs see it; asked only where there is something to code.
    """

    def at_cut(path: str) -> Codec:
        return codec_at_cut(built_codec(config, path), smashed_shape, coded_shape)

    return Quantization(
        smashed=at_cut("quant.smashed"),
        cut_gradient=at_cut("quant.cut_gradient"),
        weights=WeightsCodecs(
            up=built_codec(config, "quant.weights.up"),
            down=built_codec(config, "quant.weights.down"),
            whole=built_codec(config, "quant.weights.whole"),
        ),
        continue_from_decoded=config["quant"]["continue_from_decoded"],
    )


def codec_at_cut(
    codec: Codec, smashed_shape: tuple[int, ...], coded_shape: Callable[[], tuple[int, ...]]
) -> Codec:
    """A codec for what crosses the cut: it sees that with its channels."""
    if not isinstance(codec, Quantizer):
        return codec
    seen = coded_shape()
    return Viewed(codec, seen) if seen != smashed_shape else codec


def built_codec(config: Mapping[str, Any], path: str) -> Codec:
    """The codec chosen at `path`, as it is for weights.

    Raises:
        UserError: it cannot be made like that.
    """
    codec = make(Codec, config, path)  # type: ignore[type-abstract]
    level = reduce(getitem, path.split("."), config)["zstd"]
    if not isinstance(codec, Quantizer):
        if level is not None:
            raise UserError(f"{path}.zstd", level, "must be null: this codec takes no lossless stage")
        return codec
    if level is None:
        return codec
    from fedsplit.quant.codecs.zstd import Zstd  # noqa: PLC0415  (not needed where nothing is compressed)

    return Zstd(codec, level)
