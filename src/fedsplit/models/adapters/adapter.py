"""Adapters: small parameters beside a model's own, which alone learn."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import nn
from typing_extensions import override

from fedsplit.state.weights import Weights


class Adapter(ABC):
    """Adds parameters that learn to a model, and freezes others; names of the model's own parts stay."""

    @abstractmethod
    def inject(self, model: nn.Module) -> None:
        """Add the parameters in place; what is drawn is drawn from torch's global generator.

        Raises:
            UserError: the model has no place for them.
        """

    @abstractmethod
    def files(self, model: nn.Module, weights: Weights) -> Mapping[str, bytes]:
        """Files by name that hold what was learned in a form that other software reads.

        Args:
            model: model that parameters were added to, or a half of it.
            weights: weights of the whole model, by name.
        """


class NoAdapter(Adapter):
    """Leaves a model as it is: whatever learns in it learns."""

    @override
    def inject(self, model: nn.Module) -> None:
        pass

    @override
    def files(self, model: nn.Module, weights: Weights) -> Mapping[str, bytes]:
        return {}
