"""One module with the parameters of many clients: their passes as one computation."""

import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.func import functional_call, vmap

from fedsplit.computing.computation import autocast, computed_type
from fedsplit.computing.hooks import describe_hook
from fedsplit.computing.stacked_layers import GroupedImages, Stack, Value, by_rule, elementwise
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
_SHAPES = ("size", "dim", "shape", "ndim")


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
        """True if a forward pass draws random numbers by itself (dropout), so that it needs seeds."""

    def __call__(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        """Outputs `(K, b, ...)` in training mode; moves the running statistics in `buffers`.

        Args:
            parameters: parameters by name, `(K, ...)`.
            buffers: buffers by name, `(K, ...)`.
            x: inputs `(K, b, ...)`.
            seeds: seeds of what each client's pass draws by itself; read only if `draws`.
        """
        state = {**parameters, **buffers}
        with autocast(self.module, x.device):
            if self._graph is None:
                output = _over_clients(self.module, state, x)
            else:
                output = _Pass(self.module, state, len(x), seeds if self.draws else ()).run(self._graph, x)
        return output.to(computed_type(x))


def obstacle_to_stacking(module: nn.Module, x: Tensor) -> str | None:
    """Reason why passes of several clients through `module` cannot be one computation; None if they can.

    Functions that draw are an obstacle, as each client has a stream of its own; dropout modules are none.
    So are hooks: they are for what one client computes. What else may go wrong shows when it is tried.

    Args:
        module: the computation for one client, in training mode.
        x: a batch of its inputs.
    """
    if found := describe_hook(module):
        return found
    two = {
        name: torch.stack([tensor.detach()] * 2).requires_grad_()
        if tensor.requires_grad
        else tensor.detach().expand(2, *tensor.shape)
        for name, tensor in module.named_parameters(remove_duplicate=False)
    }
    held = dict(module.named_buffers())
    buffers = {name: torch.stack([held[name]] * 2) for name in module.state_dict() if name in held}
    with torch.enable_grad(), torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of operations done for one client after the other
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


def _over_clients(module: nn.Module, state: dict[str, Tensor], *inputs: Tensor, **kwargs: Value) -> Tensor:
    def one(state: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        output: Tensor = functional_call(module, state, inputs, kwargs)
        return output

    return vmap(one)(state, *inputs)


@dataclass(frozen=True)
class _Place:
    """Place that a tensor had among arguments."""

    number: int


class _Pass:
    """One pass of K clients through a graph."""

    def __init__(
        self, module: nn.Module, state: dict[str, Tensor], clients: int, seeds: Sequence[int]
    ) -> None:
        self._module, self._state = module, state
        self._stack = Stack(clients, [stream(seed) for seed in seeds])

    def run(self, graph: fx.Graph, x: Tensor) -> Tensor:
        values: dict[fx.Node, Value] = {}
        for node in graph.nodes:
            if node.op == "placeholder":
                values[node] = x
            elif node.op == "output":
                return cast(Tensor, self._stack.rows(values[node.args[0]]))
            else:
                values[node] = self._compute(node, values)
        raise AssertionError("a graph has an output")

    def _compute(self, node: fx.Node, values: dict[fx.Node, Value]) -> Value:
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
            keeps_places = name in _ELEMENTWISE_METHODS
        else:
            name, function = getattr(target, "__name__", ""), cast(Callable[..., Value], target)
            keeps_places = function in _ELEMENTWISE_FUNCTIONS
        if keeps_places and self._alike((*args, *kwargs.values())):
            return elementwise(function, args, kwargs)
        if name == "flatten" and (args[1:] or tuple(kwargs.values())) in {(1,), (1, -1)}:
            return self._stack.rows(args[0]).flatten(2)
        args, kwargs = cast(tuple[Value, Value], fx.node.map_aggregate((args, kwargs), self._stack.rows))
        if name in _SHAPES or (function is getattr and args[1] in _SHAPES):
            return function(args[0][0], *args[1:], **kwargs)  # one client's shape answers
        return self._map(function, args, kwargs)

    def _attribute(self, name: str) -> Value:
        if name in self._state:
            return self._state[name]
        value = self._module
        for part in name.split("."):
            value = getattr(value, part)
        return value.expand(self._stack.clients, *value.shape) if isinstance(value, Tensor) else value

    @staticmethod
    def _alike(args: Sequence[Value]) -> bool:
        """True if tensors stand beside numbers only, or beside tensors of their own shape."""
        tensors = [arg for arg in args if isinstance(arg, Tensor | GroupedImages)]
        shapes = {(arg if isinstance(arg, Tensor) else arg.tensor).shape for arg in tensors}
        return bool(tensors) and len({type(arg) for arg in tensors}) == 1 and len(shapes) == 1

    @staticmethod
    def _map(function: Callable[..., Value], args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
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

            own_args, own_kwargs = cast(tuple[Value, Value], fx.node.map_aggregate(placed, row))
            return function(*own_args, **own_kwargs)

        return vmap(one)(*tensors) if tensors else function(*args, **kwargs)

    def _call_module(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        module = self._module.get_submodule(name)
        own = {key: self._state[f"{name}.{key}"] for key in module.state_dict()}
        if len(args) == 1 and not kwargs:
            value = by_rule(self._stack, module, own, args[0])
            if value is not None:
                return value
        return _over_clients(module, own, *map(self._stack.rows, args), **kwargs)
