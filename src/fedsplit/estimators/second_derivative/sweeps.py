"""The squared error of a model's cut gradients, and its gradient, in four sweeps over its operations.

With the loss l(z, weights), the estimate E = dl/dz and the error L = |E - G|^2, both derivatives of l can
be taken in the other order:

    dL/dweights = 2 (dE/dweights)' (E - G) = 2 d/de [ dl/dweights (z + e V) ]  at e = 0,  V = E - G.

So it is how the gradient of the weights changes when z moves along V. Sweeps: values forward, gradients
backward (which give E), the direction V forward, changes of gradients backward. Autograd
instead records the first two and goes back through both, by formulas that it composes for the second
derivatives of convolution and batch normalisation.

Source: B. Pearlmutter, "Fast Exact Multiplication by the Hessian", 1994.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from fedsplit.computing.tracing import Tracer
from fedsplit.estimators.estimator import Chunk
from fedsplit.estimators.second_derivative.operation import UnsupportedError
from fedsplit.estimators.second_derivative.rules import Rule, rule_of
from fedsplit.state.weights import Weights


@dataclass(frozen=True)
class _Node:
    """One operation with its place among the others.

    Args:
        sources: positions of its inputs among z and the values of the nodes before it.
        weights: names of its weights in the model, by their names in its module.
        weights_only: True where nothing before the operation has weights.
    """

    rule: Rule
    sources: tuple[int, ...]
    weights: Mapping[str, str]
    weights_only: bool


class Sweeps:
    """A model as the list of its operations, each with its rule.

    Args:
        module: model in training mode, which ends in logits.

    Raises:
        UnsupportedError: the model cannot be traced, or an operation has no rule.
    """

    def __init__(self, module: nn.Module) -> None:
        places: dict[fx.Node, int] = {}
        learning: set[int] = set()
        self._nodes: list[_Node] = []
        for node in _trace(module).nodes:
            if node.op == "placeholder":
                places[node] = 0
            elif node.op == "output":
                self._last_place = places[_values(node)[0]]
            else:
                rule, weights = rule_of(module, node)
                sources = tuple(places[source] for source in _values(node))
                before = bool(learning.intersection(sources))
                places[node] = len(self._nodes) + 1
                learning.update([places[node]] if before or weights else [])
                self._nodes.append(_Node(rule, sources, weights, weights_only=not before))
        if list(places.values()).count(0) != 1:
            raise UnsupportedError("a model of more than one input")
        if {name for node in self._nodes for name in node.weights.values()} != set(_names(module)):
            raise UnsupportedError("weights that no layer uses, or that have two names")

    @torch.no_grad()
    def error_gradients(self, weights: Weights, chunk: Chunk) -> tuple[Tensor, Weights]:
        """The squared error of the cut gradients of the cross-entropy, summed, and its gradients by name.

        Raises:
            UnsupportedError: an operation has no rule for such an input.
        """
        uses = []
        values = [chunk.z]
        for node in self._nodes:
            node_weights = {name: weights[full_name] for name, full_name in node.weights.items()}
            use = node.rule(node_weights, values[node.sources[0]])
            uses.append(use)
            values.append(use.value(*(values[source] for source in node.sources)))
        softmax = torch.softmax(values[self._last_place], 1)
        surplus = softmax.scatter_add(1, chunk.y[:, None], softmax.new_full((len(chunk.y), 1), -1.0))
        del values

        estimate = self._backward(surplus, lambda number, g: uses[number].pull(g))[0]
        difference = estimate - chunk.dz
        error = torch.linalg.vector_norm(difference).square()

        directions = [difference.mul_(2)]
        for node, use in zip(self._nodes, uses, strict=True):
            directions.append(use.push(*(directions[source] for source in node.sources)))
        along = softmax * directions[self._last_place]
        along -= softmax * along.sum(1, keepdim=True)
        del directions

        def pull_change(number: int, dg: Tensor) -> Tensor | None:
            return uses[number].pull_change(dg, weights_only=self._nodes[number].weights_only)

        self._backward(along, pull_change)
        changes: Weights = {}
        for node, use in zip(self._nodes, uses, strict=True):
            for name, full in node.weights.items():
                changes[full] = changes[full] + use.changes[name] if full in changes else use.changes[name]
        return error, changes

    def _backward(self, g: Tensor, step: Callable[[int, Tensor], Tensor | None]) -> dict[int, Tensor]:
        """Take `g` at the logits back through all operations; what arrives at z is under 0."""
        gradients = {self._last_place: g}
        for number in reversed(range(len(self._nodes))):
            arriving = gradients.pop(number + 1, None)
            passed_on = None if arriving is None else step(number, arriving)
            if passed_on is not None:
                for source in self._nodes[number].sources:
                    gradients[source] = gradients[source] + passed_on if source in gradients else passed_on
        return gradients


def _trace(module: nn.Module) -> fx.Graph:
    try:
        graph = Tracer().trace(module)
    except Exception as error:  # whatever a module of the user's does with a proxy
        raise UnsupportedError(str(error)) from error
    for node in graph.nodes:
        if node.op != "output" and not node.users:
            raise UnsupportedError(f"{node}, which nothing uses")
    return graph


def _values(node: fx.Node) -> list[fx.Node]:
    return [argument for argument in node.args if isinstance(argument, fx.Node)]


def _names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]
