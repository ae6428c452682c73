"""Names of what is chosen: a choice of a group, or a class of one's own in its place."""

from collections.abc import Mapping
from functools import cache, reduce
from pathlib import Path
from typing import Any

import yaml

from fedsplit.files.shipped import shipped

CONFIGS = shipped("hydra_config")


def chosen_names(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> dict[str, str | None]:
    """The choices, each by the name of the class that a `_target_` given beside it puts in its place.

    That is the last part of the dotted path, `MyNet` of `my_package.MyNet`; the whole path where a choice of
    the group has that name.

    Args:
        config: plain values, composed but not resolved: an interpolation is a choice's own as it is written.
        choices: of each group, `group` or `group@place`.
    """
    return {key: chosen_name(config, key, choice) for key, choice in choices.items()}


def chosen_name(config: Mapping[str, Any], key: str, choice: str | None) -> str | None:
    """The name of one choice, at a key `group` or `group@place`; see `chosen_names`."""
    group, _, place = key.partition("@")
    node = reduce(_inside, (place or group).split("."), config)
    target = _inside(node, "_target_")
    if not isinstance(target, str) or (choice is not None and target == _own_target(group, choice)):
        return choice
    last = target.rpartition(".")[2]
    return target if _file(group, last).is_file() else last


def _inside(node: object, name: str) -> Any:
    return node.get(name) if isinstance(node, Mapping) else None


def _file(group: str, choice: str) -> Path:
    return CONFIGS / group / f"{choice}.yaml"


@cache
def _own_target(group: str, choice: str) -> str | None:
    """The `_target_` that the file of a choice gives, or one of the files that it is made of."""
    if not _file(group, choice).is_file():
        return None
    content = yaml.safe_load(_file(group, choice).read_text("utf-8")) or {}
    for node in (content, content.get(group)):  # under its own name where the file sets other keys too
        if isinstance(node, dict) and "_target_" in node:
            return str(node["_target_"])
    for each in content.get("defaults", ()):
        if isinstance(each, dict):  # as /optimizer@_here_: adam
            found = [_own_target(key.strip("/").partition("@")[0], name) for key, name in each.items()]
        else:
            found = [_own_target(group, each)] if each != "_self_" else []
        if found and found[0] is not None:
            return found[0]
    return None
