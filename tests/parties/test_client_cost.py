"""Memory of a client: against sizes worked out by hand, and a step of the whole batch."""

import pytest
import torch
from torch import nn

from fedsplit.building.client_cost import build_client_cost
from fedsplit.computing.model_state import ModelState
from fedsplit.computing.saved_tensors import SavedTensors
from fedsplit.data.batches import batch_slices
from fedsplit.parties.client_cost import ClientCost
from fedsplit.parties.local_rule import LocalRule, StepSeeds
from fedsplit.parties.local_step import forward_body
from fedsplit.training.experiment import Experiment
from tests.cases import long_but
from tests.configurations import configuration
from tests.conftest import ALGORITHMS, METHODS, Build
from tests.texts import VOCABULARY, of_texts

C, S, A = 4 * (8 * 9 + 8 + 16 * 8 * 9 + 16), 4 * (256 * 64 + 64 + 64 * 10 + 10), 4 * (256 * 10 + 10)
"""Bytes of client, server and auxiliary model."""
X, MAPS, Z = 4 * 64, 4 * (8 + 16) * 64, 4 * 256
"""Bytes of a sample's image, of the outputs of both convolutions behind ReLU, and at the cut."""
INDICES = 8 * 256
"""Bytes of where a sample's pool found its maxima."""
STEPS = 4
"""Bytes of Adam's count of steps of a parameter."""


def cost(run: Experiment) -> ClientCost:
    return build_client_cost(run.parts, trains_head=run.algorithm.trains_head)


def largest(run: Experiment) -> int:
    pieces = batch_slices(max(run.parts.sample_counts), run.config.training.batch_size)
    return max(piece.stop - piece.start for piece in pieces)


def test_waiting_client_holds_its_images_activations_and_smashed_data(tiny: Build) -> None:
    run = tiny("algorithm=splitfed_v2")
    found = cost(run)
    assert found.waiting == largest(run) * (X + MAPS + INDICES + Z)
    assert found.memory == 4 * C + 4 * STEPS + found.waiting  # weights, gradients and Adam's two slots


def test_client_of_an_auxiliary_loss_holds_nothing_and_has_the_auxiliary_model_beside_its_own(
    tiny: Build,
) -> None:
    plain = cost(tiny("algorithm=splitfed_v2"))
    trained, estimated = cost(tiny("algorithm=cse_fsl")), cost(tiny("algorithm=fsl_sage"))
    assert trained.waiting == estimated.waiting == 0
    assert estimated.memory - plain.memory == A  # its linear head gives gradients without a graph
    assert trained.memory - plain.memory > 4 * A + 2 * STEPS
    assert cost(tiny("algorithm=fsl_sage", "algorithm.warm_start=1")) == trained


def test_frozen_tensor_that_client_and_head_both_hold_counts_once() -> None:
    texts = ("model=tiny_gpt2", "model.sizes={n_layer: 2, n_embd: 16, n_head: 2}", "adapter=lora")
    found = []
    for untie in (False, True):
        config = configuration(
            *texts, "algorithm=cse_fsl", f"model.untie={str(untie).lower()}", "progress=false"
        )
        found.append(cost(Experiment(of_texts(config))))
    assert found[1].memory - found[0].memory == 4 * VOCABULARY * 16


def test_rules_keep_what_they_need_and_nothing_else(tiny: Build) -> None:
    plain, prox = cost(tiny("algorithm=fed_avg")), cost(tiny("algorithm=fed_prox"))
    assert prox.memory - plain.memory == C + S
    one, other = (tiny("algorithm=heron", f"batch_size={size}") for size in (4, 8))
    assert cost(other).memory - cost(one).memory == (largest(other) - largest(one)) * Z  # smashed data


@pytest.mark.parametrize(
    "algorithm", long_but([*ALGORITHMS, "vanilla_sl", "ampere", "heron"], [*ALGORITHMS, *METHODS])
)
def test_only_clients_that_get_cut_gradients_hold_something(tiny: Build, algorithm: str) -> None:
    run = tiny(f"algorithm={algorithm}", *METHODS.get(algorithm, ()))
    record = run.run_round(0)
    assert (record.held > 0) == (run.algorithm.client_head == "none")
    assert record.client_memory > record.held
    assert record.row()["client_memory_mb"] == record.client_memory / 1e6


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=resnet20", "model.cut=layer1"],
        ["model=resnet20", "precision=bf16"],
        pytest.param(["model=vgg11_bn", "dataset.image_size=32"], marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_bytes_of_a_large_batch_are_those_that_its_own_step_saves(tiny: Build, overrides: list[str]) -> None:
    run = tiny("algorithm=splitfed_v2", "dataset.max_train=60", "batch_size=11", *overrides)
    blueprint = run.parts.engine.blueprint
    body = ModelState(blueprint.body)
    x = run.parts.data.dataset.train.inputs_at(torch.arange(11))
    with SavedTensors([*body.parameters.values(), *body.buffers.values()]) as saved:
        z, _descend = forward_body(body, x, rule=LocalRule(), seeds=StepSeeds(0))
    assert cost(run).waiting == saved.peak_with(z)


def test_measuring_moves_no_model_and_draws_nothing(tiny: Build) -> None:
    run = tiny("algorithm=cse_fsl", "model=resnet20", "model.cut=layer1", "auxiliary=linear")
    blueprint = run.parts.engine.blueprint
    assert blueprint.head is not None
    before = [t.clone() for each in (blueprint.body, blueprint.head) for t in each.state_dict().values()]
    drawn = torch.get_rng_state()
    cost(run)
    after = [t for each in (blueprint.body, blueprint.head) for t in each.state_dict().values()]
    assert all(map(torch.equal, before, after))
    assert torch.equal(torch.get_rng_state(), drawn)


def test_saved_tensors_count_storages_once_and_go_with_their_graph() -> None:
    weights = torch.ones(5, 5, requires_grad=True)
    x = torch.ones(3, 5)
    with SavedTensors([weights]) as saved:
        hidden = (x @ weights).tanh()
        both = nn.functional.silu(hidden) + hidden.sin()
    assert saved.live == saved.peak == 4 * 15 * 2  # x; hidden, of three operations
    both.sum().backward()
    del both, hidden
    assert (saved.live, saved.peak) == (0, 4 * 15 * 2)


def test_resnet18_at_batch_256_holds_what_was_published_and_the_images(tiny: Build) -> None:
    """94 MiB without the images, with a cut after `layer2` of 32x32 pixels."""
    images = ["dataset.image_size=32", "dataset.max_train=512", "num_clients=2", "batch_size=256"]
    run = tiny("algorithm=splitfed_v2", "model=resnet18", *images)
    mib = cost(run).waiting / 2**20
    assert mib - 256 * 1 * 32 * 32 * 4 / 2**20 == pytest.approx(94, abs=0.1)
