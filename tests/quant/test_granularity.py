from math import prod
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsplit.quant.granularity import Granularity, GranularityName
from tests.oracles.codecs import groups
from tests.quant.drawn import Shape, shapes, tensors

granularities = st.builds(
    Granularity,
    st.sampled_from(("tensor", "channel", "block", "token")),
    st.integers(1, 20),
    st.integers(0, 3),
)


@given(granularity=granularities, x=tensors())
def test_split_rows_are_the_groups_of_values_padded_with_zeros(granularity: Granularity, x: Tensor) -> None:
    rows, flat = granularity.split(x), x.reshape(-1)
    assert rows.shape == granularity.rows_of(x.shape)
    expected = groups(x.shape, granularity.name, granularity.block_size, granularity.channel_dim)
    assert len(rows) == len(expected)
    for row, places in zip(rows, expected, strict=True):
        assert torch.equal(row[: len(places)], flat[torch.from_numpy(places)])
        assert not row[len(places) :].any()


@given(granularity=granularities, x=tensors())
def test_joining_the_split_rows_gives_the_contiguous_tensor(granularity: Granularity, x: Tensor) -> None:
    joined = granularity.join(granularity.split(x), x.shape)
    assert torch.equal(joined, x)
    assert joined.is_contiguous()


@given(granularity=granularities, shape=shapes)
def test_spreading_one_number_a_row_gives_every_value_that_of_its_row(
    granularity: Granularity, shape: Shape
) -> None:
    expected = np.empty(prod(shape))
    for number, places in enumerate(
        groups(shape, granularity.name, granularity.block_size, granularity.channel_dim)
    ):
        expected[places] = number
    rows, _ = granularity.rows_of(shape)
    spread = granularity.spread(torch.arange(float(rows)), shape)
    assert spread.shape == shape
    assert spread.reshape(-1).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("name", "shape", "channel_dim", "rows"),
    [
        ("tensor", (4, 6, 5), 1, (1, 120)),
        ("block", (4, 6, 5), 1, (18, 7)),
        ("block", (7,), 1, (1, 7)),
        ("block", (), 1, (1, 7)),
        ("channel", (4, 6, 5), 1, (6, 20)),
        ("channel", (4, 6, 5), 0, (4, 30)),
        ("channel", (4, 6, 5), 2, (5, 24)),
        ("channel", (4, 6, 5), 3, (1, 120)),  # there is no such dimension
        ("channel", (4, 6), 1, (6, 4)),
        ("channel", (4,), 0, (1, 4)),
        ("channel", (), 0, (1, 1)),
        ("channel", (4, 6, 5), "auto", (6, 20)),
        ("channel", (4, 6, 5), -1, (5, 24)),
        ("channel", (4, 6), -1, (6, 4)),
        ("channel", (4,), -1, (1, 4)),
        ("channel", (), -1, (1, 1)),
        ("token", (4, 6, 5), "auto", (24, 5)),
        ("token", (4, 6), "auto", (4, 6)),
        ("token", (4,), "auto", (1, 4)),
        ("token", (), "auto", (1, 1)),
    ],
)
def test_rows_of_a_shape_have_the_expected_number_and_length(
    name: GranularityName, shape: Shape, channel_dim: int | Literal["auto"], rows: tuple[int, int]
) -> None:
    assert Granularity(name, 7, channel_dim).rows_of(shape) == rows
