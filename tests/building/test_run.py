from collections.abc import Iterator
from dataclasses import fields

import pytest
import torch

from fedsplit.building.parts import ClientParts
from fedsplit.building.process import prepare_process
from fedsplit.building.run import build_clients, build_run
from fedsplit.parties.sequential import Sequential
from fedsplit.parties.vectorized import Vectorized
from tests.conftest import TINY, Configure


@pytest.fixture
def threads() -> Iterator[int]:
    """Threads of this process, which a test may change."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_built_run_says_in_its_configuration_what_was_decided_and_leaves_the_one_it_was_given(
    configured: Configure,
) -> None:
    config = configured(*TINY, "engine=auto", "device=auto")
    before = config.plain()
    stacked, alone = build_run(config), build_run(config.with_changes({"qat": True}))
    assert config.plain() == before
    for parts, engine, name in ((stacked, Vectorized, "vectorized"), (alone, Sequential, "sequential")):
        assert isinstance(parts.engine, engine)
        assert parts.config.engine.import_target() is engine
        assert parts.config.choice("engine") == name
        assert parts.config.computation.device == str(parts.device) != "auto"
    again = build_run(stacked.config)
    assert again.config == stacked.config


def test_clients_of_a_run_are_built_alike_with_and_without_what_serves_them(configured: Configure) -> None:
    config = configured(*TINY, "algorithm=fsl_sage", "quant=int8")
    clients, run = build_clients(config), build_run(config)
    assert {each.name for each in fields(ClientParts)} < {each.name for each in fields(run)}
    assert clients.config == run.config
    for ours, theirs in (
        (clients.models.halves.client, run.models.halves.client),
        (clients.models.auxiliary, run.models.auxiliary),
    ):
        assert ours is not None
        assert theirs is not None
        state = theirs.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())


def test_settings_of_the_process_are_those_of_the_configuration_once_it_is_prepared(
    configured: Configure, threads: int
) -> None:
    config = configured(*TINY, f"threads={threads + 1}")
    build_run(config)
    assert torch.get_num_threads() == threads
    prepare_process(config)
    assert torch.get_num_threads() == threads + 1
    assert torch.backends.cudnn.deterministic
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
