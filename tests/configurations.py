"""Configurations as command lines give them, in a tenth of the time that composing each anew takes.

Hydra composes each choice once; choices are put together and values set as it does.
`tests/config/test_checks.py` compares the two.
"""

import json
import os
import pickle
import re
from collections import defaultdict
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

import fedsplit.config
from fedsplit.config.choices import CONFIGS, user_directory
from fedsplit.config.compose import choices_of, compose_config, plain
from fedsplit.config.overrides import spell_out
from fedsplit.config.run_config import RunConfig

_VALUE = re.compile(r"([a-z]\w*(?:\.[a-z]\w*)*)=")
"""Override that sets a value, if no group has that name: a `_target_` would change the name of a choice."""


@cache
def configuration(*overrides: str) -> RunConfig:
    """The configuration of a command.

    Raises:
        UserError: as the command does.
    """
    spelled = [each for override in overrides for each in spell_out(override)]
    chosen = tuple(each for each in spelled if not _sets_a_value(each))
    try:
        pickled, choices = _of_choices(*chosen)
        config = pickle.loads(pickled)  # copying takes four times as long
        for each in spelled:
            if each not in chosen:
                _set(config, _parsed(each))
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except Exception:  # whatever is wrong is told by Hydra itself
        whole, choices = _composed(*spelled)
        return RunConfig.parse(plain(OmegaConf.create(whole)), choices)
    return RunConfig.parse(values, choices)


def _sets_a_value(override: str) -> bool:
    key = _VALUE.match(override)
    return key is not None and not (CONFIGS / key[1].replace(".", "/")).is_dir()


@cache
def _parsed(override: str) -> Override:
    (parsed,) = OverridesParser.create().parse_overrides([override])
    return parsed


def _set(config: DictConfig, override: Override) -> None:
    if override.is_sweep_override():
        raise ValueError(override)
    OmegaConf.update(config, override.key_or_group, override.value())


@cache
def _of_choices(*overrides: str) -> tuple[bytes, dict[str, str | None]]:
    """What Hydra composes, without its own part, pickled, and the choices.

    What is chosen at different keys is composed apart and put together: for each the keys that differ from
    the defaults. Where two of them change the same key, or a group is added, all is composed at once.
    """
    parts: dict[str, list[str]] = defaultdict(list)
    for each in overrides:
        parts[_place(each)].append(each)
    defaults, names = _composed()
    config, choices, taken = dict(defaults), dict(names), set[str]()
    for place, part in parts.items():
        own, own_names = _composed(*part)
        changed = {place, *_changed(*part)}
        if changed & taken or own_names.keys() != names.keys():
            config, choices = _composed(*overrides)
            break
        taken |= changed
        config.update((key, own[key]) for key in changed if key in own)
        choices.update(item for item in own_names.items() if item not in names.items())
    together = OmegaConf.create(config)
    OmegaConf.set_struct(together, True)
    return pickle.dumps(together), dict(choices)


@cache
def _changed(*overrides: str) -> list[str]:
    """Outermost keys that are not as without overrides."""
    own, defaults = _composed(*overrides)[0], _composed()[0]
    return [key for key in own if repr(own[key]) != repr(defaults.get(key))]


def _place(override: str) -> str:
    """The outermost key that an override is about."""
    group, _, place = override.lstrip("+~").partition("=")[0].partition("@")
    return (place or group).partition(".")[0].partition("/")[0]


@cache
def _composed(*overrides: str) -> tuple[dict[str, object], dict[str, str | None]]:
    """What Hydra composes of all at once, unresolved; looked up where another process has composed it.

    Hydra takes longer than a tiny run, and processes of tests need the same choices.
    """
    if user_directory() is not None:
        return _composed_by_hydra(*overrides)
    file = _compositions() / f"{sha256(json.dumps(overrides).encode()).hexdigest()}.json"
    try:
        config, choices = json.loads(file.read_text("utf-8"))
    except OSError:
        config, choices = _composed_by_hydra(*overrides)
        if json.loads(text := json.dumps([config, choices])) == [config, choices]:
            partial = file.with_suffix(f".{os.getpid()}")
            partial.write_text(text, "utf-8")
            partial.replace(file)
    return config, choices


@cache
def _compositions() -> Path:
    """A folder for what Hydra composes of the files as they are now."""
    digest = sha256(version("hydra-core").encode() + version("omegaconf").encode())
    for path in sorted(CONFIGS.rglob("*.yaml")) + sorted(Path(fedsplit.config.__path__[0]).glob("*.py")):
        digest.update(path.read_bytes() + str(path.relative_to(path.parents[2])).encode())
    folder = CONFIGS.parent / ".pytest_cache" / "compositions" / digest.hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _composed_by_hydra(*overrides: str) -> tuple[dict[str, object], dict[str, str | None]]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose_config(overrides)
    own = {key: node for key, node in config.items_ex(resolve=False) if key != "hydra"}
    return OmegaConf.to_container(OmegaConf.create(own), resolve=False), choices_of(config)  # type: ignore[return-value]
