"""Functions that YAML files of choices may call in `${...}`."""

import secrets
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fedsplit.config.commands import command
from fedsplit.machine.cores import jobs_at_once


def of_named_model(with_it: str, without: str, *, _root_: DictConfig) -> str:
    """One of two values: the first where the model is one of files, which `model.name` names."""
    return with_it if OmegaConf.select(_root_, "model.name") is not None else without


def in_package(path: str) -> str:
    """The place of a file of an installed package, given as `package/file`; as it is where there is none."""
    package, _, file = path.partition("/")
    found = find_spec(package)
    return str(Path(found.origin).with_name(file)) if found is not None and found.origin else path


def register_resolvers() -> None:
    """Register the functions that YAML files may call."""
    OmegaConf.register_new_resolver("short_id", lambda: secrets.token_hex(2), use_cache=True, replace=True)
    for resolver in (jobs_at_once, command, of_named_model, in_package):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
