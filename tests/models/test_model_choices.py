"""Every model choice: two rounds of FSL-SAGE on images as small as it takes, its cuts by number, its size."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedsplit.errors import UserError
from fedsplit.models.derived import DerivedAuxiliary
from fedsplit.models.splitting.cuts import Cuts
from tests.cases import long_but
from tests.conftest import ALGORITHMS, Build
from tests.models.zoo import CHOICES, EVERY_RUN, built, settings_of, side_of

DEEP = ("resnet101", "resnet101_32x32", "resnet152", "resnet152_32x32", "resnet1202", "vgg11_bn")
"""Deep or wide models, trained on as little as can be: one step per round and client."""
TINY_ROUNDS = (
    "dataset.max_train=16",
    "dataset.max_test=10",
    "num_clients=2",
    "batch_size=4",
    "auxiliary.align_epochs=2",
    "auxiliary.max_dataset_size=4",
    "auxiliary.align_batch_size=4",
)


ONE_STEP = (
    "dataset.max_train=10",
    "batch_size=5",
    "auxiliary.align_epochs=1",
    "engine=sequential",
    "eval_interval=3",  # the statistics of 1202 layers need more rounds than two before they are of use
)


@pytest.mark.parametrize(
    "choice",
    long_but(EVERY_RUN, [name for name in CHOICES if name != "vgg11"]),  # vgg11_bn without the bn
)
def test_model_choice_trains_all_weights_in_two_rounds_of_fsl_sage(choice: str, tiny: Build) -> None:
    own = ["model.name=shufflenet_v2_x0_5"] if choice == "torchvision" else []
    own += ONE_STEP if choice in DEEP else ()
    run = tiny(*TINY_ROUNDS, f"model={choice}", f"dataset.image_size={side_of(choice)}", *own)
    before = run.algorithm.full_weights()
    for t in range(2):
        assert math.isfinite(run.run_round(t).train_loss)
    after = run.algorithm.full_weights()
    assert [name for name, tensor in after.items() if torch.equal(tensor, before[name])] == []


@pytest.mark.parametrize(
    "choice",
    long_but(EVERY_RUN, [name for name in CHOICES if not name.startswith("vgg")]),
)
def test_stages_of_a_model_choice_are_possible_cuts_in_order(choice: str) -> None:
    settings, side = settings_of(choice), side_of(choice)
    if choice == "resnet1202":
        return
    cuts = Cuts(built(choice, image_size=side), torch.randn(2, 3, side, side))
    stages = settings["stages"] or [cut.name for cut in cuts.stages()]
    assert all(cuts[name].obstacle is None and len(cuts[name].crossing) == 1 for name in stages)
    ends = [cuts[name].end for name in stages]
    assert ends == sorted(ends)
    assert len(set(ends)) == len(ends) >= 3
    assert settings["cut"] is None or cuts[settings["cut"]].obstacle is None


def number_of_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_eurosat_cnn_has_the_published_number_of_parameters() -> None:
    assert number_of_parameters(built("eurosat_cnn", image_size=64)) == 434_602


@pytest.mark.parametrize(
    ("choice", "millions", "exactly"),
    [
        ("resnet20", 0.27, 269_722),
        ("resnet32", 0.46, 464_154),
        ("resnet44", 0.66, 658_586),
        ("resnet56", 0.85, 853_018),
        ("resnet110", 1.7, 1_727_962),
        ("resnet1202", 19.4, 19_421_274),
    ],
)
def test_residual_networks_for_cifar_have_the_numbers_of_parameters_of_the_paper(
    choice: str, millions: float, exactly: int
) -> None:
    """He et al. 2016, table 6; exactly: 3x3 convolutions and BatchNorm of three stages, the last layer."""
    blocks = (int(choice.removeprefix("resnet")) - 2) // 6
    expected = 3 * 9 * 16 + 2 * 16 + 64 * 10 + 10
    for before, after in ((16, 16), (16, 32), (32, 64)):
        expected += 9 * before * after + 9 * after * after * (2 * blocks - 1) + 2 * after * 2 * blocks
    found = number_of_parameters(built(choice, image_size=32))
    assert found == expected == exactly
    assert round(found / 1e6, 1 if millions > 1 else 2) == millions


@pytest.mark.parametrize(
    ("number", "cut"),
    long_but(
        [(3, "layer3"), ("null", "layer2")], [(1, "layer1"), (2, "layer2"), (3, "layer3"), ("null", "layer2")]
    ),
)
def test_cut_by_number_or_at_the_default_is_that_of_the_stage_by_name(
    number: int | str, cut: str, tiny: Build
) -> None:
    one, other = (tiny("model=resnet20", f"model.cut={each}", "batch_size=20") for each in (number, cut))
    assert one.parts.models.smashed_shape == other.parts.models.smashed_shape
    keys = [list(run.parts.models.halves.client.state_dict()) for run in (one, other)]
    assert keys[0] == keys[1]
    assert all(key.startswith(("conv1", "bn1", "layer")) for key in keys[0])


def test_cut_number_without_a_stage_and_stage_that_is_no_part_are_refused(tiny: Build) -> None:
    with pytest.raises(UserError, match=r"model\.cut=4: must be from 1 to 3: layer1, layer2, layer3"):
        tiny("model=resnet20", "model.cut=4")
    with pytest.raises(UserError, match=r"model\.cut=0: must be a text or a whole number greater"):
        tiny("model=resnet20", "model.cut=0")
    with pytest.raises(UserError, match=r"model\.stages=layer9: no part of this model; its parts: conv1"):
        tiny("model=resnet20", "model.cut=2", "model.stages=[layer1,layer9]")


def test_stages_of_a_model_without_named_ones_are_its_outermost_parts(tiny: Build) -> None:
    one, other = (tiny("model=digits_cnn", f"model.cut={each}") for each in (5, "pool"))
    assert one.parts.models.smashed_shape == other.parts.models.smashed_shape == (16, 4, 4)

    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x)

    assert Cuts(Nothing(), torch.randn(2, 4)).stages() == []


def test_model_with_several_crossing_tensors_trains_alike_on_both_engines_with_each_auxiliary(
    tiny: Build,
) -> None:
    """What crosses inside a residual block, packed; on both engines to the same losses."""
    for auxiliary in ("derived", "linear", "mlp"):
        asked = (*TINY_ROUNDS, "model=resnet20", "model.cut=layer2.1.conv1", f"auxiliary={auxiliary}")
        losses = []
        for engine in ("sequential", "vectorized"):
            run = tiny(*asked, f"engine={engine}")
            assert run.parts.models.smashed_shape == (2 * 32 * 4 * 4,)
            losses.append([run.run_round(t).train_loss for t in range(2)])
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


@pytest.mark.parametrize(("width", "depth"), [(0.25, 1), (0.5, 2), (1.0, 3)])
def test_derived_auxiliary_has_the_configured_width_and_depth(width: float, depth: int, tiny: Build) -> None:
    asked = ("auxiliary=derived", f"auxiliary.width={width}", f"auxiliary.depth={depth}")
    run = tiny(*TINY_ROUNDS, "model=resnet20", "model.cut=layer1", *asked)
    auxiliary = run.parts.models.auxiliary
    assert isinstance(auxiliary, DerivedAuxiliary)
    found = [layer.out_channels for layer in auxiliary.modules() if isinstance(layer, nn.Conv2d)]
    assert found == [max(8, round(width * channels)) for channels in (32, 64)][:depth]
    run.run_round(0)


OWN = """
from torch import nn
from torch.nn import functional

class MyNet(nn.Module):
    def __init__(self, *, num_classes, channels, image_size):
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(5))
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + functional.dropout(block(x).relu(), 0.1, training=self.training)
        return self.head(x.mean((2, 3)))
"""


def test_model_with_random_functions_before_the_cut_runs_on_the_sequential_engine_only(
    tiny: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drawing_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    asked = (*TINY_ROUNDS, "model._target_=drawing_net.MyNet", "auxiliary=derived")
    for algorithm in ALGORITHMS:
        run = tiny(*asked, "model.cut=blocks.3", f"algorithm={algorithm}")
        # no client draws before the cut where its last operation is a block's convolution; two of five do
        assert run.config.choices["engine"] == "sequential"
        assert math.isfinite(run.run_round(0).train_loss)
    with pytest.raises(UserError, match="engine=vectorized: must be auto or sequential: this model"):
        tiny(*asked, "model.cut=blocks.3", "engine=vectorized")
    assert tiny(*asked, "model.cut=stem").config.choices["engine"] == "vectorized"
