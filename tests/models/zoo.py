"""The model choices, as small as they can be."""

from typing import Any

import torch
import yaml
from hydra.utils import instantiate
from torch import nn

from fedsplit.config.checks import own_keys
from fedsplit.config.choices import CONFIGS
from fedsplit.config.component import Component

OF_TEXTS = ("causal_lm", "sequence_classifier", "tiny_gpt2")
"""Models of texts, which tests/training/test_language_models.py trains."""
CHOICES = sorted({path.stem for path in (CONFIGS / "model").glob("*.yaml")}.difference(OF_TEXTS))
EVERY_RUN = ("digits_cnn", "simple_conv", "eurosat_cnn", "resnet20", "mobilenet_v2")
"""A choice of each kind: plain, with normalisation, residual with one kind of block, expanded."""
_SIDES = {"digits_cnn": 8, "simple_conv": 8, "eurosat_cnn": 28}


def side_of(choice: str) -> int:
    """Of the smallest images, in pixels, that leave something to normalise and to pool."""
    if choice.endswith("_32x32") or choice in ("resnet20", "resnet32", "resnet44", "resnet56"):
        return 8
    return _SIDES.get(choice, 8 if choice in ("resnet110", "resnet1202") else 32)


def settings_of(choice: str) -> dict[str, Any]:
    """What its file says."""
    loaded: dict[str, Any] = yaml.safe_load((CONFIGS / "model" / f"{choice}.yaml").read_text("utf-8"))
    return loaded


def component_of_choice(choice: str) -> Component:
    """What builds its model."""
    return Component.of("model", settings_of(choice), own_keys("model"))


def built(choice: str, *, num_classes: int = 10, channels: int = 3, image_size: int) -> nn.Module:
    """The model of a choice, from seed 0."""
    torch.manual_seed(0)
    made = instantiate(
        component_of_choice(choice).plain(),
        num_classes=num_classes,
        channels=channels,
        image_size=image_size,
    )
    assert isinstance(made, nn.Module)
    if choice.startswith(
        "vgg"
    ):  # a hundred million weights of its hidden layers: that they are there is enough
        first, second, last = (made.classifier[position] for position in (0, 3, 6))
        made.classifier[0] = nn.Linear(first.in_features, 16)
        made.classifier[3], made.classifier[6] = nn.Linear(16, 16), nn.Linear(16, last.out_features)
        assert (first.out_features, second.out_features) == (4096, 4096)
    return made
