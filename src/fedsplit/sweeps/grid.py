"""The jobs that a sweep stands for: every combination of what is given."""

import itertools
from collections.abc import Iterator, Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Glob, Override

from fedsplit.config.compose import compose_config
from fedsplit.config.overrides import parse_overrides, spell_out
from fedsplit.errors import UserError


def jobs(overrides: Sequence[str]) -> Iterator[list[str]]:
    """The overrides of each job; the values given last change fastest.

    `hydra.sweeper.params` of an experiment are values to combine like those given here, which come first: a
    key given here is not looked up there. To be called while composing (`fedsplit.config.compose.composing`).

    Raises:
        UserError: an override cannot be read, or is no list of values.
    """
    given = parse_overrides(overrides)
    keys = {override.get_key_element() for override in given}
    params: dict[tuple[str, ...], list[Override]] = {}
    for job in itertools.product(*map(_choices, given)):
        of_experiment = tuple(
            each for each in job if each.startswith(("experiment=", "hydra.sweeper.params"))
        )
        if of_experiment not in params:
            params[of_experiment] = _params(of_experiment)
        others = [each for each in params[of_experiment] if each.get_key_element() not in keys]
        for rest in itertools.product(*map(_choices, others)):
            yield [*job, *rest]


def _choices(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep():
        message = "a sweep takes a list of values, choice(...), range(...) or glob(...)"
        raise UserError(override.key_or_group, str(override.input_line).partition("=")[2], message)
    key = override.get_key_element()
    found = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if not found:
        raise UserError(key, str(override.input_line).partition("=")[2], _nothing(override))
    return found


def _nothing(override: Override) -> str:
    """Message about an override that stands for no value at all."""
    if not isinstance(override.value(), Glob):
        return "stands for no value"
    options = GlobalHydra.instance().config_loader().get_group_options(override.key_or_group)
    return f"matches none of {', '.join(options)}" if options else "glob(...) is for choices of a group"


def _params(overrides: Sequence[str]) -> list[Override]:
    params = compose_config(overrides).hydra.sweeper.get("params") or {}
    return parse_overrides([each for key, value in params.items() for each in spell_out(f"{key}={value}")])
