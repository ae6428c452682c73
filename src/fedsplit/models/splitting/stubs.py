"""Halves of a model that run the model's own code: what belongs to the other half is stood in for.

At the client what comes after the cut is missing, and the forward ends at the cut. At the server what holds
parameters and comes before the cut gives zeros of the right shape, which take no memory, and the module at
the cut gives the smashed data. What holds nothing, such as rotary embeddings and masks, runs on both sides.
In a guarded half there are tensors without values in the place of zeros, and of inputs: see `Unknown`.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.models.splitting.probing import Size, map_tensors, tensors_of
from fedsplit.models.splitting.unknown import Unknown, ValuesElsewhere

_PAD = -1  # as inputs are padded


class _CutReached(Exception):
    """The cut was reached: ends a client's pass."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output


class _Cut(nn.Module):
    """The last module of a client half."""

    @override
    def forward(self, *args: Any, **kwargs: Any) -> None:
        """End the pass with what the module gives."""
        raise _CutReached(super().forward(*args, **kwargs))


class Missing(nn.Module):
    """Stand-in for a module of the other half, which is never run here."""


class _Pass:
    """The pass that a server half is in.

    Args:
        shape: shape of smashed data.
        inputs: shape of one sample of the model's inputs; that of token ids is empty.
        is_guarded: True if there are tensors without values in the place of zeros.
    """

    def __init__(
        self, shape: Sequence[Size], inputs: tuple[int, ...], dtype: torch.dtype, *, guarded: bool
    ) -> None:
        self.shape, self.inputs, self.dtype, self.is_guarded = shape, inputs, dtype, guarded
        self.samples, self.length = 0, 1  # the length where smashed data do not say it
        self.z: Tensor | None = None
        self.injections = 0

    def start(self, z: Tensor) -> Tensor:
        """Take smashed data, and give inputs of as many samples, which say nothing but how many and long."""
        self.z, self.injections = z, 0
        self.samples = z.shape[self.shape.index(Size(1, 1, 0))]
        if (by_length := Size(1, 0, 1)) in self.shape:
            self.length = z.shape[self.shape.index(by_length)]
        shape = (self.samples, *(self.inputs or (self.length,)))
        if self.is_guarded:
            return Unknown.of(shape, self.dtype, z.device)
        return torch.zeros(shape, dtype=self.dtype, device=z.device)

    def zeros(self, shape: Sequence[Size], dtype: torch.dtype) -> Tensor:
        """Zeros of a shape of this pass, which take no memory."""
        assert self.z is not None
        sizes = [size.of(self.samples, self.length) for size in shape]
        if self.is_guarded:
            return Unknown.of(sizes, dtype, self.z.device)
        return torch.zeros((), dtype=dtype, device=self.z.device).expand(sizes)


class _Stub(nn.Module):
    """Gives zeros in the place of a module that the client has."""

    def __init__(self, current: _Pass, output: object, shapes: Sequence[Sequence[Size]]) -> None:
        super().__init__()
        self.current, self.output, self.shapes = current, output, shapes

    @override
    def forward(self, *_: object, **__: object) -> object:
        """Zeros in the structure of what the module gives."""
        shapes = iter(self.shapes)
        return map_tensors(self.output, lambda each: self.current.zeros(next(shapes), each.dtype))


class _Injection(nn.Module):
    """Gives the smashed data in the place of the module at the cut."""

    def __init__(self, current: _Pass, output: object) -> None:
        super().__init__()
        self.current, self.output = current, output

    @override
    def forward(self, *_: object, **__: object) -> object:
        """Smashed data in the structure of what the module gives."""
        self.current.injections += 1
        if self.current.is_guarded and self.current.injections > 1:
            raise ValuesElsewhere("what is at the cut runs more than once")
        return map_tensors(self.output, lambda _: self.current.z)


class _Passing(nn.Module):
    """Gives what it is given first, in the place of a block that is passed over."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    @override
    def forward(self, *args: object, **kwargs: object) -> object:
        """The input in the structure of what the block gives."""
        given = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        return map_tensors(self.output, lambda _: given)


class StubbedClient(nn.Module):
    """A model up to its cut; the class of the model is the next in the order of methods.

    Where padding matters to the model, smashed data behind the end of a sample are NaN.
    """

    marks_padding: bool

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Smashed data of the inputs."""
        try:
            super().forward(x)
        except _CutReached as reached:
            (z,) = tensors_of(reached.output)
        else:
            raise AssertionError("the forward of this model does not reach its cut")
        return z.masked_fill((x < 0)[..., None], math.nan) if self.marks_padding else z


