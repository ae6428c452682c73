"""The configuration of a run that is there already, which may be somebody else's: files run no code.

Taken from a run's directory are names of choices, which this installation composes itself, and plain values.
What else would be called on the way (`_target_` and Hydra's other keys) must be what it composes.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from fedsplit.config.choices import FLAG, file_of, user_directory
from fedsplit.config.compose import choice_name, compose_config, composing, plain
from fedsplit.config.run_config import RunConfig
from fedsplit.config.settings import CODECS, GROUPS, OPTIONAL_GROUPS
from fedsplit.config.values import Plain
from fedsplit.errors import UserError, shorten

_GROUPS = (
    *GROUPS,
    *OPTIONAL_GROUPS,
    "optimizer@auxiliary.optimizer",
    "local_rule@algorithm.local_rule",
    "quant",
    *(f"codec@{path}" for path in CODECS),
)
"""Groups from which a stored configuration is composed again; an experiment's choice is spread over them."""
_CHOICE = re.compile(r"[A-Za-z0-9_-]{1,100}")
_CLASSES = ("model.auxiliary",)
"""Keys beside `_target_` whose values name classes."""
_CHOSEN_ANEW = {"tracker", "cluster"}
"""Groups of which another choice may be given where a run goes on."""
_SHOWN = 80
"""Characters of what a file says, in an error."""


def parse_stored(
    stored: Plain,
    directory: Path,
    *,
    trust: bool,
    error: Callable[[str], UserError],
    own_choices: str | None = None,
) -> RunConfig:
    """The configuration of a run that is there already.

    Args:
        stored: content of the stored file, with `choices`.
        trust: True if classes and functions that its files name beside this installation's may be called.
        error: makes the error of a file that is not as it must be.
        own_choices: place where the run says that its user's own choices were, for errors.

    Raises:
        UserError: a value is not plain or not allowed, or code of its own is named without `trust`.
    """
    choices = stored["choices"]
    if unnamed := [group for group in GROUPS if choices.get(group) is None]:
        raise error(f"its config.yaml is not that of a run: choices must name the {unnamed[0]}")
    for key, value in _not_plain(stored):
        raise error(f"{key[:_SHOWN]}={str(value)[:_SHOWN]} in its config.yaml is no plain value")
    if not trust:
        own = _compose_here(_choose_again(choices, own_choices), user_directory())
        for key, value in _foreign({k: v for k, v in stored.items() if k != "choices"}, own):
            message = (
                "names code that this installation's configuration does not; trust=true beside it runs it"
            )
            raise UserError(key[:_SHOWN], str(value)[:_SHOWN], f"config.yaml of {directory} {message}")
    return RunConfig.parse({**stored, "trust": trust})


def _choose_again(choices: Mapping[str, str | None], own: str | None) -> tuple[str, ...]:
    """Overrides that choose the same of this installation; `own` is where the run says that others were."""
    overrides = []
    for group in _GROUPS:
        choice = choices.get(group)
        if choice is None:
            continue
        if not _CHOICE.fullmatch(choice) or file_of(group.partition("@")[0], choice) is None:
            began = f"; the run was begun with {FLAG}={shorten(repr(own))}, to be given again" if own else ""
            trusted = "trust=true runs the code that config.yaml names, for runs that you trust"
            message = f"this installation has no such choice{began}; {trusted}"
            raise UserError(group.removeprefix("codec@"), choice[:_SHOWN], message)
        overrides.append(f"{group}={choice}")
    return tuple(overrides)


@lru_cache(maxsize=64)
def _compose_here(overrides: tuple[str, ...], _: Path | None) -> Plain:
    with composing():
        return plain(compose_config(overrides))


def _foreign(stored: object, own: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Keys and values in `stored` that say what is called, and how, and are not the same in `own`."""
    if isinstance(stored, list):
        for item in stored:
            yield from _foreign(item, None, path)
    elif isinstance(stored, Mapping):
        targets_first = sorted(stored.items(), key=lambda item: not item[0].startswith("_"))
        for name, value in targets_first:
            key = f"{path}.{name}" if path else name
            has = isinstance(own, Mapping) and name in own
            mine = own[name] if isinstance(own, Mapping) and has else None
            if name.startswith("_") or key in _CLASSES:
                if not has or type(value) is not type(mine) or value != mine:
                    yield key, value
            else:
                yield from _foreign(value, mine, key)


def _not_plain(node: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Keys that are no texts, and values that stand for something else: what they name would be looked up."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            if not isinstance(name, str):
                yield f"{path}.{name}", value
            else:
                yield from _not_plain(value, f"{path}.{name}" if path else name)
    elif isinstance(node, list):
        for item in node:
            yield from _not_plain(item, path)
    elif isinstance(node, str):
        if "${" in node or node == "???":
            yield path, node
    elif node is not None and not isinstance(node, bool | int | float):
        yield path, node


def with_changes(config: RunConfig, changes: Mapping[str, object]) -> RunConfig:
    """The configuration with values given anew, by dotted key; some name another choice of a group.

    Raises:
        UserError: there is no such choice, or a value is not allowed.
    """
    values, choices = config.plain(), dict(config.choices)
    for chosen in _CHOSEN_ANEW & changes.keys():
        choices[chosen] = str(changes[chosen])
        with composing():
            values[chosen] = plain(compose_config([f"{chosen}={choices[chosen]}"]))[chosen]
    for key, value in changes.items():
        if key not in _CHOSEN_ANEW:
            group, _, name = key.partition(".")
            node = values.get(group)
            if isinstance(node, dict):
                node[name] = value
            else:
                values[key] = value
    for chosen in _CHOSEN_ANEW:
        if f"{chosen}._target_" in changes:
            choices[chosen] = choice_name(values, chosen, choices[chosen])
    return RunConfig.parse({**values, "choices": choices})
