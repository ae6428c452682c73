"""One module with the parameters of many clients: their passes as one computation."""

import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, vmap

from fedsplit.computing.computation import autocast
from fedsplit.computing.hooks import hooked
from fedsplit.computing.layout import ELEMENTWISE
from fedsplit.computing.local_response_norm import LocalResponseNorm
from fedsplit.computing.model_state import compute_format
from fedsplit.computing.tracing import Tracer
from fedsplit.errors import first_line
from fedsplit.randomness import stream

_ELEMENTWISE_FUNCTIONS: tuple[object, ...] = (
    operator.add,
    operator.iadd,
    operator.mul,
    operator.sub,
    torch.add,
    torch.mul,
    torch.relu,
    F.relu,
    F.gelu,
    F.silu,
)
_ELEMENTWISE_METHODS = ("add", "add_", "mul", "clone", "relu", "contiguous")
_CHANNELWISE = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_SHAPES = ("size", "dim", "shape", "ndim")


@dataclass(frozen=True)
class Grouped:
    """Images of K clients side by side in the channels, `(b, K c, h, w)`: what grouped convolutions take."""

    tensor: Tensor


Value: TypeAlias = Any
"""A tensor `(K, b, ...)` with a row a client, a `Grouped`, or whatever else a graph hands around."""


