"""Configurations as command lines give them, in a tenth of the time that composing each anew takes.

Hydra composes the choices once; values are then set as it sets them. `tests/config/test_checks.py`
compares the two.
"""

import copy
import re
from collections.abc import Sequence
from functools import cache

from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from fedsplit.config.choices import CONFIGS
from fedsplit.config.compose import choices_of, composed, plain
from fedsplit.config.overrides import spelled_out
from fedsplit.config.run_config import RunConfig

_VALUE = re.compile(r"([a-z]\w*(?:\.[a-z]\w*)*)=")
"""What sets a value, if no group has that name: a `_target_` would change the name of a choice."""


@cache
def configuration(*overrides: str) -> RunConfig:
    """The configuration of a command.

    Raises:
        UserError: as the command does.
    """
    spelled = [each for override in overrides for each in spelled_out(override)]
    chosen = tuple(each for each in spelled if not _sets_a_value(each))
    try:
        config, choices = _of_choices(*chosen)
        config = copy.deepcopy(config)
        _set(config, [each for each in spelled if each not in chosen])
    except Exception:  # whatever is wrong is told by Hydra itself
        config, choices = _of_choices(*spelled)
    return RunConfig.parse(plain(config), choices)


def _sets_a_value(override: str) -> bool:
    key = _VALUE.match(override)
    return key is not None and not (CONFIGS / key[1].replace(".", "/")).is_dir()


def _set(config: DictConfig, overrides: Sequence[str]) -> None:
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_sweep_override():
            raise ValueError(override)
        OmegaConf.update(config, override.key_or_group, override.value())


@cache
def _of_choices(*overrides: str) -> tuple[DictConfig, dict[str, str | None]]:
    """What Hydra composes, without its own part, and the choices."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = composed(overrides)
    own = OmegaConf.create({key: node for key, node in config.items_ex(resolve=False) if key != "hydra"})
    OmegaConf.set_struct(own, True)
    return own, choices_of(config)
