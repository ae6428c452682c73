"""DP-SGD at clients: what it is without clip and noise, its sensitivity, and where it is refused."""

from collections import OrderedDict
from math import inf

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedsplit.computing.model_state import ModelState
from fedsplit.computing.stacked_state import StackedState
from fedsplit.errors import UserError
from fedsplit.models.group_normalised import replace_batch_norms
from fedsplit.objectives.classification import Classification
from fedsplit.parties.local_rule import LocalBatch, LocalGradients, LocalRule, StepSeeds
from fedsplit.parties.private_gradients import PrivateGradients
from fedsplit.privacy.accounting import epsilon
from fedsplit.privacy.defences.dp_sgd import DpSgd
from fedsplit.privacy.noise import Noise, Secrets
from fedsplit.privacy.per_sample import clipped_gradient_sum
from tests.cases import long_but
from tests.conftest import Build

DP_SGD = ("defence=dp_sgd", "defence.sigma=2", "defence.clip=0.5")
CLIP = 0.3
NOISE = Noise(b"a key")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def models(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """A client model and a head of classes."""
    torch.manual_seed(seed)
    body = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 3, 3), act=nn.Tanh(), flat=nn.Flatten()))
    return body.double(), nn.Sequential(OrderedDict(fc=nn.Linear(12, 4))).double()


def defence(sigma: float = 0.0, clip: float | None = CLIP) -> DpSgd:
    return DpSgd(sigma=sigma, clip=clip, delta=1e-5, unit="replace", smashed_sigma=None, smashed_clip=None)


def rule(sigma: float = 0.0, clip: float | None = CLIP) -> PrivateGradients:
    return PrivateGradients(LocalRule(), defence(sigma, clip), Classification(4))


def batch(x: Tensor, y: Tensor) -> LocalBatch:
    body, head = models()
    return LocalBatch(ModelState(body), ModelState(head), Classification(4), x, y, StepSeeds(rule=NOISE))


X, Y = drawn(6, 1, 4, 4), torch.tensor([0, 1, 2, 3, 0, 1])


def flat(found: LocalGradients) -> Tensor:
    return torch.cat([each.flatten() for each in (*found.body, *found.head)])


