"""Tensors arrive as they were: type, shape, values, strides, and memory of their own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsplit.cluster.packing import PackedTensor, pack, packed_bytes, unpack
from fedsplit.parties.messages import StackedGradients, Upload
from fedsplit.state.settled import SettledTensors

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64),
]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    whole = torch.rand(*shape, 3).mul(9).to(draw(st.sampled_from(DTYPES)))
    some = whole[..., 1] if draw(st.booleans()) else whole.select(-1, 0).clone()
    order = draw(st.permutations(range(some.dim())))
    some = some.permute(order)
    if some.dim() == 4 and draw(st.booleans()):
        some = some.contiguous(memory_format=torch.channels_last)
    return some.expand(2, *some.shape) if draw(st.booleans()) else some


def same(ours: Tensor, theirs: Tensor) -> bool:
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    flat = (torch.empty(each.numel(), dtype=each.dtype).copy_(each.reshape(-1)) for each in (ours, theirs))
    return torch.equal(*(each.view(torch.uint8) for each in flat))


@given(tensors(), st.booleans())
def test_any_tensor_arrives_with_the_same_bits(tensor: Tensor, shared: bool) -> None:
    arrived = unpack(pack(tensor), shared=shared)
    assert same(arrived, tensor)
    assert same(tensor.clone(), tensor)
    dense = tensor.clone()  # strides of what has gaps or repeats are those of a copy
    if tensor.numel() and dense.stride() == tensor.stride():
        assert arrived.stride() == tensor.stride()


def test_strides_of_an_image_batch_with_one_channel_arrive_though_values_do_not_show_them() -> None:
    x = torch.rand(2, 5, 5, 1).permute(0, 3, 1, 2)
    assert x.stride() != x.contiguous().clone(memory_format=torch.contiguous_format).stride()
    assert unpack(pack(x)).stride() == x.stride()


def test_arrays_are_read_only_and_what_arrives_is_not_their_memory_unless_it_is_shared() -> None:
    tensor = torch.arange(6.0)
    packed = pack(tensor)
    assert isinstance(packed, PackedTensor)
    assert not packed.values.flags.writeable
    assert np.shares_memory(packed.values, tensor.numpy())
    arrived = unpack(packed)
    arrived += 1
    assert tensor.tolist() == list(range(6))
    assert unpack(packed, shared=True).data_ptr() == tensor.data_ptr()


def test_messages_and_settled_states_arrive_as_objects_of_their_kind_within_trees() -> None:
    z, y = torch.rand(2, 3), torch.tensor([0, 1])
    tree = {"a": [Upload(4, 1, z, y)], "b": (SettledTensors({"w": z}), None, 2.5, "x")}
    packed = pack(tree)
    assert packed_bytes(packed) == 2 * z.nbytes + y.nbytes
    arrived = unpack(packed)
    (upload,), (settled, *others) = arrived["a"], arrived["b"]
    assert isinstance(upload, Upload)
    assert (upload.client, upload.step, others) == (4, 1, [None, 2.5, "x"])
    assert torch.equal(upload.z, z)
    assert torch.equal(upload.y, y)
    assert isinstance(settled, SettledTensors)
    assert settled.digest == SettledTensors({"w": z}).digest
    gradients = unpack(pack(StackedGradients([([3, 1], z)])))
    assert torch.equal(gradients[1], z[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_learning_parameters_arrive_without_their_graph(dtype: torch.dtype) -> None:
    arrived = unpack(pack(torch.ones(3, dtype=dtype, requires_grad=True) * 2))
    assert not arrived.requires_grad
    assert arrived.tolist() == [2.0, 2.0, 2.0]
