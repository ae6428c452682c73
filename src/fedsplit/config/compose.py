"""Composes configurations from the groups of `hydra_config`; says in one line what is wrong with them."""

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from typing_extensions import override

from fedsplit.config.choices import CONFIGS, FLAG, file_of, names_of, target_of, user_directory
from fedsplit.config.overrides import check_single
from fedsplit.config.resolvers import register_resolvers
from fedsplit.config.run_config import RunConfig
from fedsplit.config.settings import CODECS
from fedsplit.config.signature import signature
from fedsplit.config.values import Plain
from fedsplit.errors import UserError, first_line
from fedsplit.files.paths import user_path

register_resolvers()


class _OwnChoices(SearchPathPlugin):
    """Tells Hydra where choices of the user's own are, whatever it is asked to do."""

    @override
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if (own := user_directory()) is not None:
            search_path.append("own", f"file://{own}")


Plugins.instance().register(_OwnChoices)


@contextmanager
def composing() -> Iterator[None]:
    """Hydra's compose API, over this project's configurations; also within a job of a sweep."""
    instance = GlobalHydra.instance()
    before, instance.hydra = instance.hydra, None
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            yield
    finally:
        instance.hydra = before


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration, with Hydra's own under `hydra`; choices have their `choice_names`.

    Raises:
        UserError: an override is wrong.
    """
    check_single(overrides)
    try:
        config = compose("config", list(overrides), return_hydra_config=True)
        config.hydra.runtime.choices = names_of_choices(config, config.hydra.runtime.choices)
        return config
    except MissingConfigException as error:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if group in ("codec", "local_rule"):  # which are chosen by their places
            asked = (text.partition("=")[0] for text in overrides if text.endswith(f"={choice}"))
            group = next(asked, group).removeprefix(f"{group}@")
        raise _unknown_choice(group, choice, error.options or []) from error
    except ConfigCompositionException as error:
        found = re.search(r"Could not override '([^']+)'", str(error))
        if found is None:
            raise _wrong(overrides, error) from error
        raise _unknown_key(found[1].lstrip("+"), overrides) from error
    except (HydraException, ValueError) as error:  # ValueError: a group set to null
        raise _wrong(overrides, error) from error


def _wrong(overrides: Sequence[str], error: Exception) -> UserError:
    """An error that names the override at fault: the last one that, composed alone, fails in the same way."""
    at_fault = [text for text in overrides if _complaint([text]) == first_line(error)]
    if not at_fault:
        return UserError("overrides", " ".join(map(shlex.quote, overrides)), first_line(error))
    key, _, value = at_fault[-1].partition("=")
    group = key.lstrip("+~").partition("@")[0]
    options = GlobalHydra.instance().config_loader().get_group_options(group)
    if key.startswith("+") and options:
        return UserError(key, value, f"is chosen already; another choice is {group}={value}, without +")
    if options:
        return _unknown_choice(key, value, options)
    return UserError(key, value, first_line(error))


def _unknown_choice(group: str, choice: str, options: Sequence[str]) -> UserError:
    meant = _did_you_mean(choice, options)
    own = "" if meant or user_directory() else f"; a choice of your own is found with {FLAG}=DIRECTORY"
    return UserError(group, choice, f"no such choice; {meant}allowed: {', '.join(options)}{own}")


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    spelled = re.sub(r"[\s-]+", "_", name.lower())
    longer = sorted((each for each in known if spelled and each.startswith(spelled)), key=len)
    close = longer[:1] or get_close_matches(spelled, known, 1)
    return f"did you mean {close[0]}? " if close else ""


def _complaint(overrides: list[str]) -> str | None:
    try:
        compose("config", overrides, return_hydra_config=True)
    except (HydraException, ValueError) as error:
        return first_line(error)
    return None


def names_of_choices(config: DictConfig, choices: Mapping[str, str | None]) -> dict[str, str | None]:
    """The `choice_names` of a composed configuration."""
    own = ((key, node) for key, node in config.items_ex(resolve=False) if key != "hydra")
    unresolved = {str(key): OmegaConf.to_container(node) for key, node in own if OmegaConf.is_config(node)}
    return choice_names(unresolved, choices)


def _unknown_key(key: str, overrides: Sequence[str]) -> UserError:
    value = next(
        (text.partition("=")[2] for text in overrides if text.lstrip("+~").startswith(f"{key}=")), ""
    )
    others = [text for text in overrides if not text.lstrip("+~").startswith(f"{key}=")]
    parent, _, name = key.rpartition(".")
    config = compose_config(others)
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig):
        return UserError(key, value, f"there is no such key: {parent} is {node}")
    known = [str(known) for known in node if not str(known).startswith("_") and known != "hydra"]
    if parent in CODECS:
        parent_choice = config.hydra.runtime.choices[f"codec@{parent}"]
        return UserError(key, value, f"no such key of codec {parent_choice}; known: {', '.join(known)}")
    hint = _did_you_mean(name, known)
    if having := [choice for choice in names_of(parent) if name in _arguments(parent, choice)]:
        chosen = config.hydra.runtime.choices.get(parent)
        message = f"no such key of {parent}={chosen}, but of {', '.join(having)}"
        return UserError(key, value, f"{message}; known: {', '.join(known) or 'none'}")
    if not parent and not hint:
        groups = [place for place in known if isinstance(node[place], DictConfig) and name in node[place]]
        hint = f"did you mean {' or '.join(f'{place}.{name}' for place in groups)}? " if groups else ""
    return UserError(key, value, f"no such key; {hint}known: {', '.join(known) or 'none'}")


def _arguments(group: str, choice: str) -> Collection[str]:
    """Names of the arguments of what a choice names; none where it is no class of this package."""
    target = target_of(group, choice)
    known = signature(target) if target else None
    return known.annotations if known else ()


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed configuration, resolved, as plain values, without Hydra's own part."""
    try:
        return {str(key): _resolve(config[key]) for key in config if key != "hydra"}
    except OmegaConfBaseException as error:
        raise UserError(str(error.full_key or "config"), None, first_line(error)) from error


