"""A module as a list of operations, in the order in which they run."""

import operator
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from typing_extensions import override

from fedsplit.computing.hooks import has_hooks
from fedsplit.computing.modes import Modes, in_mode
from fedsplit.errors import UserError


class Tracer(fx.Tracer):
    """Looks into every module but torch's own, those with hooks and those that say they are one operation.

    Args:
        closed: names of further submodules that are not looked into.
    """

    # Values made of a buffer are computed in each pass, and are no constants of the time of tracing.
    proxy_buffer_attributes = True

    def __init__(self, closed: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._closed = closed
        self.within: list[str] = []
        """Submodules whose code was running when tracing ended, outermost first; all of it, none."""

    @override
    def trace(
        self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None
    ) -> fx.Graph:
        """Trace a module into a graph of operations.

        Raises:
            GradientLost: the code has gradients of its own, which its operations do not.
        """
        self._gradients = torch.is_grad_enabled()
        with _refuse_own_gradients():
            return super().trace(root, concrete_args)

    @override
    def create_node(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        if torch.is_grad_enabled() != self._gradients:
            raise GradientLost("it turns gradients on or off for some operations")
        return super().create_node(*args, **kwargs)

    @override
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        closed = module_qualified_name in self._closed or getattr(m, "is_one_operation", False)
        return closed or has_hooks(m) or super().is_leaf_module(m, module_qualified_name)

    @override
    def call_module(self, m, forward, args, kwargs):  # type: ignore[no-untyped-def]
        """Call a part of the module; remember in which part an error came up."""
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):  # where one operation fails, the code around it is meant
            return super().call_module(m, forward, args, kwargs)
        self.within.append(path)
        output = super().call_module(m, forward, args, kwargs)
        self.within.pop()
        return output


class Untraceable(UserError):
    """A module whose own code cannot be followed."""


class GradientLost(fx.proxy.TraceError):
    """Code that changes how gradients are taken, which no list of operations says."""


@contextmanager
def _refuse_own_gradients() -> Iterator[None]:
    """Refuse an `autograd.Function` while tracing, of which only the forward would be followed."""
    original = torch.autograd.Function.__dict__["apply"]

    def apply(cls, *args, **kwargs):  # type: ignore[no-untyped-def]
        if any(isinstance(each, fx.Proxy) for each in (*args, *kwargs.values())):
            raise GradientLost(f"it applies {cls.__name__}, which has a backward of its own")
        return original.__get__(None, cls)(*args, **kwargs)

    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.autograd.Function.apply = original  # type: ignore[method-assign]


class _OpaqueModule(Exception):
    """A submodule that cannot be looked into; empty: the module itself, with the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason


def trace_operations(module: nn.Module) -> list[fx.Node]:
    """Trace the operations of a module; a submodule that cannot be looked into is one of them.

    A module says by its attribute `training` whether it trains, and its code may read that (as in
    `F.dropout(x, training=self.training)`): the operations read it anew in each pass.

    Raises:
        Untraceable: the module's own `forward` cannot be followed; says where, and why.
    """
    closed: frozenset[str] = frozenset()
    while True:
        try:
            nodes = _merge(module, *(_trace_mode(module, closed, training=mode) for mode in (True, False)))
            return _beside_their_users(nodes)
        except _OpaqueModule as found:
            if found.name:
                closed |= {found.name}
                continue
            children = ", ".join(name for name, _ in module.named_children())
            message = f"{found.reason}; no cut between its parts {children} is possible"
            raise Untraceable("model", type(module).__name__, message) from found


def _trace_mode(module: nn.Module, closed: frozenset[str], *, training: bool) -> list[fx.Node]:
    """The operations in one mode."""
    tracer = Tracer(closed)
    try:
        with in_mode(module, training):
            return list(tracer.trace(module).nodes)
    except GradientLost as error:
        message = f"its forward cannot be followed: {error}; a submodule that does this can be"
        raise _OpaqueModule(tracer.within[-1] if tracer.within else "", message) from error
    except Exception as error:  # whatever code of the user's makes of values that are not there yet
        reason = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
        message = f"its forward cannot be followed, for what it does depends on values ({reason})"
        raise _OpaqueModule(tracer.within[-1] if tracer.within else "", message) from error


def _merge(module: nn.Module, training: list[fx.Node], evaluating: list[fx.Node]) -> list[fx.Node]:
    """Operations that are right in both modes: constants that differ are chosen by `training`."""
    counterparts: dict[fx.Node, fx.Node] = {}
    for one, other in zip_longest(training, evaluating):
        counterparts[other] = one
        if one is None or other is None or one.op != other.op:
            raise _OpaqueModule(_owner(other if one is None else one), _TWO_FORWARDS)
        if one.target != other.target and not _same_constant(module, one, other):
            fresh = one.op == "get_attr" and "_tensor_constant" in str(one.target)
            raise _OpaqueModule(_owner(one), _FRESH if fresh else _TWO_FORWARDS)
        flag: list[fx.Node] = []
        try:
            arguments = _either(one, (one.args, one.kwargs), (other.args, other.kwargs), counterparts, flag)
        except ValueError as error:
            raise _OpaqueModule(_owner(one), _TWO_FORWARDS) from error
        if flag:
            one.args, one.kwargs = arguments
    return list(training[0].graph.nodes)


def _beside_their_users(nodes: list[fx.Node]) -> list[fx.Node]:
    """The operations with each parameter and buffer taken where it is used, and not before."""
    graph = nodes[0].graph
    for node in nodes:
        if node.op != "get_attr":
            continue
        for user in list(node.users):
            with graph.inserting_before(user):
                own = graph.create_node("get_attr", node.target)
            own.meta = dict(user.meta)
            user.replace_input_with(node, own)
        graph.erase_node(node)
    return list(graph.nodes)


_TWO_FORWARDS = "its forward does different things in training and in evaluation"
_FRESH = "its forward makes a tensor that is another one every time"


def _same_constant(module: nn.Module, one: fx.Node, other: fx.Node) -> bool:
    """True if both are tensors that the code makes anew in every pass, with the same values."""
    if one.op != "get_attr":
        return False
    tensors = [operator.attrgetter(str(node.target))(module) for node in (one, other)]
    return all(isinstance(each, Tensor) for each in tensors) and torch.equal(*tensors)


def _owner(node: fx.Node) -> str:
    """The submodule whose code an operation stands in."""
    called = str(node.target) if node.op == "call_module" else None
    return next((path for path in reversed(submodules_of(node)) if path != called), "")


def submodules_of(node: fx.Node) -> list[str]:
    """The submodules that an operation stands in, outermost first."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values()]


def _either(  # noqa: PLR0911  (one return a kind of argument)
    user: fx.Node, one: Any, other: Any, counterparts: dict[fx.Node, fx.Node], flag: list[fx.Node]
) -> Any:
    """An argument that is `one` in training and `other` in evaluation."""

    def inner(a: Any, b: Any) -> Any:
        return _either(user, a, b, counterparts, flag)

    if type(one) is type(other) and isinstance(one, tuple | list) and len(one) == len(other):
        return type(one)(map(inner, one, other)) if type(one) in (tuple, list) else one
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return {key: inner(one[key], other[key]) for key in one}
    if isinstance(one, slice) and isinstance(other, slice):
        return slice(*(inner(getattr(one, k), getattr(other, k)) for k in ("start", "stop", "step")))
    if isinstance(one, fx.Node) or isinstance(other, fx.Node):
        if isinstance(other, fx.Node) and counterparts.get(other) is one:
            return one
        raise ValueError("another operation")
    if type(one) is type(other) and (one == other or repr(one) == repr(other)):  # NaN is not itself
        return one
    if not flag:
        with user.graph.inserting_before(user):
            # not `graph.get_attr`, which warns that this is neither a parameter nor a buffer
            flag.append(user.graph.create_node("get_attr", "training"))
            flag[0].meta = dict(user.meta)
    if (one, other) == (True, False):
        return flag[0]
    with user.graph.inserting_before(user):
        chosen = user.graph.call_function(operator.getitem, ((other, one), flag[0]))
        chosen.meta = dict(user.meta)
    return chosen


class _ModeSwitch(fx.GraphModule):
    """Runs a graph, and trains and evaluates its parts as the module does that the graph was traced of."""

    @override
    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name, own in self.meta.get(_MODES, {}).get(mode, {}).items():
            self.get_submodule(name).training = own
        return self


_MODES = "fedsplit_modes"
"""Key of the modes in `meta`, which copies of a graph module keep."""


def graph_module(module: nn.Module, graph: fx.Graph, name: str, modes: Modes) -> fx.GraphModule:
    """A module that runs `graph`, with those parts of `module` that the graph names.

    Tensors that are no parameters and that a state dict of `module` does not hold, it does not hold either.

    Args:
        name: name of the new module's class.
        modes: function that does to the module's parts what its own `train` does.
    """
    made = _ModeSwitch(module, graph, name)
    own = {part for part, _ in made.named_modules()} - {""}
    made.meta[_MODES] = {
        mode: {part: kept for part, kept in parts.items() if part in own} for mode, parts in modes.items()
    }
    held = module.state_dict().keys()
    for key in made.state_dict().keys() - held:
        owner, _, attribute = key.rpartition(".")
        made.get_submodule(owner)._non_persistent_buffers_set.add(attribute)
    return made
