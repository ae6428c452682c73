"""The configuration of a run that is there already, which may be somebody else's: files run no code.

Taken from a run's directory are names of choices, which this installation composes itself, and plain values.
What else would be called on the way (`_target_` and Hydra's other keys) must be what it composes.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedsplit.config.checks import CODECS, GROUPS, OPTIONAL_GROUPS, check
from fedsplit.config.choices import FLAG, file_of, own_directory
from fedsplit.config.compose import composed, composing, plain
from fedsplit.errors import UserError, shortened
from fedsplit.recording.config_file import own_choices_of
from fedsplit.recording.run_directory import RunDirectory

_GROUPS = (
    *GROUPS,
    *OPTIONAL_GROUPS,
    "optimizer@auxiliary.optimizer",
    "quant",
    *(f"codec@{path}" for path in CODECS),
)
"""By which a configuration is composed again; the choice of an experiment is spread over them."""
_CHOICE = re.compile(r"[A-Za-z0-9_-]{1,100}")
_CLASSES = ("model.auxiliary",)
"""Keys beside `_target_` whose values name classes."""
_SHOWN = 80
"""Characters of what a file says, in an error."""


def stored_config(directory: RunDirectory, *, trust: bool) -> dict[str, Any]:
    """The configuration of a run, with `choices`; not checked beyond what follows.

    Args:
        trust: whether classes and functions that its files name beside this installation's may be called.

    Raises:
        UserError: the file is damaged, a value is not plain, or code of its own is named without `trust`.
    """
    config = directory.config() | {"trust": trust}
    if unnamed := [group for group in GROUPS if config["choices"].get(group) is None]:
        raise directory.error(f"its config.yaml is not that of a run: choices must name the {unnamed[0]}")
    for key, value in _not_plain(config):
        raise directory.error(f"{key[:_SHOWN]}={str(value)[:_SHOWN]} in its config.yaml is no plain value")
    if not trust:
        own = _composed_here(
            _choose_again(config["choices"], own_choices_of(directory.path)), own_directory()
        )
        for key, value in _foreign({k: v for k, v in config.items() if k != "choices"}, own):
            told = "names code that this installation's configuration does not; trust=true beside it runs it"
            raise UserError(key[:_SHOWN], str(value)[:_SHOWN], f"config.yaml of {directory.path} {told}")
    return config


def checked(config: Mapping[str, Any]) -> None:
    """Check a configuration that has `choices`.

    Raises:
        UserError: see `fedsplit.config.checks.check`.
    """
    check({key: value for key, value in config.items() if key != "choices"})


def _choose_again(choices: Mapping[str, str | None], own: str | None) -> tuple[str, ...]:
    """Overrides that choose the same of this installation.

    Args:
        choices: names, by group.
        own: where the run says that others were, for errors.

    Raises:
        UserError: it has no such choice.
    """
    overrides = []
    for group in _GROUPS:
        choice = choices.get(group)
        if choice is None:
            continue
        if not _CHOICE.fullmatch(choice) or file_of(group.partition("@")[0], choice) is None:
            began = f"; the run was begun with {FLAG}={shortened(repr(own))}" if own else ""
            told = f"this installation has no such choice{began}; trust=true takes what config.yaml says"
            raise UserError(group.removeprefix("codec@"), choice[:_SHOWN], told)
        overrides.append(f"{group}={choice}")
    return tuple(overrides)


@lru_cache(maxsize=64)
def _composed_here(overrides: tuple[str, ...], _: Path | None) -> Mapping[str, Any]:
    with composing():
        return plain(composed(overrides))


def _foreign(stored: object, own: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Keys and values in `stored` that say what is called, and how, and are not the same in `own`."""
    if isinstance(stored, list):
        for item in stored:
            yield from _foreign(item, None, path)
    elif isinstance(stored, Mapping):
        for name, value in stored.items():
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
