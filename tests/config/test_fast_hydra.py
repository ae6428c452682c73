"""Hydra composes the same in tests, where it is made fast, as where it is as its package has it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from omegaconf import DictConfig, OmegaConf

from fedsplit.config.choices import user_choices
from fedsplit.config.compose import compose_config, composing
from fedsplit.errors import UserError
from tests import fast_hydra

OVERRIDES = [
    (),
    ("algorithm=splitfed_v1", "quant=int8", "codec@quant.weights.up=sign", "+model.new=[1,{a: 2}]", "~sweep"),
    ("experiment=paper_cifar10", "client_optimizer=adamw", "hydra.run.dir=/a/${now:%Y}", "optimizer.lr=1e-3"),
]


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[str, ...]], DictConfig]:
    """Composes with Hydra as it is."""

    def plainly(overrides: tuple[str, ...]) -> DictConfig:
        with monkeypatch.context() as patch, composing():
            patch.setattr(ConfigRepository, "load_config", fast_hydra._read)
            patch.setattr(CachingConfigRepository, "__init__", fast_hydra._copy_all)
            patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", fast_hydra._merge)
            patch.setattr(
                fast_hydra.defaults_list, "_create_interpolation_map", fast_hydra._choices_to_interpolate
            )
            patch.setattr("omegaconf.base.parse", fast_hydra.grammar_parser.parse)
            patch.setattr("omegaconf._utils.parse", fast_hydra.grammar_parser.parse)
            return compose_config(overrides)

    return plainly


@pytest.mark.parametrize("overrides", OVERRIDES, ids=" ".join)
def test_fast_hydra_composes_what_it_composes_as_it_is_time_and_again(
    overrides: tuple[str, ...], plainly: Callable[[tuple[str, ...]], DictConfig]
) -> None:
    def shown(config: DictConfig) -> str:
        return OmegaConf.to_yaml(config)

    expected = shown(plainly(overrides))
    for _ in range(2):
        with composing():
            assert shown(compose_config(overrides)) == expected


def test_fast_hydra_reads_a_file_anew_that_was_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "codec" / "mine.yaml"
    file.parent.mkdir()
    for bits in (8, 16):
        file.write_text(f"_target_: fedsplit.quant.codecs.cast.Cast\nbits: {bits}\n")
        with user_choices(tmp_path), composing():
            assert compose_config(["codec@quant.smashed=mine"]).quant.smashed.bits == bits
    with composing(), pytest.raises(UserError, match="no such choice"):
        compose_config(["codec@quant.smashed=mine"])
