from math import inf, log2

import pytest
import torch

from fedsplit.quant.codecs.affine import affine
from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.codecs.sign import Sign
from fedsplit.quant.codecs.topk import TopK
from fedsplit.quant.codecs.zstd import Zstd
from fedsplit.quant.survey import survey


def test_survey_bits_are_those_of_the_payload_and_sqnr_that_of_the_decoded_values() -> None:
    x = torch.randn(8, 16, 4, generator=torch.Generator().manual_seed(0))
    codec = affine(bits=3, granularity="channel")
    found = survey(codec, x, repeats=1)
    assert found.bits == 8 * (16 * 2 + 16 * 3 / 8 + 512 * 3 / 8) / 512
    decoded = codec.decode(codec.encode(x)).double()
    noise = ((decoded - x.double()) ** 2).mean() / (x.double() ** 2).mean()
    assert 10 ** (-found.sqnr / 10) == pytest.approx(float(noise), rel=1e-9)
    assert found.encode_mb_s > 0 < found.decode_mb_s


@pytest.mark.parametrize("ones", [0, 1, 64, 200])
def test_survey_entropy_is_that_of_the_frequencies_of_the_codes(ones: int) -> None:
    x = -torch.ones(256)
    x[:ones] = 1
    share = ones / 256
    expected = -sum(p * log2(p) for p in (share, 1 - share) if p)
    assert survey(Sign(), x, repeats=1).entropy == pytest.approx(expected)


def test_survey_compressed_bits_are_few_for_repeated_values_and_never_many_more_than_plain() -> None:
    codec = affine(bits=8, granularity="tensor")
    zeros = survey(codec, torch.zeros(10_000), repeats=1)
    assert zeros.bits >= 8.0
    assert zeros.compressed_bits is not None
    assert zeros.compressed_bits < 0.1
    noise = survey(codec, torch.rand(10_000, generator=torch.Generator().manual_seed(0)), repeats=1)
    assert noise.compressed_bits is not None
    assert noise.compressed_bits <= noise.bits + 8 / 10_000
    already = survey(Zstd(codec, 3), torch.zeros(10_000), repeats=1)
    assert already.compressed_bits == already.bits == zeros.compressed_bits


def test_survey_leaves_out_entropy_and_compressed_bits_where_a_codec_has_none() -> None:
    x = torch.arange(1.0, 9.0)
    exact = survey(Identity(), x, repeats=1)
    assert (exact.bits, exact.compressed_bits, exact.entropy, exact.sqnr) == (32.0, None, None, inf)
    assert survey(TopK(fraction=0.5), x, repeats=1).entropy is None