@pytest.mark.usefixtures("float64")
def test_gradients_without_clip_and_noise_are_those_of_the_batch() -> None:
    found, plain = rule(clip=None).gradients(batch(X, Y)), LocalRule().gradients(batch(X, Y))
    torch.testing.assert_close(flat(found), flat(plain), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.loss, plain.loss)
    torch.testing.assert_close(found.z, plain.z)
    body, dz = ModelState(models()[0]), drawn(6, 12, seed=1)
    z = body.forward(X, seed=None)
    ours, theirs = (each.along(body, X, z, dz, NOISE) for each in (rule(clip=None), LocalRule()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_gradients_are_the_mean_of_those_of_single_samples_that_are_clipped_together() -> None:
    """Found by a loop over samples, a batch of one each."""
    total = torch.zeros(())
    for x, y in zip(X.split(1), Y.split(1), strict=True):
        one = flat(LocalRule().gradients(batch(x, y)))
        total = total + one * min(1.0, CLIP / float(one.norm()))
        assert float(one.norm()) > CLIP
    torch.testing.assert_close(flat(rule().gradients(batch(X, Y))), total / 6, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_sums_over_neighbouring_batches_differ_by_the_clip_or_twice_the_clip() -> None:
    """Leaving a sample out moves the sum by `clip` at most, replacing it by `2 clip`."""
    sums = [6 * flat(rule().gradients(batch(X, Y)))]
    other = X.clone()
    other[3] = 100 * drawn(1, 4, 4, seed=5)
    sums.append(6 * flat(rule().gradients(batch(other, Y))))
    kept = torch.arange(6) != 3
    sums.append(5 * flat(rule().gradients(batch(X[kept], Y[kept]))))
    assert float((sums[0] - sums[2]).norm()) == pytest.approx(CLIP, rel=1e-9)
    assert 0 < float((sums[0] - sums[1]).norm()) <= 2 * CLIP * (1 + 1e-9)


@pytest.mark.usefixtures("float64")
def test_noise_on_the_sum_has_sigma_times_the_clip() -> None:
    calm = flat(rule().gradients(batch(X, Y)))
    added = [6 * (flat(rule(5.0).gradients(batch(X, Y))) - calm)]
    expected = 5.0 * CLIP * NOISE.normal(6 * calm)
    torch.testing.assert_close(added[0], expected)


@pytest.mark.usefixtures("float64")
def test_clients_in_a_stack_get_what_each_gets_alone() -> None:
    noise = [Secrets(0).noise("gradients", client=client, round=0, step=0) for client in range(3)]
    bodies, heads = zip(*(models(seed) for seed in range(3)), strict=True)
    xs, ys = drawn(3, 5, 1, 4, 4), torch.randint(4, (3, 5))
    stacks = [StackedState(group[0], 3) for group in (bodies, heads)]
    for stack, group in zip(stacks, (bodies, heads), strict=True):
        for row, module in enumerate(group):
            stack.load_row(row, module.state_dict())
    views = [stack.rows(slice(0, 3)) for stack in stacks]
    objective = Classification(4)
    together = rule(1.0).gradients(LocalBatch(*views, objective.of_many, xs, ys, StepSeeds(rule=noise)))
    for row in range(3):
        alone = LocalBatch(
            ModelState(bodies[row]),
            ModelState(heads[row]),
            objective,
            xs[row],
            ys[row],
            StepSeeds(rule=noise[row]),
        )
        found = rule(1.0).gradients(alone)
        for a, b in zip((*together.body, *together.head), (*found.body, *found.head), strict=True):
            torch.testing.assert_close(a[row], b, rtol=0, atol=1e-12)


def test_gradient_sum_over_several_models_is_clipped_by_one_norm() -> None:
    weights = [{"a": torch.tensor([3.0])}, {"b": torch.tensor([1.0])}]

    def loss(models: list[dict[str, Tensor]], x: Tensor) -> Tensor:
        return (models[0]["a"] * 3 * x).sum() + (models[1]["b"] * 4 * x).sum()

    found = clipped_gradient_sum(loss, weights, torch.tensor([1.0, 0.1]), clip=1.0)
    torch.testing.assert_close(found, torch.tensor([0.6 + 0.3, 0.8 + 0.4]))
    assert torch.equal(clipped_gradient_sum(loss, weights, torch.zeros(2), clip=1.0), torch.zeros(2))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("algorithm", ["fed_avg", "splitfed_v1", "fsl_sage"])
def test_run_without_clip_and_noise_is_that_without_the_defence(tiny: Build, algorithm: str) -> None:
    settings = [f"algorithm={algorithm}", "optimizer=sgd", "dataset.max_train=40"]
    nothing = ["defence=dp_sgd", "defence.clip=null", "defence.sigma=0"]
    runs = [tiny(*settings, *each) for each in ([], nothing)]
    for run in runs:
        run.run_round(0)
    ours, theirs = (run.algorithm.full_weights() for run in runs)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-10, msg=name)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "algorithm",
    long_but(
        ["fed_prox", "splitfed_v1"], ["fed_prox", "splitfed_v1", "fed_avg", "cse_fsl", "fsl_sage", "scaffold"]
    ),
)
def test_engines_give_the_same_with_noise_on_gradients(tiny: Build, algorithm: str) -> None:
    settings = [f"algorithm={algorithm}", "optimizer=sgd", "dataset.max_train=40", *DP_SGD]
    runs = [tiny(f"engine={engine}", *settings) for engine in ("sequential", "vectorized")]
    for run in runs:
        run.run_round(0)
    ours, theirs = (run.algorithm.full_weights() for run in runs)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-12, msg=name)


