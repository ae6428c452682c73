"""Clients that are computed together, and which row is whose."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from fedsplit.computing.stacked_state import StackedState
from fedsplit.errors import UserError
from fedsplit.optim.optimizers import Optimizer, RowOptimizer
from fedsplit.state.state import State

_ModelStacks: TypeAlias = dict[str, StackedState]


def row_optimizer(optimizer: Optimizer) -> RowOptimizer:
    """An optimizer that can step many clients.

    Raises:
        UserError: this optimizer cannot.
    """
    if not isinstance(optimizer, RowOptimizer):
        message = f"must be sequential: {type(optimizer).__name__} cannot step many clients at once"
        raise UserError("engine", "vectorized", message)
    return optimizer


def largest_first(samples: Mapping[int, int]) -> list[int]:
    """Clients in the order of rows: who has a batch at a step, and of which size, is then mostly a range.

    Args:
        samples: number of samples of each client.
    """
    return sorted(samples, key=lambda client: (-samples[client], client))


class Members:
    """States of some clients that are computed together: a row a client in each of `models`.

    Args:
        clients: numbers of the clients, in the order of rows.
        models: stacked models, by the name under which a client's state holds them.
    """

    def __init__(self, clients: Sequence[int], models: _ModelStacks) -> None:
        self.clients, self.models = list(clients), models
        self.row = {client: row for row, client in enumerate(self.clients)}

    def client_state(self, client: int) -> State:
        """State of one client; a copy."""
        row = self.row[client]
        return {name: model.row_state(row) for name, model in self.models.items()}

    def load(self, client: int, state: State) -> None:
        """Take over the state of one client, or as much of it as was kept."""
        row = self.row[client]
        for name, model in self.models.items():
            model_state = state.get(name)
            if model_state and "optimizer" in model_state:
                model.load_row_state(row, model_state)
            elif model_state:
                model.load_row(row, model_state["weights"])
