"""The state of one model at many clients: a row a client in every tensor."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias, cast
from weakref import proxy

import torch
from torch import Tensor, nn
from torch.func import vmap
from typing_extensions import override

from fedsplit.computing.stacked_module import StackedModule
from fedsplit.computing.steppable import RuleTensors
from fedsplit.optim.optimizers import RowOptimizer
from fedsplit.state.state import State
from fedsplit.state.weights import Weights

Rows: TypeAlias = slice | Tensor
"""Rows of some clients: a range of rows, or their numbers in any order."""


def rows_of(numbers: Sequence[int]) -> Rows:
    """Rows by their numbers: as a slice, which copies nothing, where they follow each other."""
    first = numbers[0]
    if all(number == first + offset for offset, number in enumerate(numbers)):
        return slice(first, first + len(numbers))
    return torch.tensor(numbers)


class StackedState:
    """Parameters, buffers and optimizer state of K clients, for passes and steps of any of their rows.

    The counterpart of `ModelState`: what is a tensor there is a stack of K here. Parameters that do not learn
    stay in the module, and are seen as a stack without being one.

    Args:
        module: the computation for one client; its own weights are what every row begins with.
        optimizer: moves the parameters in `descend`; None where they are never moved.
        keeps_anchor: True to keep parameters as they were loaded, as in `ModelState`.
        keeps: names of further tensors like the parameters, as in `ModelState`.
    """

    def __init__(
        self,
        module: nn.Module,
        clients: int,
        optimizer: RowOptimizer | None = None,
        *,
        keeps_anchor: bool = False,
        keeps: Collection[str] = (),
    ) -> None:
        self.stack = StackedModule(module)
        tensors = {name: tensor.detach() for name, tensor in module.state_dict(keep_vars=True).items()}
        parameters = dict(module.named_parameters(remove_duplicate=False))
        self.frozen = {
            name: tensors[name] for name, parameter in parameters.items() if not parameter.requires_grad
        }
        """Parameters that do not learn, in the module's memory."""
        stacks = {
            name: t.repeat(clients, *[1] * t.ndim) for name, t in tensors.items() if name not in self.frozen
        }
        self.trainable = {name: stacks[name] for name in parameters if name not in self.frozen}
        """Parameters that steps move, `(K, ...)`."""
        self.anchor = {name: stack.clone() for name, stack in self.trainable.items()} if keeps_anchor else {}
        self.rule_tensors = {
            key: {name: torch.zeros_like(stack) for name, stack in self.trainable.items()} for key in keeps
        }
        self.buffers = {name: stacks[name] for name in tensors if name not in parameters}
        self.optimizer = optimizer
        names = optimizer.slots if optimizer else ()
        self.slots = {
            name: {slot: torch.zeros_like(stack) for slot in names} for name, stack in self.trainable.items()
        }
        device = next((tensor.device for tensor in tensors.values()), None)  # a tail may hold nothing
        self.steps = torch.zeros(clients, dtype=torch.int64, device=device)
        """Number of steps that each row has taken."""
        self._views: dict[tuple[int, int], _RowView] = {}

    @property
    def clients(self) -> int:
        """Number of clients in the stack."""
        return len(self.steps)

    def rows(self, rows: Rows) -> "_RowView":
        """View of some of the rows, as a model to pass data through and to step."""
        if isinstance(rows, Tensor):
            return _RowCopy(self, rows)
        key = (rows.start, rows.stop)
        if key not in self._views:
            # As a proxy: what holds itself is freed by the garbage collector alone, many rounds later.
            self._views[key] = _RowView(proxy(self), rows)
        return self._views[key]

    def tensors(self) -> Weights:
        """Parameters that learn and buffers, `(K, ...)`: the state itself, not a copy."""
        return {**self.trainable, **self.buffers}

    def load_all(self, weights: Weights) -> None:
        """Take over the same weights in all rows; the optimizer's state stays."""
        for name, stack in (*self.tensors().items(), *self.anchor.items()):
            stack.copy_(weights[name])

    def load_row(self, row: int, weights: Weights) -> None:
        """Take over weights in one row; the optimizer's state stays."""
        for name, stack in (*self.tensors().items(), *self.anchor.items()):
            stack[row].copy_(weights[name])

    def row_state(self, row: int) -> State:
        """State of one client as `ModelState.state` gives it; a copy."""
        slots: State = {}
        for name, stacks in self.slots.items():
            has_stepped = self.optimizer is not None and int(self.steps[row]) > 0
            slots[name] = {slot: stack[row].clone() for slot, stack in stacks.items()} if has_stepped else {}
            if has_stepped and cast(RowOptimizer, self.optimizer).counts:
                slots[name]["step"] = self.steps[row].to(torch.float32)
        beside: State = {}
        if self.rule_tensors:
            tensors_of_row = self.row_rule_tensors(row)
            beside["kept"] = {
                key: {name: t.clone() for name, t in tensors.items()}
                for key, tensors in tensors_of_row.items()
            }
        return {
            "weights": {name: stack[row].clone() for name, stack in self.tensors().items()},
            "optimizer": slots if self.optimizer else {},
            **beside,
        }

    def row_rule_tensors(self, row: int) -> RuleTensors:
        """Rule tensors of one client: the state itself, not a copy."""
        return {
            key: {name: stack[row] for name, stack in stacks.items()}
            for key, stacks in self.rule_tensors.items()
        }

    def load_row_state(self, row: int, state: State) -> None:
        """Take over what `row_state` or `ModelState.state` gave."""
        self.load_row(row, state["weights"])
        for key, tensors in self.row_rule_tensors(row).items():
            for name, tensor in tensors.items():
                tensor.copy_(state["kept"][key][name])
        if self.optimizer is None:
            return
        self.steps[row] = 0
        for name, stacks in self.slots.items():
            slots = state["optimizer"][name]
            for slot, stack in stacks.items():
                if slot in slots:
                    stack[row].copy_(slots[slot])
                else:
                    stack[row].zero_()
            if slots:
                self.steps[row] = int(slots.get("step", 1))


