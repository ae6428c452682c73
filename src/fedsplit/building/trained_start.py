"""Starts a run from the models that another one trained."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from fedsplit.computing.model_state import frozen_parameters
from fedsplit.errors import UserError
from fedsplit.models.rounding.quantized_training import RANGES
from fedsplit.models.splitting.split import SplitModel
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.state.weights import Weights


@dataclass(frozen=True)
class TrainedStart:
    """Trained models of a run, to start from.

    Args:
        run: directory of the run.
        whole: client and server model together; where they were cut does not matter.
        auxiliary: the auxiliary model that all its clients shared; None where there was none.
    """

    run: str
    whole: Weights
    auxiliary: Weights | None

    @classmethod
    def of(cls, run: str | None) -> "TrainedStart | None":
        """Read what the run in a directory left, if one is named.

        Raises:
            UserError: there is no run, it has not ended, or its files are damaged.
        """
        if run is None:
            return None
        directory = RunDirectory.existing(run, "run")
        directory.config()
        shared = (directory.path / "model" / "auxiliary.safetensors").is_file()
        halves = directory.trained_weights()
        return cls(run, halves["client"] | halves["server"], directory.model("auxiliary") if shared else None)

    def load_into(self, halves: SplitModel, auxiliary: nn.Module | None) -> None:
        """Give models these weights; optimizers are not there yet.

        Ranges of activations are taken where both have some, and an auxiliary model where it is the same.

        Raises:
            UserError: client and server model together are another model.
        """
        parts = halves.modules
        wanted = {name: tensor for part in parts for name, tensor in part.state_dict().items()}
        in_files = {name for part in parts for name in frozen_parameters(part)} - self.whole.keys()
        for name in sorted(wanted.keys() | self.whole.keys()):
            if _is_range(name) or name in in_files:
                continue
            found, own = (_form(weights, name) for weights in (self.whole, wanted))
            if found != own:
                raise UserError(
                    "run", self.run, f"trained another model: {name} is {found} there, {own} here"
                )
        for part in parts:
            own_weights = part.state_dict()
            part.load_state_dict({name: self.whole.get(name, own) for name, own in own_weights.items()})
        if auxiliary is not None and self.auxiliary is not None:
            made = auxiliary.state_dict()
            trained = frozen_parameters(auxiliary) | self.auxiliary
            if all(_form(made, name) == _form(trained, name) for name in made.keys() | trained.keys()):
                auxiliary.load_state_dict(trained)


def load_halves(trained: Mapping[str, Weights], halves: Mapping[str, nn.Module], run: object) -> None:
    """Give halves of a model, by name, the weights that a run's own model left, cut where it was.

    What does not learn and is not among them stays as it was built, from files that the user keeps.

    Raises:
        UserError: they are of another model than that run's configuration names.
    """
    for half, weights in trained.items():
        try:
            halves[half].load_state_dict(frozen_parameters(halves[half]) | weights)
        except RuntimeError as error:
            message = f"model/{half}.safetensors is not of the model that config.yaml names"
            raise UserError("run", run, message) from error


def _is_range(name: str) -> bool:
    return name.startswith(f"{RANGES}.")


def _form(weights: Weights, name: str) -> str:
    return f"of shape {tuple(weights[name].shape)}" if name in weights else "missing"
