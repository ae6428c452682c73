"""The codecs of a run."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from fedsplit.config.run_config import RunConfig
from fedsplit.config.settings import CodecChoice
from fedsplit.errors import UserError
from fedsplit.objectives.objective import Objective
from fedsplit.quant.codec import Codec, Quantizer
from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.codecs.viewed import ReshapedSamples
from fedsplit.quant.positions import Positions
from fedsplit.quant.quantization import Quantization, WeightsCodecs


def build_quantization(
    config: RunConfig,
    smashed_shape: tuple[int, ...],
    coded_shape: Callable[[], tuple[int, ...]],
    objective: Objective,
    padding: float = 0.0,
    *,
    exact_weights: bool = False,
    trunk_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> Quantization:
    """The codecs that the configuration asks for, for smashed data of these shapes (see `Models`).

    Args:
        config: configuration of the run.
        smashed_shape: shape of one sample.
        coded_shape: gives that as codecs see it; asked only where there is something to code.
        objective: objective of the run, which says how long samples are.
        padding: value of smashed data behind the end of a sample, see `SplitModel`.
        exact_weights: True if weights travel as they are, whatever codec is asked for.
        trunk_shapes: shapes of one sample of what goes to a tail, and of that as codecs see it; None without
            one.

    Raises:
        UserError: data are padded, and there is a tail.
    """

    def at_cut(choice: CodecChoice) -> Codec:
        return codec_at_cut(choice, smashed_shape, coded_shape)

    def at_tail(choice: CodecChoice) -> Codec | None:
        return trunk_shapes and codec_at_cut(choice, trunk_shapes[0], lambda: trunk_shapes[1])

    if trunk_shapes and objective.labels().context is not None:
        message = "must be null with texts that are padded: a tail would have to know where they end"
        raise UserError("model.tail_cut", config.splitting.tail_cut, message)
    weights = config.quant.weights
    return Quantization(
        smashed=at_cut(config.quant.smashed),
        cut_gradient=at_cut(config.quant.cut_gradient),
        weights=WeightsCodecs(Identity(), Identity(), Identity())
        if exact_weights
        else WeightsCodecs(
            up=build_codec(weights.up),
            down=build_codec(weights.down),
            whole=build_codec(weights.whole),
        ),
        continue_from_decoded=config.quant.continue_from_decoded,
        positions=_positions(objective, padding),
        trunk_output=at_tail(config.quant.smashed),
        trunk_gradient=at_tail(config.quant.cut_gradient),
    )


def _positions(objective: Objective, padding: float) -> Positions:
    if objective.labels().context is None:
        return Positions()

    def lengths(y: Tensor) -> Tensor:
        found = objective.lengths(y)
        assert found is not None, "labels that travel with lengths have lengths"
        return found

    return Positions(lengths, padding)


def codec_at_cut(
    choice: CodecChoice, smashed_shape: tuple[int, ...], coded_shape: Callable[[], tuple[int, ...]]
) -> Codec:
    """A codec for what crosses the cut: it sees that with its channels, which of tokens `(t, d)` are last."""
    codec = build_codec(choice)
    if not isinstance(codec, Quantizer):
        return codec
    seen, component = coded_shape(), choice.component
    if len(seen) == 2 and component.arguments.get("channel_dim") == "auto":
        arguments = {**component.arguments, "channel_dim": -1}
        codec = build_codec(replace(choice, component=replace(component, arguments=arguments)))
        assert isinstance(codec, Quantizer)
    return ReshapedSamples(codec, seen) if seen != smashed_shape else codec


def build_codec(choice: CodecChoice) -> Codec:
    """A codec, as it is for weights.

    Raises:
        UserError: it cannot be made like that.
    """
    codec, level = choice.component.build(Codec), choice.zstd
    if not isinstance(codec, Quantizer):
        if level is not None:
            raise UserError(
                f"{choice.component.key}.zstd", level, "must be null: this codec takes no lossless stage"
            )
        return codec
    if level is None:
        return codec
    from fedsplit.quant.codecs.zstd import Zstd  # noqa: PLC0415  (not needed where nothing is compressed)

    return Zstd(codec, level)
