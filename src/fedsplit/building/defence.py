"""The defence of a run's clients."""

from torch import nn

from fedsplit.algorithms.algorithm import Algorithm
from fedsplit.building.data import Data
from fedsplit.building.models import Models
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.parties.local_rule import LocalRule
from fedsplit.parties.private_gradients import PrivateGradients
from fedsplit.privacy.defence import Defence


def build_defence(config: RunConfig, algorithm: type[Algorithm], rule: LocalRule, data: Data) -> Defence:
    """The defence that the configuration asks for.

    Raises:
        UserError: clients of this algorithm, with this rule and these data, cannot have it.
    """
    defence = config.defence.build(Defence)
    choice = config.choice("defence")
    if (defence.releases or defence.adds_gradient) and algorithm.client_head == "server":
        message = f"must be none: it changes smashed data, and with {algorithm.__name__} no client sends any"
        raise UserError("defence", choice, message)
    if defence.releases and rule.answers_seeds:
        message = f"must be none: it protects smashed data, and {type(rule).__name__} needs exact ones"
        raise UserError("defence", choice, message)
    if (defence.releases or defence.perturbs_gradients) and config.splitting.tail_cut is not None:
        message = "must be none with model.tail_cut: gradients of clients' tails leave them too, as they are"
        raise UserError("defence", choice, message)
    if (defence.adds_gradient or defence.perturbs_gradients) and not rule.differentiates:
        message = f"must be none: it changes gradients, and {type(rule).__name__} uses none"
        raise UserError("defence", choice, message)
    if defence.adds_gradient and not data.batch(1)[0].is_floating_point():
        raise UserError(
            "defence",
            choice,
            "must be none with texts: it compares smashed data with inputs that are numbers",
        )
    return defence


def with_private_gradients(
    rule: LocalRule,
    defence: Defence,
    *,
    config: RunConfig,
    data: Data,
    models: Models,
    head: nn.Module | None,
) -> LocalRule:
    """The rule that clients follow whose defence takes gradients of single samples; else the rule itself.

    Args:
        rule: without the defence.
        defence: defence of the clients.
        config: configuration of the run.
        data: data of the run.
        models: models of the run.
        head: head that clients have behind their client model.

    Raises:
        UserError: something lets samples depend on each other, or no gradients of single samples be taken.
    """
    if not defence.perturbs_gradients:
        return rule
    choice, objective = config.choice("defence"), data.dataset.objective
    if not objective.term_per_sample:
        raise UserError("defence", choice, "needs a loss with a term for each sample: no language model's")
    for module in (models.halves.client, head):
        for name, each in module.named_modules() if module is not None else ():
            if isinstance(each, nn.modules.batchnorm._BatchNorm):
                message = (
                    f"needs samples that do not depend on each other, and {name} is batch normalisation: "
                )
                raise UserError("defence", choice, f"{message}model.norm=group replaces it")
            if isinstance(each, nn.Dropout) and each.p > 0:
                raise UserError(
                    "defence",
                    choice,
                    f"must be none: it computes gradients twice, and {name} draws anew each time",
                )
    settings = {
        "quant.continue_from_decoded": (config.quant.continue_from_decoded and head is not None, False),
        "compile": (config.computation.compile, False),
        "qat": (config.rounding.qat, False),
        "weight_bits": (config.rounding.weight_bits, None),
        "precision": (config.computation.precision, "fp32"),
    }
    for key, (value, allowed) in settings.items():
        if value != allowed:
            shown = "null" if allowed is None else str(allowed).lower()
            raise UserError(key, value, f"must be {shown} with defence={choice}")
    return PrivateGradients(rule, defence, objective)