class StackedModule:
    """Computes what `module` computes for each of K clients, with K sets of parameters and buffers.

    The module's `torch.fx` graph is followed node by node. Linear layers become `baddbmm`, convolutions
    and batch normalisation one grouped call over `K c` channels; whatever has no rule of its own goes
    through `torch.func.vmap`, and so does a module as a whole that cannot be traced.

    Args:
        module: the computation for one client, in training mode.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._graph = _graph(module)
        self.draws = any(isinstance(each, nn.Dropout) and each.p > 0 for each in module.modules())
        """Whether a pass draws by itself (dropout), so that it needs seeds."""

    def __call__(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        """Outputs `(K, b, ...)` in training mode; moves the running statistics in `buffers`.

        Args:
            parameters: by name, `(K, ...)`.
            buffers: by name, `(K, ...)`.
            x: inputs `(K, b, ...)`.
            seeds: of what each client's pass draws by itself; read only if `draws`.
        """
        state = {**parameters, **buffers}
        with autocast(self.module, x.device):
            if self._graph is None:
                output = _over_clients(self.module, state, x)
            else:
                output = _Pass(self.module, state, len(x), seeds if self.draws else ()).run(self._graph, x)
        return output.to(x.dtype)


def obstacle_to_stacking(module: nn.Module, x: Tensor) -> str | None:
    """Why passes of several clients through `module` cannot be one computation; None if they can.

    Functions that draw are an obstacle, as each client has a stream of its own; dropout modules are none.
    So are hooks: they are for what one client computes. What else may go wrong shows when it is tried.

    Args:
        module: the computation for one client, in training mode.
        x: a batch of its inputs.
    """
    if found := hooked(module):
        return found
    two = {
        name: torch.stack([tensor.detach()] * 2).requires_grad_(tensor.requires_grad)
        for name, tensor in module.named_parameters()
    }
    held = dict(module.named_buffers())
    buffers = {name: torch.stack([held[name]] * 2) for name in module.state_dict() if name in held}
    with torch.enable_grad(), torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an operation is done for one client after the other
        try:
            output = StackedModule(module)(two, buffers, torch.stack([x, x]).detach(), [0, 0])
            if output.requires_grad:
                trained = [tensor for tensor in two.values() if tensor.requires_grad]
                torch.autograd.grad(output.sum(), trained, allow_unused=True)
        except Exception as error:  # whatever a module of the user's does with stacked values
            return first_line(error)
    return None


def _graph(module: nn.Module) -> fx.Graph | None:
    if isinstance(module, fx.GraphModule):
        return module.graph
    try:
        return Tracer().trace(module)
    except (fx.proxy.TraceError, TypeError, RuntimeError):  # a RuntimeError where forward calls `len`
        return None


def _over_clients(module: nn.Module, state: dict[str, Tensor], *inputs: Tensor, **kwargs: Any) -> Tensor:
    def one(state: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        output: Tensor = functional_call(module, state, inputs, kwargs)
        return output

    return vmap(one)(state, *inputs)


@dataclass(frozen=True)
class _Place:
    """Where a tensor was among arguments."""

    number: int


class _Pass:
    """One pass of K clients through a graph."""

    def __init__(
        self, module: nn.Module, state: dict[str, Tensor], clients: int, seeds: Sequence[int]
    ) -> None:
        self._module, self._state, self._clients = module, state, clients
        self._streams = [stream(seed) for seed in seeds]

    def run(self, graph: fx.Graph, x: Tensor) -> Tensor:
        values: dict[fx.Node, Value] = {}
        for node in graph.nodes:
            if node.op == "placeholder":
                values[node] = x
            elif node.op == "output":
                return cast(Tensor, self.rows(values[node.args[0]]))
            else:
                values[node] = self._computed(node, values)
        raise AssertionError("a graph has an output")

    def rows(self, value: Value) -> Value:
        """A value with a row a client."""
        if isinstance(value, Grouped):
            batch, _, height, width = value.tensor.shape
            return value.tensor.view(batch, self._clients, -1, height, width).transpose(0, 1)
        return value

    def grouped(self, value: Value) -> Tensor:
        """Images with the clients side by side in the channels."""
        if isinstance(value, Grouped):
            return value.tensor
        side_by_side = cast(Tensor, value).transpose(0, 1).flatten(1, 2)
        return side_by_side.contiguous(memory_format=torch.channels_last)

    def _computed(self, node: fx.Node, values: dict[fx.Node, Value]) -> Value:
        def value_of(each: fx.Node) -> Value:
            return values[each]

        args = cast(tuple[Value, ...], fx.node.map_arg(node.args, value_of))
        kwargs = cast(dict[str, Value], fx.node.map_arg(node.kwargs, value_of))
        if node.op == "get_attr":
            return self._attribute(str(node.target))
        if node.op == "call_module":
            return self._call_module(str(node.target), args, kwargs)
        target = node.target
        if node.op == "call_method":
            name, function = str(target), getattr(torch.Tensor, str(target))
            elementwise = name in _ELEMENTWISE_METHODS
        else:
            name, function = getattr(target, "__name__", ""), cast(Callable[..., Any], target)
            elementwise = function in _ELEMENTWISE_FUNCTIONS
        if elementwise and self._alike((*args, *kwargs.values())):
            return self._elementwise(function, args, kwargs)
        if name == "flatten" and (args[1:] or tuple(kwargs.values())) in {(1,), (1, -1)}:
            return self.rows(args[0]).flatten(2)
        args, kwargs = cast(tuple[Any, Any], fx.node.map_aggregate((args, kwargs), self.rows))
        if name in _SHAPES or (function is getattr and args[1] in _SHAPES):
            return function(args[0][0], *args[1:], **kwargs)  # of one client, like everything that is asked
        return self._mapped(function, args, kwargs)

    def _attribute(self, name: str) -> Value:
        if name in self._state:
            return self._state[name]
        value = self._module
        for part in name.split("."):
            value = getattr(value, part)
        return value.expand(self._clients, *value.shape) if isinstance(value, Tensor) else value

    @staticmethod
    def _alike(args: Sequence[Value]) -> bool:
        """Whether tensors stand beside numbers only, or beside tensors of their own shape."""
        tensors = [arg for arg in args if isinstance(arg, Tensor | Grouped)]
        shapes = {(arg if isinstance(arg, Tensor) else arg.tensor).shape for arg in tensors}
        return bool(tensors) and len({type(arg) for arg in tensors}) == 1 and len(shapes) == 1

    @staticmethod
    def _elementwise(
        function: Callable[..., Any], args: Sequence[Value], kwargs: dict[str, Value] | None = None
    ) -> Value:
        bare = [arg.tensor if isinstance(arg, Grouped) else arg for arg in args]
        result = function(*bare, **(kwargs or {}))
        return Grouped(result) if any(isinstance(arg, Grouped) for arg in args) else result

    @staticmethod
    def _mapped(function: Callable[..., Any], args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """Any function of the graph, by `vmap` over the tensors among its arguments."""
        tensors: list[Tensor] = []

        def place(leaf: Value) -> Value:
            if not isinstance(leaf, Tensor):
                return leaf
            tensors.append(leaf)
            return _Place(len(tensors) - 1)

        placed = fx.node.map_aggregate((args, kwargs), place)

        def one(*rows: Tensor) -> Value:
            def row(leaf: Value) -> Value:
                return rows[leaf.number] if isinstance(leaf, _Place) else leaf

            own_args, own_kwargs = cast(tuple[Any, Any], fx.node.map_aggregate(placed, row))
            return function(*own_args, **own_kwargs)

        return vmap(one)(*tensors) if tensors else function(*args, **kwargs)

    # Modules

    def _call_module(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        module = self._module.get_submodule(name)
        own = {key: self._state[f"{name}.{key}"] for key in module.state_dict()}
        if len(args) == 1 and not kwargs:
            images = isinstance(args[0], Grouped) or args[0].ndim == _IMAGES
            for kinds, needs_images, rule in _RULES:
                if (images or not needs_images) and _is_plain(module, kinds):
                    value = rule(self, module, own, args[0])
                    if value is not None:
                        return value
        return _over_clients(module, own, *(self.rows(arg) for arg in args), **kwargs)

    def elementwise(self, module: nn.Module, own: dict[str, Tensor], x: Value) -> Value:
        return self._elementwise(module, (x,))

    def flattened(self, module: nn.Flatten, own: dict[str, Tensor], x: Value) -> Tensor | None:
        return self.rows(x).flatten(2) if (module.start_dim, module.end_dim) == (1, -1) else None

    def linear(self, module: nn.Linear, own: dict[str, Tensor], x: Value) -> Tensor | None:
        x = self.rows(x)
        if x.ndim != 3:
            return None
        output: Tensor = _Linear.apply(x, own["weight"], own.get("bias"))  # type: ignore[no-untyped-call]
        return output

    def pooled(self, module: nn.Module, own: dict[str, Tensor], x: Value) -> Grouped:
        return Grouped(module(self.grouped(x)))

    def convolved(self, module: nn.Conv2d, own: dict[str, Tensor], x: Value) -> Grouped | None:
        if module.padding_mode != "zeros":
            return None
        weight, bias = own["weight"].flatten(0, 1), own["bias"].flatten() if "bias" in own else None
        spread = module.stride, cast(tuple[int, int], module.padding), module.dilation
        return Grouped(F.conv2d(self.grouped(x), weight, bias, *spread, self._clients * module.groups))

    def batch_norm_2d(self, module: nn.BatchNorm2d, own: dict[str, Tensor], x: Value) -> Grouped | None:
        return None if module.momentum is None else Grouped(_batch_norm(module, own, self.grouped(x)))

    def batch_norm_1d(self, module: nn.BatchNorm1d, own: dict[str, Tensor], x: Value) -> Tensor | None:
        x = self.rows(x)
        if module.momentum is None or x.ndim != 3:
            return None
        side_by_side = _batch_norm(module, own, x.transpose(0, 1).flatten(1))
        return side_by_side.view(x.shape[1], self._clients, -1).transpose(0, 1)

    def locally_normalised(self, module: LocalResponseNorm, own: dict[str, Tensor], x: Value) -> Grouped:
        """Within each client's own channels: clients go into the batch."""
        x = self.grouped(x)
        batch, _, height, width = x.shape
        last = x.permute(0, 2, 3, 1)  # b h w K c, as it is in memory
        alone = module(last.reshape(batch, height, width * self._clients, -1).movedim(3, 1))
        return Grouped(alone.movedim(1, 3).reshape(last.shape).movedim(3, 1))

    def dropped_out(self, module: nn.Dropout, state: dict[str, Tensor], x: Value) -> Tensor:
        """Each client's mask from a stream of its own, drawn in memory order as torch does."""
        rows, keep = cast(Tensor, self.rows(x)), 1 - module.p
        if keep in {0, 1}:
            return rows * keep
        like = compute_format(torch.empty(rows.shape[1:], dtype=rows.dtype))
        masks = [torch.empty_like(like).bernoulli_(keep, generator=own) for own in self._streams]
        return rows * torch.stack(masks).to(rows.device).div_(keep)