def _resolve(value: object) -> Any:
    if isinstance(value, Container):
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    return value


def choices_of(config: DictConfig) -> dict[str, str | None]:
    """Names of what was chosen of each group, Hydra's own left out."""
    choices: dict[str, str | None] = config.hydra.runtime.choices
    return {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}


def run_config(config: DictConfig) -> RunConfig:
    """The configuration of a run that was composed; `UserError` where a value is not allowed."""
    return RunConfig.parse(plain(config), choices_of(config))


def check_hydra(config: DictConfig) -> None:
    """Raise `UserError` where Hydra's own part asks for what is not done here."""
    if config.hydra.job.chdir:
        message = "a run stays in the directory of its command; hydra.run.dir says where its files go"
        raise UserError("hydra.job.chdir", True, message)


def hydra_path(config: DictConfig, key: str) -> Path:
    """A directory that Hydra's part of the configuration names; `UserError` where its name cannot be made."""
    try:
        path = OmegaConf.select(config, key, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(key, "?", first_line(error)) from error
    if not path:
        raise UserError(key, repr(path), "must name a directory")
    return user_path(path, key)


def choice_names(config: Plain, choices: Mapping[str, str | None]) -> dict[str, str | None]:
    """The choices, each by the name of the class that a `_target_` given beside it puts in its place.

    That is the last part of the dotted path, `MyNet` of `my_package.MyNet`; the whole path where a choice of
    the group has that name.

    Args:
        config: plain values, composed but not resolved: an interpolation is a choice's own as it is written.
        choices: choices of each group, `group` or `group@place`.
    """
    return {key: choice_name(config, key, choice) for key, choice in choices.items()}


def choice_name(config: Plain, key: str, choice: str | None) -> str | None:
    """The name of one choice, at a key `group` or `group@place`; see `choice_names`."""
    group, _, place = key.partition("@")
    node = reduce(_inside, (place or group).split("."), config)
    target = _inside(node, "_target_")
    if not isinstance(target, str) or (choice is not None and target == target_of(group, choice)):
        return choice
    last = target.rpartition(".")[2]
    return target if file_of(group, last) else last


def _inside(node: object, name: str) -> Any:
    return node.get(name) if isinstance(node, Mapping) else None
