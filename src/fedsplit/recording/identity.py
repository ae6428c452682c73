"""Identity of a run: the configuration and data that must be the same when it goes on."""

import json
from collections.abc import Mapping

from fedsplit.config.checks import OF_NO_CONSEQUENCE
from fedsplit.config.dotted_keys import below, flat
from fedsplit.config.run_config import RunConfig
from fedsplit.data.fingerprint import Fingerprint
from fedsplit.errors import UserError
from fedsplit.state.state import State

_MOST_TOLD = 5
"""Keys that an error names."""


def identity(config: RunConfig, data: Fingerprint, frozen: str) -> State:
    """Identity of a run as a checkpoint keeps it, in plain values.

    Args:
        config: configuration of the run.
        data: data of the run.
        frozen: digest of the parameters that do not learn.
    """
    state: State = json.loads(json.dumps({"config": config.plain(), "data": data}))
    return state | {"frozen": frozen}


def refuse_changed_model(before: object, now: str, config: RunConfig) -> None:
    """Raise where parameters that do not learn are not those of the run that a checkpoint is of.

    Raises:
        UserError: they are not.
    """
    if before != now:
        message = "holds other parameters that do not learn (requires_grad=False) than the run was begun with"
        raise UserError("model", config.choice("model"), message)


def refuse_changed_config(before: Mapping[str, object], now: RunConfig) -> None:
    """Raise `UserError` where a configuration is not that of a checkpoint's run: names keys that differ."""
    old, new = _settings(before), _settings(now.plain())
    changed = _differing(old, new)
    if changed:
        first, *others = changed
        message = (
            f"was {old.get(first, 'not there')} when the run was begun, and cannot change when it goes on"
        )
        more = [f"{key} (was {old.get(key, 'not there')})" for key in others[:_MOST_TOLD]]
        more += ["..."] if len(others) > _MOST_TOLD else []
        raise UserError(
            first, new.get(first, "missing"), message + (f"; nor can {', '.join(more)}" if more else "")
        )


def refuse_changed_data(before: Fingerprint, now: Fingerprint, config: RunConfig) -> None:
    """Raise `UserError` where data are not those of a checkpoint's run; it says in what they differ."""
    if message := changes(before, now):
        given = config.dataset.arguments
        key, value = (
            ("dataset.root", given["root"]) if "root" in given else ("dataset", config.choice("dataset"))
        )
        raise UserError(key, value, f"holds other data than the run was begun with: {message}")


def changes(before: Fingerprint, now: Fingerprint) -> str:
    """Differences of data in a few words; empty where there are none."""
    old, new = dict(flat(before)), dict(flat(now))
    digests = ("labels", "owners", "pixels", "division")
    return ", ".join(
        f"other {key}" if key.endswith(digests) else f"{key} {new.get(key)}, not {old.get(key)}"
        for key in _differing(old, new)
    )


def _settings(config: Mapping[str, object]) -> dict[str, str]:
    plain = json.loads(json.dumps(dict(config)))
    return {key: value for key, value in flat(plain) if not below(key, OF_NO_CONSEQUENCE)}


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    keys = (key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return sorted(keys, key=lambda key: (key.startswith("choices."), key))