def _is_plain(module: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> bool:
    """Whether a layer computes as its kind does, with the tensors of its kind, in training mode.

    A subclass may compute anything, and so may a parametrized layer, whose class is one. A weight that is no
    parameter is not stacked.
    """
    known = {name for name in _TENSORS if getattr(module, name, None) is not None}
    exact = type(module) in (kinds if isinstance(kinds, tuple) else (kinds,))
    return exact and module.training and module.state_dict().keys() == known


_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_IMAGES = 5  # dimensions of `(K, b, c, h, w)`

_RULES: tuple[tuple[Any, bool, Callable[[_Pass, Any, dict[str, Tensor], Value], Value | None]], ...] = (
    (ELEMENTWISE, False, _Pass.elementwise),
    (nn.Flatten, False, _Pass.flattened),
    (nn.Linear, False, _Pass.linear),
    (nn.Dropout, False, _Pass.dropped_out),
    (nn.Conv2d, True, _Pass.convolved),
    (nn.BatchNorm2d, True, _Pass.batch_norm_2d),
    (nn.BatchNorm1d, False, _Pass.batch_norm_1d),
    (_CHANNELWISE, True, _Pass.pooled),
    (LocalResponseNorm, True, _Pass.locally_normalised),
)
"""Modules with a rule of their own, whether it is for images only, and the rule; None: it does not fit."""


class _Linear(torch.autograd.Function):
    """`x W' + b` for each client; the gradient of `W` comes in the memory order of `W`.

    Autograd's own comes transposed, and every step of an optimizer on it is several times slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        transposed = weight.transpose(1, 2)
        return torch.bmm(x, transposed) if bias is None else torch.baddbmm(bias[:, None], x, transposed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        (g,), (x, weight) = gradients, ctx.saved_tensors
        kind = g.dtype  # under autocast the narrower one
        through = torch.bmm(g, weight.to(kind)).to(x.dtype) if ctx.needs_input_grad[0] else None
        along = torch.bmm(g.transpose(1, 2), x.to(kind)).to(weight.dtype)
        return through, along, g.sum(1).to(weight.dtype) if ctx.has_bias else None


def _batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, own: dict[str, Tensor], x: Tensor) -> Tensor:
    """Over the channels of all clients; each row of the running statistics moves as it would alone."""
    flat = {key: tensor.view(-1) if tensor.ndim > 1 else tensor for key, tensor in own.items()}
    if "num_batches_tracked" in own:
        own["num_batches_tracked"].add_(1)
    return F.batch_norm(
        x,
        flat.get("running_mean"),
        flat.get("running_var"),
        flat.get("weight"),
        flat.get("bias"),
        training=True,
        momentum=cast(float, module.momentum),
        eps=module.eps,
    )
