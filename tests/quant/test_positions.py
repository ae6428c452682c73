import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsplit.building.quantization import build_quantization, codec_at_cut
from fedsplit.objectives.next_token import PADDING, NextToken
from fedsplit.quant.codec import Codec
from fedsplit.quant.positions import Positions
from tests.cases import long_but
from tests.configurations import configuration
from tests.conftest import Configure
from tests.quant.drawn import CASES, codecs_with_tensors, is_in_every_run

OBJECTIVE = NextToken(50, 20)


def labels(lengths: list[int], positions: int) -> Tensor:
    place = torch.arange(positions)
    return torch.where(place < torch.tensor(lengths)[:, None], place, PADDING)


POSITIONS = Positions(OBJECTIVE.lengths)


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4), more=st.integers(0, 3))
def test_real_positions_come_back_between_padding(lengths: list[int], more: int) -> None:
    y = labels(lengths, max(lengths) + more)
    x = torch.randn(*y.shape, 3)
    packed = POSITIONS.pack(x, y)
    assert torch.equal(packed, torch.cat([row[:length] for row, length in zip(x, lengths, strict=True)]))
    for padding in (0.0, math.nan):
        padded = POSITIONS.pad(packed, y, padding)
        expected = torch.where((y == PADDING)[..., None], padding, x)
        torch.testing.assert_close(padded, expected, rtol=0, atol=0, equal_nan=True)


def test_data_that_are_never_padded_pass_as_they_are() -> None:
    x = torch.randn(3, 2, 4, 4).contiguous()
    assert Positions().pack(x, None) is x
    assert Positions().pad(x, None) is x


@pytest.mark.parametrize("quant", ["none", "int8", "int4", "thrifty"])
def test_padding_changes_neither_bytes_nor_what_the_server_decodes(quant: str) -> None:
    config = configuration(f"quant={quant}")
    quantization = build_quantization(config, (9, 6), lambda: (9, 6), OBJECTIVE, math.nan)
    lengths = [9, 2, 5]
    y, x = labels(lengths, 9), torch.randn(3, 9, 6)
    wide = torch.nn.functional.pad(x, (0, 0, 0, 4), value=math.nan)
    wide[torch.nn.functional.pad(y, (0, 4), value=PADDING) == PADDING] = 1e30
    seen = quantization.simulate_smashed(x, y, 3)
    assert seen[y == PADDING].isnan().all()
    padded = quantization.simulate_smashed(wide, torch.nn.functional.pad(y, (0, 4), value=PADDING), 3)
    assert torch.equal(seen[y != PADDING], padded[:, :9][y != PADDING])


@pytest.mark.parametrize(("name", "wrapper"), long_but(is_in_every_run, CASES))
@given(data=st.data())
def test_codecs_simulate_packed_positions_as_they_decode_them(
    name: str, wrapper: str, data: st.DataObject
) -> None:
    codec, _ = data.draw(codecs_with_tensors(name, "bare" if "viewed" in wrapper else wrapper))
    x = torch.randn(data.draw(st.integers(1, 20)), data.draw(st.integers(1, 9)))
    message, simulated = codec.encode(x, seed=2), codec.simulate(x, seed=2)
    assert torch.equal(codec.decode(message), simulated.decoded)
    assert len(message.payload) == simulated.size <= codec.largest(x.shape, x.dtype)


def at_cut(configured: Configure, shape: tuple[int, ...], *overrides: str) -> Codec:
    config = configured("quant=int8", *overrides)
    return codec_at_cut(config.quant.smashed, shape, lambda: shape)


@pytest.mark.parametrize("shape", [(40, 16), (16,)])
def test_int8_keeps_other_features_at_35_db_beside_an_outlier_of_a_hundred_times(
    configured: Configure, shape: tuple[int, ...]
) -> None:
    x = torch.randn(8, *shape) if len(shape) == 2 else torch.randn(320, *shape)
    x[..., 3] *= 100
    decoded = at_cut(configured, shape).simulate(x).decoded
    others = [feature for feature in range(16) if feature != 3]
    signal, noise = x[..., others].square().sum(), (decoded - x)[..., others].square().sum()
    assert 10 * (signal / noise).log10() >= 35


def test_channels_are_those_of_images_where_no_tokens_cross_the_cut(configured: Configure) -> None:
    x = torch.randn(4, 6, 5, 5)
    one, other = (
        at_cut(configured, (6, 5, 5), f"quant.smashed.channel_dim={dim}").encode(x) for dim in ("auto", 1)
    )
    assert one.payload == other.payload
