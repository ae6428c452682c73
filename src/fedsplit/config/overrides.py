"""Overrides, read and written by Hydra's grammar, and what is said of one that cannot be read."""

import re
import shlex
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import PurePath

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from fedsplit.config.dotted_keys import below
from fedsplit.config.settings import CODECS
from fedsplit.config.traits import task_traits
from fedsplit.config.values import Plain
from fedsplit.errors import UserError

_FORM = "must be KEY=VALUE or GROUP=CHOICE"
_WORD = re.compile(r"(?!(?i:true|false|null|nan|inf)$)[A-Za-z_/][\w./-]*", re.ASCII)
"""Texts that stand for themselves without quotes."""
_PLAIN = re.compile(r"[A-Za-z_]\w*(?:[.@/][A-Za-z_]\w*)*=[\w/][\w./-]*", re.ASCII)
"""Overrides by one value that Hydra's grammar, which is slow, can be spared."""
_EVALUATING = "while evaluating"  # words of the one kind of Hydra's errors that helps whoever typed the value


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides by Hydra's grammar; while composing, `glob(...)` knows what it can match.

    Raises:
        UserError: one cannot be read.
    """
    instance = GlobalHydra.instance()
    loader = instance.config_loader() if instance.is_initialized() else None
    parser = OverridesParser.create(config_loader=loader)
    found = []
    for text in overrides:
        try:
            found.extend(parser.parse_overrides([text]))
        except HydraException as error:
            raise _unreadable(text, error) from error
        if text.startswith("="):  # Hydra reads it as of a group without a name
            raise UserError("override", text, _FORM)
    return found


def check_single(overrides: Sequence[str]) -> None:
    """Raise `UserError` where a single run is given several values for a key, or what cannot be read."""
    for override in parse_overrides([text for text in overrides if not _PLAIN.fullmatch(text)]):
        if override.is_sweep_override():
            text = str(override.input_line)
            key, _, value = text.partition("=")
            message = "must be one value: several values are a sweep, which needs the flag -m"
            if override.is_choice_sweep() and "(" not in value:
                message += f"; one list is {shlex.quote(f'{key}=[{value}]')}, one text {quote_override(text)}"
            raise UserError(key, value, message)


def quote_override(text: str) -> str:
    """Quote an override for a shell, with its value as text: `'key="value"'`."""
    key, _, value = text.partition("=")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return shlex.quote(f'{key}="{escaped}"')


def override(key: str, value: object) -> str:
    """The override that sets a key to a value of Python; `UserError` where no configuration can hold that."""
    return f"{key}={_literal(key, value)}"


def _literal(key: str, value: object) -> str:
    if isinstance(value, Mapping):
        items = (f"{_literal(key, name)}:{_literal(key, each)}" for name, each in value.items())
        return f"{{{','.join(items)}}}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return f"[{','.join(_literal(key, each) for each in value)}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Integral | Real):
        return str(int(value)) if isinstance(value, Integral) else repr(float(value))
    if not isinstance(value, str | PurePath):
        message = "must be None, a truth value, a number, a text, a path, or a list or dict of such"
        raise UserError(key, value, message)
    return str(value) if _WORD.fullmatch(str(value)) else quote(value)


def quote(value: object) -> str:
    """A value as a text in quotes; only backslashes before a quote are escaped, others stay as they are."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), str(value))
    return f"'{escaped}'"


def _unreadable(text: str, error: HydraException) -> UserError:
    key, equals, value = text.partition("=")
    if not equals or not _is_readable(f"{key}=0"):
        return UserError("override", text or "''", _FORM)
    why = next((f" ({line})" for line in str(error).splitlines() if _EVALUATING in line), "")
    return UserError(key, value, f"cannot be read{why}; as text, its value is quoted: {quote_override(text)}")


def _is_readable(text: str) -> bool:
    try:
        OverridesParser.create().parse_overrides([text])
    except HydraException:
        return False
    return True


SPELLINGS = {
    "dataset.distribution": "distribution",
    "dataset.alpha": "distribution.alpha",
    "algorithm.local_rule": "local_rule@algorithm.local_rule",
}
"""Keys that stand for others of Hydra's."""
FREE = ("model.sizes",)
"""Mappings that take keys which are not there yet too: configurations of models have dozens of them."""


def spell_out(argument: str) -> list[str]:
    """Spell out an argument as Hydra takes it.

    Raises:
        UserError: it chooses no codec where one is needed, or several where one key stands for several.
    """
    key, equals, value = argument.partition("=")
    codecs = [path for path in CODECS if path == key or (key == "quant.weights" and path.startswith(key))]
    if codecs and equals:
        if value == "null":
            raise UserError(key, value, "must be a codec; none sends values as they are")
        if len(codecs) > 1 and "," in value:
            raise UserError(key, value, f"a sweep takes one of {', '.join(codecs)}, or presets")
        return [f"codec@{path}={value}" for path in codecs]
    if value.startswith("~") and "," not in value and "'" not in value:
        value = f"'{value}'"  # a path at home, which Hydra's grammar takes in quotes only
    added = "++" if equals and below(key, FREE) else ""
    return [added + SPELLINGS.get(key, key) + equals + value]


def join_list(argument: str) -> str:
    """Make one list of `precision=fp32,int8`, which a sweep would make two jobs of."""
    key, _, value = argument.partition("=")
    sweeps = key == "precision" and "," in value and not value.startswith(("[", "choice("))
    return f"{key}=[{value}]" if sweeps else argument


def check_beside(config: Plain, overrides: Sequence[str]) -> None:
    """Raise `UserError` where a key is given that is the server's to say, or the run's: names what may be."""
    task = task_traits(config)
    if task.beside is None or (task.models_of_run != "refused" and config.get("run") is None):
        return
    whose = "the server's to say" if task.joins else "that of the run"
    for override in parse_overrides(overrides):
        key = override.key_or_group
        if not below(key, task.beside):
            message = f"is {whose}; beside this task may be given {', '.join(task.beside)}"
            raise UserError(key, override.value(), message)
