"""`exp_configs.yaml`: which runs are drawn, and how."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from fedsplit.config.values import describe_allowed, fits
from fedsplit.errors import UserError
from fedsplit.files.paths import in_one_line
from fedsplit.reports.figures.figure_type import FigureType
from fedsplit.reports.figures.style import FORMATS
from fedsplit.reports.figures.types import FIGURE_TYPES
from fedsplit.reports.selection import Settings, settings_of
from fedsplit.reports.tables.table import TableRequest, table_request

SAVES = "saves"
"""Directory in which runs are looked for, unless an experiment says `runs`."""
_OTHERS, _OTHERS_ARE = "others", ("any", "default")
"""The key of `where` that stands for all keys which the experiment does not name, and its values."""
_OWN_KEYS = ("figure", "title", "description", "runs", "where", "expects", "formats", "table")


@dataclass(frozen=True)
class FigureRequest:
    """A figure to be drawn.

    Args:
        runs: paths or globs below which runs are looked for.
        where: values that their configurations must have.
        expects: values of which every combination should be there.
        table: table of the same runs; None: none.
        others_default: True if runs must have defaults at all keys that are not `keys`.
    """

    name: str
    figure: FigureType[Any]
    title: str
    description: str
    runs: tuple[str, ...]
    where: Settings
    expects: Settings
    formats: tuple[str, ...]
    table: TableRequest | None = None
    others_default: bool = False

    @property
    def keys(self) -> frozenset[str]:
        """The groups and dotted keys that it is about."""
        own = {
            value for key in ("x", "by", "size") if isinstance(value := getattr(self.figure, key, None), str)
        }
        return frozenset({*self.where, *self.expects, *own})


def experiments_in(path: Path) -> list[FigureRequest]:
    """The experiments that a YAML file lists; `UserError` where it cannot be read, or one is wrong."""
    try:
        with in_one_line("experiments", path, "cannot be read"):
            content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError("experiments", path, "must be YAML") from error
    if not isinstance(content, dict) or not content:
        raise UserError("experiments", path, "must hold name: {figure: ..., where: {...}, ...}")
    return [_experiment(name, entry) for name, entry in content.items()]


def figure_type(
    name: object, settings: Mapping[str, object], prefix: str, beside: Sequence[str] = ()
) -> FigureType[Any]:
    """A type of figure, with its settings.

    Args:
        settings: keys of the figure type; those left out are as the type has them.
        prefix: prefix of keys, in errors.
        beside: keys known beside those of the type, for errors.

    Raises:
        UserError: there is no such type, or it has no such key, or not with such a value.
    """
    if not isinstance(name, str) or name not in FIGURE_TYPES:
        raise UserError(f"{prefix}figure", name, f"must be one of {', '.join(FIGURE_TYPES)}")
    type_ = FIGURE_TYPES[name]
    known = [each.name for each in fields(type_)]  # type: ignore[arg-type]
    annotations = get_type_hints(type_, include_extras=True)
    for key, value in settings.items():
        if key not in known:
            message = f"no such key of figure {name}; known: {', '.join((*known, *beside)) or 'none'}"
            raise UserError(f"{prefix}{key}", value, message)
        if not fits(annotations[key], value):
            raise UserError(f"{prefix}{key}", value, f"must be {describe_allowed(annotations[key])}")
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    return type_(**plain)


def formats_of(key: str, value: object) -> tuple[str, ...]:
    """The formats asked for, each once; `UserError` where there is none, or one that no figure has."""
    if not isinstance(value, list) or not value or not all(each in FORMATS for each in value):
        raise UserError(key, value, f"must be a list of {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(value))


def _experiment(name: object, entry: object) -> FigureRequest:
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError("experiment", name, "names a file: only letters, digits, '_', '-' and '.'")
    if not isinstance(entry, Mapping) or not ({"runs", "where"} & entry.keys()):
        raise UserError(name, entry, "must have the key where or runs")
    own = {key: entry[key] for key in _OWN_KEYS if key in entry}
    settings = {str(key): value for key, value in entry.items() if key not in own}
    figure = figure_type(own.get("figure", "curve"), settings, f"{name}.", _OWN_KEYS)
    runs = own.get("runs", [SAVES])
    if not runs or not fits(list[str], runs):
        raise UserError(f"{name}.runs", runs, "must be a list of run directories or globs")
    for key in ("title", "description"):
        if not isinstance(own.get(key, ""), str):
            raise UserError(f"{name}.{key}", own[key], "must be a text")
    where, others_default = _where(f"{name}.where", own.get("where", {}))
    return FigureRequest(
        name=name,
        figure=figure,
        title=own.get("title", name),
        description=own.get("description", "").strip(),
        runs=tuple(runs),
        where=where,
        expects=settings_of(f"{name}.expects", own.get("expects", {})),
        formats=formats_of(f"{name}.formats", own.get("formats", ["png"])),
        table=table_request(name, own["table"]) if "table" in own else None,
        others_default=others_default,
    )


def _where(key: str, node: object) -> tuple[Settings, bool]:
    """Settings that runs must have, and true if keys that are not named must have defaults."""
    if not isinstance(node, Mapping) or _OTHERS not in node:
        return settings_of(key, node), False
    if node[_OTHERS] not in _OTHERS_ARE:
        raise UserError(f"{key}.{_OTHERS}", node[_OTHERS], f"must be one of {', '.join(_OTHERS_ARE)}")
    return settings_of(key, {each: node[each] for each in node if each != _OTHERS}), node[
        _OTHERS
    ] == "default"