class StubbedServer(nn.Module):
    """A model from its cut on; the class of the model is the next in the order of methods."""

    marks_padding: bool
    current: _Pass
    following: Mapping[str, object]
    """Blocks behind the cut, by name, and the structures of what they give."""

    @override
    def forward(self, z: Tensor, **further: Tensor) -> Tensor:
        """Outputs of smashed data; `further` goes to the model's own forward."""
        if self.marks_padding:
            padded = z.detach().flatten(2).isnan().any(2)
            padded[:, 0] = False  # no sample is empty: what is NaN there has diverged, and must be seen
            z = z.masked_fill(padded[..., None], 0.0)
        x = self.current.start(z)
        if self.marks_padding:
            x = x.masked_fill(padded, _PAD)
        try:
            outputs: Tensor = super().forward(x, **further)
        finally:
            self.current.z = None
        if isinstance(outputs, Unknown):
            raise ValuesElsewhere("its outputs need what only the client has")
        return outputs


def derived_class(module: nn.Module, kind: type[nn.Module]) -> None:
    """Let a module be of `kind` too, whose methods come before those of its class; the name stays."""
    module.__class__ = type(type(module).__name__, (kind, type(module)), {})


def shared_copy(module: nn.Module, others: Mapping[int, nn.Module]) -> nn.Module:
    """A copy that holds the very tensors of the module, with other modules in the place of some, by id."""
    tensors = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module, {**{id(each): each for each in tensors}, **others})


def _marks_padding(module: nn.Module, shape: Sequence[Size]) -> bool:
    """True if a model says by `needs_padding` that padding matters to it, and smashed data have positions."""
    return bool(getattr(module, "needs_padding", False)) and tuple(shape[1:2]) == (Size(1, 0, 1),)


def client_half(module: nn.Module, cut: str, missing: Sequence[str], shape: Sequence[Size]) -> nn.Module:
    """The client half of a module, which shares its tensors.

    Args:
        missing: names of the submodules that belong to the server.
        shape: shape of smashed data.
    """
    parts = dict(module.named_modules())
    half = shared_copy(module, {id(parts[name]): Missing() for name in missing})
    derived_class(half.get_submodule(cut), _Cut)
    derived_class(half, StubbedClient)
    half.marks_padding = _marks_padding(module, shape)  # type: ignore[assignment]
    return half


class ServerParts:
    """Parts that a server half is put together from.

    Args:
        shape: shape of smashed data.
        example: a batch of the model's inputs.
        text: True if these are token ids.
        guarded: see the top of this file.
    """

    def __init__(self, shape: Sequence[Size], example: Tensor, *, text: bool, guarded: bool) -> None:
        inputs = () if text else tuple(example.shape[1:])
        self.current = _Pass(shape, inputs, example.dtype, guarded=guarded)

    def half(
        self,
        module: nn.Module,
        cut: tuple[str, object],
        stubs: Mapping[str, tuple[object, Sequence[Sequence[Size]]]],
        following: Mapping[str, object],
    ) -> nn.Module:
        """The server half of a module, which shares its tensors.

        Args:
            cut: name of the module at the cut, and the structure of what it gives.
            stubs: names of the submodules that belong to the client, with the structures of what they give
                and the shapes of the tensors in them.
            following: names of the blocks behind the cut, with the structures of what they give.
        """
        parts = dict(module.named_modules())
        others: dict[int, nn.Module] = {
            id(parts[name]): _Stub(self.current, *found) for name, found in stubs.items()
        }
        others[id(parts[cut[0]])] = _Injection(self.current, cut[1])
        half = shared_copy(module, others)
        derived_class(half, StubbedServer)
        half.marks_padding = _marks_padding(module, self.current.shape)  # type: ignore[assignment]
        half.current, half.following = self.current, following  # type: ignore[assignment]
        return half


def truncate_server(server: StubbedServer, depth: int) -> nn.Module:
    """Cut off a server half after its first `depth` blocks; frozen tensors are shared, others copied."""
    passed = list(server.following.items())[depth:]
    others: dict[int, object] = {id(server.get_submodule(name)): _Passing(output) for name, output in passed}
    frozen = {id(each): each for each in server.parameters() if not each.requires_grad}
    return copy.deepcopy(server, {**frozen, **others})
