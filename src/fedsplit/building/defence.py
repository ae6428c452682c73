"""The defence of a run's clients."""

from fedsplit.algorithms.algorithm import Algorithm
from fedsplit.building.data import Data
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.parties.local_rule import LocalRule
from fedsplit.privacy.defence import Defence


def build_defence(config: RunConfig, algorithm: type[Algorithm], rule: LocalRule, data: Data) -> Defence:
    """The defence that the configuration asks for.

    Raises:
        UserError: clients of this algorithm, with this rule and these data, cannot have it.
    """
    defence = config.defence.build(Defence)
    choice = config.choice("defence")
    if (defence.releases or defence.adds_gradient) and algorithm.client_head == "server":
        told = f"changes smashed data, and with {algorithm.__name__} no client sends any"
        raise UserError("defence", choice, told)
    if defence.releases and config.splitting.tail_cut is not None:
        told = "must be none with model.tail_cut: gradients of clients' tails leave them too, as they are"
        raise UserError("defence", choice, told)
    if defence.adds_gradient and not rule.differentiates:
        told = f"adds to gradients of smashed data, and {type(rule).__name__} takes none"
        raise UserError("defence", choice, told)
    if defence.adds_gradient and not data.batch(1)[0].is_floating_point():
        raise UserError("defence", choice, "compares smashed data with inputs that are numbers, not tokens")
    return defence
