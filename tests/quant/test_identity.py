import pytest
import torch
from hypothesis import given
from torch import Tensor

from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.message import Corrupt, Message
from tests.quant.drawn import DTYPES, tensors


@given(x=tensors())
def test_identity_decodes_every_tensor_bit_by_bit(x: Tensor) -> None:
    message = Identity().encode(x)
    decoded = Identity().decode(message)
    assert torch.equal(decoded, x)
    assert torch.equal(torch.signbit(decoded), torch.signbit(x))  # also of zeros
    assert len(message.payload) == x.numel() * x.element_size()
    assert not Identity().error_bound(x).any()


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32]
)
def test_identity_decodes_integer_tensors_of_any_layout(dtype: torch.dtype) -> None:
    limits = torch.iinfo(dtype)
    x = torch.tensor([[limits.min, 0], [1, limits.max]], dtype=dtype)
    for layout in (x, x.T, x[:, 1], x[0, 0]):
        message = Identity().encode(layout)
        assert torch.equal(Identity().decode(message), layout)
        assert Identity().simulate(layout).size == len(message.payload)


def test_identity_decodes_boolean_tensors() -> None:
    x = torch.tensor([True, False, True])
    assert torch.equal(Identity().decode(Identity().encode(x)), x)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_identity_decoder_refuses_values_that_are_not_finite(value: float) -> None:
    for dtype in DTYPES:
        payload = torch.tensor([1.0, value], dtype=dtype).view(torch.uint8).numpy().tobytes()
        with pytest.raises(Corrupt):
            Identity().decode(Message.seal(payload, (2,), dtype))
