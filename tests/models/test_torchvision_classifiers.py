"""Classifiers of torchvision, of every family, are split at half depth."""

import re

import pytest
import torch
from torch import nn

from fedsplit.errors import UserError
from fedsplit.machine.torchvision_operators import torchvision
from fedsplit.models.splitting.cuts import Cuts, resolve_cut
from fedsplit.models.splitting.split import split
from fedsplit.models.zoo.classifiers import classifier
from tests.cases import long_but

NAMES = torchvision().models.list_models(module=torchvision().models)
SAMPLED = [
    "alexnet",
    "convnext_tiny",
    "convnext_small",
    "densenet121",
    "densenet161",
    "densenet169",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mnasnet0_75",
    "mnasnet1_0",
    "mnasnet1_3",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "regnet_x_1_6gf",
    "regnet_x_400mf",
    "regnet_x_800mf",
    "regnet_y_1_6gf",
    "regnet_y_400mf",
    "regnet_y_800mf",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
    "squeezenet1_0",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_16",
    "wide_resnet50_2",
]
"""The smaller ones; `benchmarks/every_classifier.py` goes over all of them."""

EVERY_RUN = (*("googlenet", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t"),)
"""Models of every run, one per construction: concatenation, gates, branches, groups, shuffles, attention."""


def family(name: str) -> str:
    """The name without version and size."""
    found = re.match(r"[a-z]+", name)
    assert found is not None
    return found[0]


def test_sampled_classifiers_come_from_every_family_but_maxvit() -> None:
    assert set(SAMPLED) <= set(NAMES)
    assert len(SAMPLED) > 40
    assert {family(name) for name in NAMES} - {family(name) for name in SAMPLED} == {"maxvit"}
    assert len({family(name) for name in SAMPLED}) >= 12


@pytest.mark.parametrize("name", long_but(EVERY_RUN, SAMPLED))
def test_classifier_split_at_half_depth_gives_the_outputs_of_the_whole(name: str) -> None:
    """`split` itself refuses halves that do not give what the whole gives in evaluation; here in training."""
    side = 96 if name == "inception_v3" else 64 if name in ("alexnet", "googlenet") else 32
    torch.manual_seed(0)
    whole = classifier(name=name, num_classes=10, channels=3, image_size=side)
    x = torch.randn(2, 3, side, side)
    cuts = Cuts(whole, x)
    cut = resolve_cut(cuts, None, None)
    halves = split(whole, cut, x)
    assert 0.15 < cuts[cut].end / len(cuts.nodes) < 0.85
    assert len(halves.crossing) == 1
    keys = [list(half.state_dict()) for half in (halves.client, halves.server)]
    assert sorted(keys[0] + keys[1]) == sorted(whole.state_dict())
    assert min(map(len, keys)) > 0
    with torch.no_grad():
        torch.manual_seed(1)
        expected = whole(x)
        torch.manual_seed(1)
        assert torch.equal(halves.server(halves.client(x)), expected)


@pytest.mark.parametrize("name", long_but(["mobilenet_v2"], ["mobilenet_v2", "vit_b_16", "convnext_tiny"]))
def test_classifier_takes_images_of_one_channel_with_outputs_as_large(name: str) -> None:
    torch.manual_seed(0)
    network = classifier(name=name, num_classes=7, channels=1, image_size=32)
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    first = next(each for each in network.modules() if isinstance(each, nn.Conv2d))
    torch.manual_seed(0)
    colours = classifier(name=name, num_classes=7, channels=3, image_size=32)
    like = next(each for each in colours.modules() if isinstance(each, nn.Conv2d))
    assert first.in_channels == 1
    # as large outputs of unit inputs as before
    ours, theirs = (float(each.weight.detach().std()) for each in (first, like))
    assert ours == pytest.approx(theirs * 3**0.5, rel=0.1)


def test_unknown_classifier_is_refused_with_close_names() -> None:
    with pytest.raises(
        UserError, match=r"model\.name=resnet19: must be a classifier .* similar names are .*resnet18"
    ):
        classifier(name="resnet19", num_classes=10, channels=3, image_size=32)
