"""Names of what is chosen: a choice of a group, or a class of one's own in its place."""

from collections.abc import Mapping
from functools import reduce
from typing import Any

from fedsplit.config.choices import file_of, target_of
from fedsplit.config.values import Plain


def chosen_names(config: Plain, choices: Mapping[str, str | None]) -> dict[str, str | None]:
    """The choices, each by the name of the class that a `_target_` given beside it puts in its place.

    That is the last part of the dotted path, `MyNet` of `my_package.MyNet`; the whole path where a choice of
    the group has that name.

    Args:
        config: plain values, composed but not resolved: an interpolation is a choice's own as it is written.
        choices: of each group, `group` or `group@place`.
    """
    return {key: chosen_name(config, key, choice) for key, choice in choices.items()}


def chosen_name(config: Plain, key: str, choice: str | None) -> str | None:
    """The name of one choice, at a key `group` or `group@place`; see `chosen_names`."""
    group, _, place = key.partition("@")
    node = reduce(_inside, (place or group).split("."), config)
    target = _inside(node, "_target_")
    if not isinstance(target, str) or (choice is not None and target == target_of(group, choice)):
        return choice
    last = target.rpartition(".")[2]
    return target if file_of(group, last) else last


def _inside(node: object, name: str) -> Any:
    return node.get(name) if isinstance(node, Mapping) else None
