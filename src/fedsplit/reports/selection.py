"""Runs selected by their configuration, and the commands of those that are missing."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import chain, product
from typing import TypeAlias

from fedsplit.config.checks import SETTINGS
from fedsplit.config.choices import canonical, names_of
from fedsplit.config.commands import command
from fedsplit.config.dotted_keys import below, flat, format_value
from fedsplit.config.settings import GROUPS, OPTIONAL_GROUPS
from fedsplit.errors import UserError
from fedsplit.reports.runs import WITHOUT_EFFECT, Run, Setting

Settings: TypeAlias = Mapping[str, tuple[str, ...]]
"""Groups and dotted keys, each with the values that it may have, as on the command line."""

_TOP = tuple(dict.fromkeys((*SETTINGS, *GROUPS, *OPTIONAL_GROUPS, "quant", "client", "experiment")))


def settings_of(key: str, node: object) -> Settings:
    """Settings that `where` or `expects` of an experiment asks for; `key` is its place in the file.

    Raises:
        UserError: it is not a mapping of known keys to values or lists of them.
    """
    if not isinstance(node, Mapping):
        raise UserError(key, node, "must be {group or dotted key: value, or a list of such}")
    found: dict[str, tuple[str, ...]] = {}
    for name, value in node.items():
        if not isinstance(name, str) or name.partition(".")[0] not in _TOP:
            close = get_close_matches(str(name), _TOP, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UserError(f"{key}.{name}", value, f"no such key; {hint}known: {', '.join(_TOP)}")
        values = value if isinstance(value, list) else [value]
        if not values or any(isinstance(each, Mapping | list) for each in values):
            raise UserError(f"{key}.{name}", value, "must be a value or a list of values")
        found[name] = tuple(canonical(name, format_value(each)) for each in values)
    return found


def fits(run: Run, asked: Settings) -> bool:
    """True if a run has one of the values asked for at every key; null where it has no such key."""
    return all(
        any(_same(name, value) for name in run.names_at(key) or ("null",) for value in values)
        for key, values in asked.items()
    )


def unknown_keys(runs: Sequence[Run], asked: Settings) -> list[str]:
    """The keys asked for, and not only as null, that none of the runs has."""
    needed = [key for key, values in asked.items() if "null" not in values]
    return [key for key in needed if runs and not any(run.names_at(key) for run in runs)]


def missing(runs: Sequence[Run], where: Settings, expects: Settings) -> list[str]:
    """Commands, few of them, that make all combinations expected which no run has, each once."""
    keys = tuple(expects)
    absent: list[tuple[tuple[str, ...], ...]] = []  # the values of each of the keys
    one: tuple[tuple[str, ...], ...]
    for values in product(*expects.values()):
        one = tuple((value,) for value in values)
        if not any(fits(run, dict(zip(keys, one, strict=True))) for run in runs):
            absent.append(one)
    for i in reversed(range(len(keys))):  # runs that differ in one key only are one sweep
        alike: dict[tuple[tuple[str, ...], ...], tuple[str, ...]] = {}
        for one in absent:
            others = (*one[:i], *one[i + 1 :])
            alike[others] = (*alike.get(others, ()), *one[i])
        absent = [(*others[:i], values, *others[i:]) for others, values in alike.items()]
    return [sweep(where, dict(zip(keys, one, strict=True))) for one in absent]


def sweep(where: Settings, expects: Settings) -> str:
    """The command that would make all runs asked for.

    Of what may be several things but is not expected, the first is taken; null is the default.
    """
    asked = {key: values[:1] for key, values in where.items() if values[0] != "null"} | dict(expects)
    ordered = sorted(asked.items(), key=lambda item: "." in item[0])  # a group before its keys
    overrides = [f"{key}={','.join(values)}" for key, values in ordered]
    many = any(len(values) > 1 for values in asked.values())
    return command(*(["-m"] if many else []), *overrides)


def _same(one: str, other: str) -> bool:
    """True if values are equal as texts, or as numbers: 1e-3 is 0.001."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


_OF_THE_MACHINE = ("dataset.root", "device", "engine", "experiment")
"""Keys that follow from the machine or from other settings: `engine=auto` is recorded as what it chose."""


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
    from fedsplit.config.compose import compose_config, composing, plain  # noqa: PLC0415 # slow to import

    with composing():
        config = compose_config([f"{group}={choice}" for group, choice in choices])
    names = {
        group.rpartition("@")[2]: format_value(name) for group, name in config.hydra.runtime.choices.items()
    }
    return names, dict(flat(plain(config)))
