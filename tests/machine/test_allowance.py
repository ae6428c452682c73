"""What somebody else decides takes no more memory than this machine allows: it is refused before."""

from functools import partial

import pytest
import torch
from torch import nn

from fedsplit.building.run import run_of_member
from fedsplit.data.dataset import Dataset
from fedsplit.data.images import ImageDataset, Normalisation
from fedsplit.errors import UserError
from fedsplit.machine.allowance import (
    allowing,
    allowing_a_client,
    allowing_a_run_directory,
    claim,
    claim_batch,
    claim_images,
    claim_model,
    machine_memory,
)
from fedsplit.transport.grpc.protocol.plan import OWN
from fedsplit.transport.transport import Member
from tests.conftest import TINY, Configure


def _prepared(dataset: Dataset) -> Dataset:
    assert isinstance(dataset, ImageDataset)
    return dataset.normalise_by(Normalisation(torch.ones(1), torch.zeros(1)))


BESIDE = Member(0, _prepared)


def test_claims_are_summed_and_refused_beyond_the_limit_and_nobody_counts_outside() -> None:
    claim("k", 1, 1e30, "all")
    with allowing(100, "a test allows"):
        claim("k", 1, 60, "one")
        claim("k", 1, 40, "another")
        with pytest.raises(
            UserError, match=r"^k=1: a third and all before would take about .* a test allows 0 MB"
        ):
            claim("k", 1, 1, "a third")
    with allowing(100, "a test allows"):
        claim("k", 1, 100, "anew")
    claim("k", 1, 1e30, "all")


def test_estimates_count_pixels_batches_and_trained_parameters() -> None:
    with allowing(10 * 10 * 3 * 5, ""):
        claim_images(10, 3, 4, None)
        with pytest.raises(UserError, match=r"^dataset\.image_size=7"):
            claim_images(1, 1, 0, 7)
    with allowing(8 * 100 * 9, ""):
        claim_batch("batch_size", 8, 100)
        with pytest.raises(UserError, match=r"^batch_size=1:"):
            claim_batch("batch_size", 1, 1)
    with allowing(16 * 101, ""):
        claim_model("model", "own", lambda: nn.Linear(100, 1))
        with pytest.raises(UserError, match=r"^model=own: a model of 2 parameters"):
            claim_model("model", "own", lambda: nn.Linear(1, 1))


def test_model_larger_than_any_memory_is_counted_and_one_that_needs_values_as_far_as_it_goes() -> None:
    before = torch.random.get_rng_state()
    with allowing(1e12, ""), pytest.raises(UserError, match="model=own"):
        claim_model("model", "own", lambda: nn.Linear(10**8, 10**8))
    with allowing(1e12, ""), pytest.raises(UserError, match="model=own"):
        claim_model("model", "own", lambda: nn.Linear(int(nn.Linear(10**8, 10**8).weight.sum()), 1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_client_allows_half_of_its_machine_unless_it_says_otherwise() -> None:
    for context, limit in (
        (allowing_a_client(None), machine_memory() / 2),
        (allowing_a_client(3), 3e6),
        (allowing_a_run_directory(), machine_memory()),
    ):
        with context:
            claim("k", 1, limit, "all")
            with pytest.raises(UserError):
                claim("k", 1, 1, "more")
    assert "client.memory_mb" in OWN


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["dataset.image_size=20000"], "dataset.image_size"),
        (["dataset.image_size=500", "batch_size=100"], "batch_size"),
        (["model=resnet152"], "model"),
        (["model=vgg11", "dataset.image_size=64"], "model"),
    ],
    ids=str,
)
def test_client_refuses_what_takes_more_than_it_allows(
    configured: Configure, overrides: list[str], key: str
) -> None:
    config = configured(*TINY, "engine=sequential", "algorithm=fed_avg", "transport=grpc", *overrides)
    build = partial(run_of_member, config, BESIDE)
    with allowing_a_client(100), pytest.raises(UserError, match=r"client\.memory_mb allows 100 MB") as caught:
        build()
    assert caught.value.key == key


def test_client_refuses_more_clients_than_can_be_processes(configured: Configure) -> None:
    own = configured(
        *TINY,
        "engine=sequential",
        "algorithm=fed_avg",
        "transport=grpc",
        "distribution=own",
        "num_clients=1000000000",
    )
    with pytest.raises(UserError, match=r"num_clients=1000000000: must be at most 10,000"):
        run_of_member(own, BESIDE)


def test_client_takes_part_in_what_it_allows(configured: Configure) -> None:
    config = configured(*TINY, "engine=sequential", "algorithm=fed_avg", "transport=grpc")
    with allowing_a_client(100):
        assert run_of_member(config, BESIDE).sample_counts
