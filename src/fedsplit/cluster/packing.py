"""Trees of tensors as trees of numpy arrays, which libraries send without a copy, and back.

Libraries of clusters send numpy arrays far faster than tensors of torch. A tensor comes back with its type,
its values and its strides: which kernels compute with it, and so the last bits, may depend on these.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_AS_NUMPY = {
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e5m2: torch.uint8,
}
"""Types that numpy lacks, and those of the same size that carry their bits."""


class PackedTensor(NamedTuple):
    """A tensor: its values in the order in which memory holds them.

    Args:
        dtype: name of its type in torch.
        shape: sizes.
        strides: strides, counted in values.
        of_device: True if it was not in the memory of the processor.
        values: `(n,)`.
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    of_device: bool
    values: np.ndarray


class PackedObject(NamedTuple):
    """An object of this package, by its attributes."""

    kind: type
    attributes: dict[str, Any]


def pack(value: Any) -> Any:
    """The same tree with arrays for tensors, in the memory of these where it can be; not to be written to."""
    if isinstance(value, Tensor):
        return _pack(value)
    if _holds_attributes(value):
        return PackedObject(type(value), {name: pack(each) for name, each in vars(value).items()})
    return _map_leaves(value, pack)


def unpack(value: Any, device: torch.device | None = None, *, shared: bool = False) -> Any:
    """The tree that was packed.

    Args:
        value: value that `pack` returned.
        device: device of tensors that were on a device before.
        shared: True if tensors may be the arrays themselves, which may be read only; else they are copies.
    """

    def unpack_one(each: Any) -> Any:
        if isinstance(each, PackedTensor):
            return _unpack(each, device, shared=shared)
        if isinstance(each, PackedObject):
            found: Any = object.__new__(each.kind)
            found.__dict__.update({name: unpack_one(own) for name, own in each.attributes.items()})
            return found
        return _map_leaves(each, unpack_one)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return unpack_one(value)


def _map_leaves(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return type(value)({key: function(each) for key, each in value.items()})
    if type(value) in (list, tuple):
        return type(value)(function(each) for each in value)
    return value


def _holds_attributes(value: object) -> bool:
    kind = type(value)
    own = kind.__module__.partition(".")[0] == __package__.partition(".")[0]
    plain = kind.__reduce__ is object.__reduce__ and hasattr(value, "__dict__")
    return own and plain and not isinstance(value, dict)


def _pack(tensor: Tensor) -> PackedTensor:
    tensor = tensor.detach()
    if not _is_dense(tensor):
        tensor = tensor.clone()
    flat = tensor.as_strided((tensor.numel(),), (1,)).cpu()
    values = flat.view(_AS_NUMPY.get(tensor.dtype, tensor.dtype)).numpy().view()
    values.setflags(write=False)
    name = str(tensor.dtype).removeprefix("torch.")
    of_device = tensor.device.type != "cpu"
    return PackedTensor(name, tuple(tensor.shape), tensor.stride(), of_device, values)


def _is_dense(tensor: Tensor) -> bool:
    """True if each value in a stretch of memory belongs to the tensor, and once."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _unpack(packed: PackedTensor, device: torch.device | None, *, shared: bool) -> Tensor:
    dtype: torch.dtype = getattr(torch, packed.dtype)
    if shared:
        flat = torch.from_numpy(packed.values).view(dtype)
        tensor = flat.as_strided(packed.shape, packed.strides)
    else:
        tensor = torch.empty_strided(packed.shape, packed.strides, dtype=dtype)
        flat = tensor.as_strided((tensor.numel(),), (1,))
        np.copyto(flat.view(_AS_NUMPY.get(dtype, dtype)).numpy(), packed.values)
    return tensor.to(device) if packed.of_device and device is not None else tensor


def packed_bytes(value: Any) -> int:
    """Bytes of all arrays in a packed tree."""
    if isinstance(value, PackedTensor):
        return value.values.nbytes
    if isinstance(value, PackedObject):
        return packed_bytes(value.attributes)
    if isinstance(value, dict):
        return sum(map(packed_bytes, value.values()))
    return sum(map(packed_bytes, value)) if isinstance(value, list | tuple) else 0
