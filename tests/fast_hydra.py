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
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra.core.object_type import ObjectType
from omegaconf import grammar_parser

_read, _copy_all = ConfigRepository.load_config, CachingConfigRepository.__init__
_choices_to_interpolate = defaults_list._create_interpolation_map
_READ: dict[tuple[object, ...], bytes] = {}
"""Pickled contents of files, by where each is and when it was written."""


def _read_once(repository: ConfigRepository, config_path: str) -> Any:
    source = repository._find_object_source(config_path, ObjectType.CONFIG)
    if source is None or source.scheme() not in ("file", "pkg"):
        return _read(repository, config_path)
    file = Path(source.path, source._normalize_file_name(config_path))
    written = file.stat() if source.scheme() == "file" else None
    key = (source.provider, file, written and (written.st_mtime_ns, written.st_size, written.st_ino))
    if key not in _READ:
        _READ[key] = pickle.dumps(_read(repository, config_path))
    return pickle.loads(_READ[key])  # whoever reads it changes it; copying takes ten times as long


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
        mock.patch.object(defaults_list, "_create_interpolation_map", _choices_where_needed),
        mock.patch.object(omegaconf.base, "parse", parse),
        mock.patch.object(omegaconf._utils, "parse", parse),
    ):
        yield


_KEPT = ExitStack()


def make_hydra_fast() -> None:
    """Make Hydra fast from now on, in this process and its forks."""
    _KEPT.enter_context(fast_hydra())
