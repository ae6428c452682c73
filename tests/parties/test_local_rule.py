"""What clients descend along in a local step: identities, formulas, and what is kept meanwhile."""

from collections.abc import Sequence
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.algorithms.heron import ZerothOrder
from fedsplit.computing.model_state import ModelState
from fedsplit.errors import UserError
from fedsplit.objectives.losses import Losses
from fedsplit.parties.local_rule import LocalBatch, LocalGradients, LocalRule, StepSeeds
from tests.algorithms.test_methods import NORMED
from tests.conftest import Build
from tests.oracles.plain_loops import PlainLoop, sgd

MU = 0.5


class Squares(Losses):
    """Mean squared error: quadratic in the weights of a linear model."""

    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).square().mean()

    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).square().sum()

    def counts(self, y: Tensor) -> Sequence[int]:
        return [y.numel()]


def test_fed_prox_without_its_term_is_fed_avg_bit_for_bit(tiny: Build) -> None:
    runs = [tiny("algorithm=fed_avg"), tiny("algorithm=fed_prox", "algorithm.local_rule.mu=0")]
    for t in range(2):
        ours, theirs = (run.run_round(t) for run in runs)
        assert ours.train_loss == theirs.train_loss
    ours, theirs = (run.algorithm.full_weights() for run in runs)
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])] == []


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize("algorithm", ["fed_prox", "splitfed_v1"])
def test_prox_adds_the_gradient_of_its_term_to_what_the_client_steps(
    tiny: Build, algorithm: str, engine: str
) -> None:
    """Under split algorithms these are client models alone, under FedProx both halves."""
    settings = ["num_clients=1", "dataset.max_train=50", "optimizer=sgd", f"engine={engine}"]
    rule = ["algorithm.local_rule=prox", f"algorithm.local_rule.mu={MU}"]
    run = tiny(f"algorithm={algorithm}", *settings, *rule)
    reference = PlainLoop(run)
    stepper = sgd(reference.client, reference.server)
    held = [reference.client, reference.server] if algorithm == "fed_prox" else [reference.client]
    for t in range(2):
        run.run_round(t)
        first = [p.detach().clone() for module in held for p in module.parameters()]
        for _, x, y in reference.batches(t, 0):
            stepper.zero_grad()
            own = [p for module in held for p in module.parameters()]
            term = sum((p - p0).square().sum() for p, p0 in zip(own, first, strict=True))
            (F.cross_entropy(reference.server(reference.client(x)), y) + MU / 2 * term).backward()
            stepper.step()
    for name, tensor in run.algorithm.full_weights().items():
        torch.testing.assert_close(tensor, reference.full_weights()[name], rtol=0, atol=1e-10, msg=name)


def gradients(rule: LocalRule) -> tuple[LocalGradients, Tensor]:
    """What a rule makes of a linear model on a fixed batch, and the gradient of its loss in closed form."""
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(5, width, generator=draw) for width in (3, 2))
    layer = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, 3, generator=draw))
    body, head = ModelState(layer), ModelState(nn.Identity())
    found = rule.gradients(LocalBatch(body, head, Squares(), x, y, StepSeeds(rule=1)))
    assert torch.equal(body.trainable["weight"], layer.weight)
    return found, 2 * (x @ layer.weight.detach().T - y).T @ x / y.numel()


def test_mean_zeroth_order_step_over_many_probes_is_the_gradient_of_the_smoothed_loss() -> None:
    """Of a quadratic that is the gradient itself; the error of P probes is about sqrt((d + 1) / P) of it."""
    (rule, probes), most = (ZerothOrder, 1000), 3 * (7 / 1000) ** 0.5
    found, exact = gradients(rule(mu=0.1, probes=probes))
    assert float((found.body[0] - exact).norm() / exact.norm()) < most
    plain, _ = gradients(LocalRule())
    torch.testing.assert_close(plain.body[0], exact)
    assert torch.equal(found.loss, plain.loss)


@pytest.mark.parametrize(("rule", "keeps"), [(ZerothOrder(mu=0.1, probes=2), False), (LocalRule(), True)])
def test_zeroth_order_step_keeps_nothing_for_a_backward_pass(*, rule: LocalRule, keeps: bool) -> None:
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        gradients(rule)
    assert bool(kept) == keeps


def test_every_client_round_and_step_has_a_direction_of_its_own(tiny: Build) -> None:
    blueprint = tiny("algorithm=heron").parts.engine.blueprint
    seeds = {blueprint.rule_seed(client, t, step) for client, t, step in product(range(3), repeat=3)}
    assert len(seeds) == 27


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_running_statistics_move_by_the_pass_at_the_clients_own_weights_alone(
    tiny: Build, engine: str
) -> None:
    settings = [*NORMED, "dataset.max_train=24", f"engine={engine}"]  # a batch a client
    runs = [
        tiny("algorithm=heron", "algorithm.local_rule.mu=1", *settings),
        tiny("algorithm=cse_fsl", *settings),
    ]
    for run in runs:
        run.run_round(0)
    ours, theirs = (run.algorithm.client_weights for run in runs)
    statistics = {name for name in ours if name.endswith(("running_mean", "running_var", "batches_tracked"))}
    assert statistics
    for name in statistics:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-6, msg=name)
    assert not torch.equal(ours["conv1.weight"], theirs["conv1.weight"])


@pytest.mark.parametrize(
    ("algorithm", "rule", "needed"),
    [("fed_prox", "plain", "prox"), ("fed_prox", "zeroth_order", "prox"), ("heron", "prox", "zeroth_order")],
)
def test_algorithm_that_is_made_of_a_rule_takes_no_other(
    tiny: Build, algorithm: str, rule: str, needed: str
) -> None:
    """Its runs would else be another method's, under its name."""
    told = rf"algorithm\.local_rule={rule}: must be {needed}: clients of algorithm={algorithm}"
    with pytest.raises(UserError, match=told):
        tiny(f"algorithm={algorithm}", f"algorithm.local_rule={rule}")


@pytest.mark.parametrize("algorithm", ["splitfed_v1", "fsl_sage"])
def test_zeroth_order_step_is_refused_where_clients_have_no_loss(tiny: Build, algorithm: str) -> None:
    with pytest.raises(UserError, match=r"algorithm\.local_rule=zeroth_order: needs a loss at the client"):
        tiny(f"algorithm={algorithm}", "algorithm.local_rule=zeroth_order")


def test_local_step_of_heron_takes_as_long_as_its_forward_passes(tiny: Build) -> None:
    """With two probes that is what a step of CSE-FSL takes, whose backward pass counts as two."""
    network = ["network=wifi", "algorithm.server_update_interval=5"]
    runs = [
        tiny("algorithm=cse_fsl", *network),
        tiny("algorithm=heron", "algorithm.local_rule.probes=2", *network),
        tiny("algorithm=heron", "algorithm.local_rule.probes=8", *network),
    ]
    same, two, eight = (run.run_round(0).simulated_seconds for run in runs)
    assert same == two
    assert two is not None
    assert eight is not None
    assert eight > two