MU = 2 * 2**0.5 / 2
"""Gaussian differential privacy mu of two steps with sigma 2."""
BOTH = ("defence.smashed_sigma=1", "defence.smashed_clip=1")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["algorithm=fed_avg"], [0, MU, MU, MU]),
        (["algorithm=cse_fsl"], [inf, MU, inf, inf]),
        (["algorithm=cse_fsl", *BOTH], [2 * 2**0.5, MU, (8 + 2) ** 0.5, inf]),
        (["algorithm=splitfed_v1"], [inf, inf, inf, inf]),
        (["algorithm=splitfed_v1", *BOTH], [2 * 2**0.5, (8 + 2) ** 0.5, (8 + 2) ** 0.5, inf]),
    ],
    ids=["fed_avg", "cse_fsl", "cse_fsl both", "splitfed", "splitfed both"],
)
def test_bounds_of_what_leaves_clients(tiny: Build, settings: list[str], expected: list[float]) -> None:
    """With every sample in one step of each of two rounds, all of which are uploaded."""
    further = ["algorithm.server_update_interval=1"] if "algorithm=cse_fsl" in settings else []
    run = tiny(*settings, *further, *DP_SGD, "dataset.max_train=40", "rounds=2")
    found = [run.run_round(t).epsilons for t in range(2)][-1]
    columns = ("smashed", "weights", "features", "labels")
    assert [found[column] for column in columns] == [
        inf if mu == inf else pytest.approx(epsilon(mu, 1e-5)) for mu in expected
    ]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["algorithm=fed_avg", "model=resnet20"], "bn1 is batch normalisation: model.norm=group replaces it"),
        (["algorithm=heron"], "must be none: it changes gradients, and ZerothOrder uses none"),
        (
            ["algorithm=cse_fsl", "quant.continue_from_decoded=true"],
            "quant.continue_from_decoded=True: must be false",
        ),
        (["algorithm=fed_avg", "precision=bf16"], "precision=bf16: must be fp32 with defence=dp_sgd"),
        (
            ["algorithm=fed_avg", *BOTH],
            "must be none: it changes smashed data, and with FedAvg no client sends any",
        ),
        (
            [
                "algorithm=fed_avg",
                "model._target_=tests.parties.test_vectorized.normed",
                "model.norm=group",
                "model.cut=relu1",
            ],
            "drop1 draws anew each time",
        ),
    ],
)
def test_what_lets_gradients_of_single_samples_not_be_taken_is_refused(
    tiny: Build, settings: list[str], told: str
) -> None:
    with pytest.raises(UserError, match=told.replace(".", r"\.")):
        tiny(*settings, *DP_SGD)


def test_group_normalisation_takes_the_place_of_every_batch_normalisation_by_its_name() -> None:
    layers = OrderedDict(
        a=nn.BatchNorm2d(64),
        b=nn.Sequential(nn.BatchNorm1d(6)),
        c=nn.BatchNorm2d(3, affine=False),
        d=nn.ReLU(),
    )
    found = replace_batch_norms(nn.Sequential(layers))
    groups = {name: each.num_groups for name, each in found.named_modules() if isinstance(each, nn.GroupNorm)}
    assert groups == {"a": 16, "b.0": 1, "c": 1}
    assert {name for name, _ in found.named_parameters()} == {"a.weight", "a.bias", "b.0.weight", "b.0.bias"}
    assert list(found.buffers()) == []
    assert isinstance(replace_batch_norms(nn.BatchNorm2d(128)), nn.GroupNorm)


def test_samples_of_a_model_with_group_normalisation_do_not_depend_on_each_other(tiny: Build) -> None:
    run = tiny(
        "algorithm=fed_avg",
        "model=resnet20",
        "model.norm=group",
        "dataset.max_train=12",
        "num_clients=1",
        *DP_SGD,
    )
    client = run.parts.models.halves.client
    x, _ = run.parts.data.batch(2)
    weights = {name: each.clone() for name, each in client.state_dict().items()}
    pair, alone = (functional_call(client, weights, (each,)) for each in (x, x[:1]))
    torch.testing.assert_close(pair[:1], alone)
    before = run.algorithm.full_weights()
    assert all("running" not in name for name in before)
    run.run_round(0)
    after = run.algorithm.full_weights()
    assert all(not torch.equal(after[name], before[name]) for name in after)


def test_group_normalisation_of_a_model_without_batch_normalisation_is_refused(tiny: Build) -> None:
    with pytest.raises(
        UserError, match=r"model\.norm=group: must be null: this model has no batch normalisation"
    ):
        tiny("model.norm=group")
