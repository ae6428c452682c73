"""Runs whose settings are their defaults, but for those that an experiment names."""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import chain

from fedsplit.config.choices import names_of
from fedsplit.config.dotted_keys import below, flat, shown
from fedsplit.reports.runs import WITHOUT_EFFECT, Run, Setting

_OF_THE_MACHINE = ("dataset.root", "device", "engine", "experiment")
"""What follows from the machine, or from other settings: a run's engine is what `auto` stands for in it."""


def at_defaults(runs: Sequence[Run], named: Collection[str]) -> list[Run]:
    """The runs that have defaults at every key that is not `named` and could change a result.

    What a key's default is depends on the choices of groups that are named: an optimizer's learning rate is
    that of the optimizer. Of runs that differ in how clients were computed, those remain that computed them
    at once, as `engine=auto` does where it can.

    Args:
        named: groups and dotted keys; what is below a dotted key is named too.
    """
    found = [run for run in runs if _is_at_defaults(run, named)]
    engines: dict[Setting, set[str | None]] = {}
    for run in found:
        engines.setdefault(run.setting_beside(("engine",)), set()).add(run.choices.get("engine"))
    return [
        run
        for run in found
        if run.choices.get("engine") != "sequential" or len(engines[run.setting_beside(("engine",))]) == 1
    ]


def _is_at_defaults(run: Run, named: Collection[str]) -> bool:
    chosen = {key: choice for key in named if (choice := run.options.get(key, "null")) in _choices(key)}
    default_choices, defaults = _defaults(tuple(sorted(chosen.items())))
    free = (*WITHOUT_EFFECT, *_OF_THE_MACHINE, *(key for key in named if key not in chosen))
    values = ((defaults.get(key, "null"), key, value) for key, value in run.values_by_key.items())
    choices = ((default_choices.get(key, each), key, each) for key, each in run.options.items())
    return all(default == own or below(key, free) for default, key, own in chain(values, choices))


@cache
def _choices(group: str) -> frozenset[str]:
    return frozenset(names_of(group))


@cache
def _defaults(choices: tuple[tuple[str, str], ...]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Choices by place, and values by key, of a command that gives these choices and nothing else."""
    from fedsplit.config.compose import composed, composing, plain  # noqa: PLC0415 # slow to import

    with composing():
        config = composed([f"{group}={choice}" for group, choice in choices])
    names = {group.rpartition("@")[2]: shown(name) for group, name in config.hydra.runtime.choices.items()}
    return names, dict(flat(plain(config)))
