"""Hydra in half the time: tests compose configurations of the same files thousands of times.

What it composes stays the same: `tests/config/test_fast_hydra.py` compares. Processes that tests start
afresh, as users start them, have Hydra as it is.
"""

import copy
import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import omegaconf._utils
import omegaconf.base
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, grammar_parser

_read, _copy_all = ConfigRepository.load_config, CachingConfigRepository.__init__
_merge = ConfigLoaderImpl._compose_config_from_defaults_list
_choices_to_interpolate = defaults_list._create_interpolation_map
_READ: dict[tuple[object, ...], bytes] = {}
"""Pickled contents of files, by where each is and when it was written."""


_MERGED: dict[tuple[object, ...], bytes] = {}
"""Pickled configurations of files put together, by which files at which places, and when each was written."""


def _version(repository: IConfigRepository, config_path: str) -> tuple[object, ...] | None:
    """Where the file of a configuration is and when it was written; None of what is in no file."""
    if isinstance(repository, CachingConfigRepository):
        repository = repository.delegate
    source = repository._find_object_source(config_path, ObjectType.CONFIG)  # type: ignore[attr-defined]
    if source is None or source.scheme() not in ("file", "pkg"):
        return None
    file = Path(source.path, source._normalize_file_name(config_path))
    written = file.stat() if source.scheme() == "file" else None
    return (source.provider, file, written and (written.st_mtime_ns, written.st_size, written.st_ino))


def _read_once(repository: ConfigRepository, config_path: str) -> Any:
    key = _version(repository, config_path)
    if key is None:
        return _read(repository, config_path)
    if key not in _READ:
        _READ[key] = pickle.dumps(_read(repository, config_path))
    return pickle.loads(_READ[key])  # whoever reads it changes it; copying takes ten times as long


def _merge_once(
    loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: CachingConfigRepository
) -> DictConfig:
    key = tuple((each.config_path, each.package, _version(repo, str(each.config_path))) for each in defaults)
    if key not in _MERGED:
        _MERGED[key] = pickle.dumps(_merge(loader, defaults, repo))
    merged: DictConfig = pickle.loads(_MERGED[key])
    return merged


def _choices_where_needed(overrides: Any, defaults: Any, self_added: bool) -> Any:
    needed = any(default.is_interpolation() for default in defaults)
    return _choices_to_interpolate(overrides, defaults, self_added) if needed else None


def _copy_places_alone(repository: CachingConfigRepository, delegate: IConfigRepository) -> None:
    repository.delegate = copy.copy(delegate)  # other places take the place of these, which stay as they are
    repository.cache = {}


@contextmanager
def fast_hydra() -> Iterator[None]:
    """While Hydra reads and parses once what it reads and parses time and again."""
    parse = cache(grammar_parser.parse)
    with (
        mock.patch.object(ConfigRepository, "load_config", _read_once),
        mock.patch.object(CachingConfigRepository, "__init__", _copy_places_alone),
        mock.patch.object(ConfigLoaderImpl, "_compose_config_from_defaults_list", _merge_once),
        mock.patch.object(defaults_list, "_create_interpolation_map", _choices_where_needed),
        mock.patch.object(omegaconf.base, "parse", parse),
        mock.patch.object(omegaconf._utils, "parse", parse),
    ):
        yield


_KEPT = ExitStack()


def make_hydra_fast() -> None:
    """Make Hydra fast from now on, in this process and its forks."""
    _KEPT.enter_context(fast_hydra())
