"""The server's copy of a client model that is the same at all clients."""

from collections.abc import Sequence

from torch import Tensor, nn

from fedsplit.computing.model_state import ModelState
from fedsplit.optim.optimizers import Optimizer
from fedsplit.optim.schedules import Schedule
from fedsplit.parties.local_rule import LocalRule
from fedsplit.state.state import State
from fedsplit.state.weights import Weights


class SharedClient:
    """A client model that the server moves as all clients move theirs, so that no weights need to travel.

    Args:
        module: the client model.
        optimizer: optimizer of the clients.
        schedule: schedule of the learning rate.
        rule: rule that clients descend along in a local step; it answers seeds.
    """

    def __init__(self, module: nn.Module, optimizer: Optimizer, schedule: Schedule, rule: LocalRule) -> None:
        self._module, self._optimizer, self._schedule, self._rule = module, optimizer, schedule, rule
        self._model = ModelState(module, optimizer)

    def move(self, round: int, step: int, seeds: Sequence[int], slopes: Tensor) -> None:
        """Step as clients do; see `Cohort.move`."""
        estimate = self._rule.estimate(self._model, seeds, slopes)
        self._model.descend(estimate, self._schedule.at(round, step))

    def weights(self) -> Weights:
        """Copies of the model's weights."""
        return self._model.weights()

    def forget(self) -> None:
        """Drop the optimizer's state, as clients without state do."""
        weights = self._model.weights()
        self._model = ModelState(self._module, self._optimizer)
        self._model.load(weights)

    def state(self) -> State:
        """State of weights and optimizer."""
        return self._model.state()

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._model.load_state(state)