class _RowView:
    """A range of the rows of a state, as `Steppable`; steps move the state itself."""

    def __init__(self, whole: StackedState, rows: Rows) -> None:
        self._whole, self._rows = whole, rows
        self.module = whole.stack.module
        self.trainable = {name: rows.requires_grad_() for name, rows in self._select(whole.trainable).items()}
        count = len(whole.steps[rows])
        frozen = {name: tensor.expand(count, *tensor.shape) for name, tensor in whole.frozen.items()}
        self.parameters = {**self.trainable, **frozen}
        self.anchor = self._select(whole.anchor)
        self.rule_tensors = {key: self._select(stacks) for key, stacks in whole.rule_tensors.items()}
        self.buffers = self._select(whole.buffers)
        self._slots = {name: self._select(slots) for name, slots in whole.slots.items()}

    def _select(self, stacks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # .data: a step of some rows must not look to autograd like a change of the others
        return {name: stack[self._rows].data for name, stack in stacks.items()}

    def frozen_buffers(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self.buffers.items()}

    def forward(
        self,
        x: Tensor,
        *,
        seed: Sequence[int] | None,
        buffers: dict[str, Tensor] | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """Outputs `(k, b, ...)` of inputs `(k, b, ...)`; see `ModelState.forward`."""
        assert at is None, "outputs of many clients are one tensor"
        buffers = self.buffers if buffers is None else buffers
        return self._whole.stack(self.parameters, buffers, x, seed or ())

    def for_each(self, function: Callable[..., Tensor], *inputs: object) -> Tensor:
        return vmap(function)(*inputs)

    @torch.no_grad()
    def descend(self, gradients: Sequence[Tensor], learning_rate_factor: float | Tensor) -> None:
        whole, optimizer = self._whole, self._whole.optimizer
        if optimizer is None:
            raise AssertionError("this model is not trained here")
        whole.steps[self._rows] += 1
        steps, rate = whole.steps[self._rows], optimizer.lr * learning_rate_factor
        for (name, parameter), gradient in zip(self.trainable.items(), gradients, strict=True):
            optimizer.step_rows(parameter, gradient, self._slots[name], steps, rate)
        self._write_back()

    @torch.no_grad()
    def move_buffers(self, buffers: dict[str, Tensor]) -> None:
        for name, buffer in buffers.items():
            self.buffers[name].copy_(buffer)
        self._write_back()

    def _write_back(self) -> None:
        """Views are the state itself: nothing is left to do."""


class _RowCopy(_RowView):
    """Rows that do not follow each other: copies, written back with the step that ends a pass."""

    @torch.no_grad()
    @override
    def _write_back(self) -> None:
        whole = self._whole
        for stacks, rows in (
            (whole.trainable, self.trainable),
            (whole.buffers, self.buffers),
            *((whole.slots[name], slots) for name, slots in self._slots.items()),
            *((whole.rule_tensors[key], tensors) for key, tensors in self.rule_tensors.items()),
        ):
            for name, stack in stacks.items():
                stack[self._rows] = rows[name].detach()
